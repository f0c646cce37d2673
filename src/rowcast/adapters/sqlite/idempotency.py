"""Stores replies by idempotency key in a separate SQLite file.

All server processes with the same home folder share the file. The file is not part of the history: old replies are
purged, and the whole file can be deleted while no server is running.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rowcast.access.fair_shares import fair_share
from rowcast.access.ports import IN_FLIGHT, LEASE_SECONDS, OTHER_REQUEST, idempotency_unavailable
from rowcast.errors import RepeatConflict, Unavailable
from rowcast.private_files import make_private_folder

VERSION = 2
PID_BITS = 32
"""An owner's process ID is stored in this many low-order bits. If the process has exited, its claims are void."""
CREATE = """CREATE TABLE IF NOT EXISTS repeats (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, at REAL NOT NULL, owner INTEGER NOT NULL, reply BLOB
) WITHOUT ROWID"""
SIZES = """SELECT sum(length(reply)) FROM repeats WHERE reply IS NOT NULL
    GROUP BY substr(key, 1, instr(key, ':'))"""
TRIM = """DELETE FROM repeats WHERE key IN (
    SELECT key FROM (
        SELECT key, sum(length(reply)) OVER (
            PARTITION BY substr(key, 1, instr(key, ':')) ORDER BY at DESC, key
        ) AS total FROM repeats WHERE reply IS NOT NULL
    ) WHERE total > ?
)"""


class SqliteIdempotencyStore:
    """Opens its file on the first request with an idempotency key."""

    def __init__(self, path: Path, lease_seconds: float = LEASE_SECONDS) -> None:
        self._path = path
        self.lease_seconds = lease_seconds
        self._owner = secrets.randbits(PID_BITS - 2) << PID_BITS | os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """Return the saved reply, or claim the key and return None."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT fingerprint, at, owner, reply FROM repeats WHERE key = ?", [key]
            ).fetchone()
            if row is not None:
                first, at, owner, reply = row
                if first != fingerprint:
                    raise RepeatConflict(OTHER_REQUEST, slug="repeat-differs")
                if reply is not None:
                    return bytes(reply)
                if now < at + self.lease_seconds and _is_running(owner):
                    raise RepeatConflict(IN_FLIGHT)
            connection.execute(
                "INSERT OR REPLACE INTO repeats (key, fingerprint, at, owner) VALUES (?, ?, ?, ?)",
                [key, fingerprint, now, self._owner],
            )
        return None

    def renew(self, keys: Collection[str], now: float) -> None:
        """Extend the leases of these claims."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE repeats SET at = ? WHERE key = ? AND owner = ? AND reply IS NULL",
                [(now, key, self._owner) for key in keys],
            )

    def save_reply(self, key: str, reply: bytes, now: float) -> None:
        """Save the reply for later requests."""
        with self._transaction() as connection:
            connection.execute(
                "UPDATE repeats SET reply = ?, at = ? WHERE key = ? AND owner = ? AND reply IS NULL",
                [reply, now, key, self._owner],
            )

    def release(self, key: str) -> None:
        """Release a claim."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM repeats WHERE key = ? AND owner = ? AND reply IS NULL", [key, self._owner])

    def purge(self, before: float) -> None:
        """Delete old claims and replies."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM repeats WHERE at < ?", [before])

    def trim(self, max_bytes: int) -> None:
        """Delete the oldest replies of the owners that use the most space."""
        with self._transaction() as connection:
            share = fair_share([size for (size,) in connection.execute(SIZES)], max_bytes)
            connection.execute(TRIM, [share])

    def check(self) -> None:
        """Run `PRAGMA quick_check` on the file, if the file exists."""
        if not self._path.exists():
            return
        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        try:
            with closing(sqlite3.connect(uri, uri=True)) as connection:
                (verdict,) = connection.execute("PRAGMA quick_check").fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if verdict != "ok":
            raise self._unusable(verdict)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                connection = self._connection = self._connection or self._connect()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from None

    def _unusable(self, reason: Exception | str) -> Unavailable:
        return idempotency_unavailable(f"cannot use {self._path}: {reason}")

    def _connect(self) -> sqlite3.Connection:
        make_private_folder(self._path.parent)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # replies can contain personal data
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] > VERSION:
            connection.close()
            raise idempotency_unavailable(f"{self._path} was written by a newer version of Rowcast")
        connection.execute(CREATE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        return connection


def _is_running(owner: int) -> bool:
    """Return whether the process that made a claim still exists."""
    try:
        os.kill(owner & (1 << PID_BITS) - 1, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to another user
    return True
