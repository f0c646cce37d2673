"""Replies to requests with an Idempotency-Key, in a SQLite file of its own that all workers of a home share.

It is no evidence, that is history's task: it may be deleted while nothing runs, and old replies go by themselves.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.access.ports import IN_FLIGHT, OTHER_REQUEST
from rowcast.errors import RepeatConflict, Unavailable

VERSION = 1
CREATE = """CREATE TABLE IF NOT EXISTS repeats (
    key TEXT PRIMARY KEY, fingerprint BLOB NOT NULL, at REAL NOT NULL, owner INTEGER NOT NULL, reply BLOB
) WITHOUT ROWID"""


class SqliteRepeats:
    """Opened with the first request that carries a key."""

    def __init__(self, path: Path, claim_seconds: float = 120.0) -> None:
        self._path = path
        self._claim_seconds = claim_seconds
        self._connection: sqlite3.Connection | None = None
        self._one_at_a_time = threading.Lock()

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """None to the first, its reply to the others."""
        with self._changing() as connection:
            found = connection.execute(
                "SELECT fingerprint, at, owner, reply FROM repeats WHERE key = ?", [key]
            ).fetchone()
            if found is not None:
                kept, at, owner, reply = found
                if kept != fingerprint:
                    raise RepeatConflict(OTHER_REQUEST, slug="repeat-differs")
                if reply is not None:
                    return bytes(reply)
                if now < at + self._claim_seconds and _runs(owner):
                    raise RepeatConflict(IN_FLIGHT)
            connection.execute(
                "INSERT OR REPLACE INTO repeats (key, fingerprint, at, owner) VALUES (?, ?, ?, ?)",
                [key, fingerprint, now, os.getpid()],
            )
        return None

    def keep(self, key: str, reply: bytes, now: float) -> None:
        """The reply that repeats get."""
        with self._changing() as connection:
            connection.execute("UPDATE repeats SET reply = ?, at = ? WHERE key = ?", [reply, now, key])

    def release(self, key: str) -> None:
        """Let the next one be the first."""
        with self._changing() as connection:
            connection.execute("DELETE FROM repeats WHERE key = ? AND reply IS NULL", [key])

    def purge(self, before: float) -> None:
        """Forget the old ones."""
        with self._changing() as connection:
            connection.execute("DELETE FROM repeats WHERE at < ?", [before])

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        with self._one_at_a_time:
            try:
                connection = self._connection = self._connection or self._opened()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise Unavailable(f"repeated requests in {self._path} cannot be looked up: {error}") from None

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))  # it holds replies
        connection = sqlite3.connect(self._path, timeout=10, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("BEGIN IMMEDIATE")
        if connection.execute("PRAGMA user_version").fetchone()[0] > VERSION:
            connection.close()
            raise Unavailable(f"{self._path} was written by a newer Rowcast")
        connection.execute(CREATE)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
        return connection


def _runs(pid: int) -> bool:
    """Whether the process that claimed is still there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
