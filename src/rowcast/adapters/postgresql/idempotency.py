"""Stores replies by idempotency key in a PostgreSQL database, for all servers that use this store.

A claim is a lease that its owner renews, because one machine cannot detect whether a process on another machine is
still running.
"""

from __future__ import annotations

import secrets
import select
import time
import weakref
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import psycopg

from rowcast.access.fair_shares import fair_share
from rowcast.access.ports import IN_FLIGHT, LEASE_SECONDS, OTHER_REQUEST, idempotency_unavailable
from rowcast.adapters.postgresql.database import Database, TimedConnection, close_all, describe
from rowcast.adapters.postgresql.migrations import LOCKS, REPEATS_LOCK
from rowcast.errors import RepeatConflict

SECONDS = 2
"""How long a request waits for the database. If the database does not respond in time, the request fails with 503."""
PAUSE_SECONDS = 1.0
"""After a database failure, requests fail immediately for this long."""
CLAIM = """INSERT INTO rowcast.repeats AS r (key, fingerprint, at, owner, expires)
    VALUES (%(key)s, %(fingerprint)s, %(now)s, %(owner)s, %(now)s + %(seconds)s)
    ON CONFLICT (key) DO UPDATE
    SET at = excluded.at, owner = excluded.owner, expires = excluded.expires
    WHERE r.reply IS NULL AND r.expires <= excluded.at AND r.fingerprint = excluded.fingerprint
    RETURNING TRUE"""
SIZES = """SELECT sum(length(reply))::bigint FROM rowcast.repeats WHERE reply IS NOT NULL
    GROUP BY left(key, strpos(key, ':'))"""
TRIM = """DELETE FROM rowcast.repeats WHERE key IN (
    SELECT key FROM (
        SELECT key, sum(length(reply)) OVER (
            PARTITION BY left(key, strpos(key, ':')) ORDER BY at DESC, key
        ) AS total FROM rowcast.repeats WHERE reply IS NOT NULL
    ) AS sizes WHERE total > %s
)"""
TRY_LOCK = "SELECT pg_try_advisory_xact_lock(%s, %s)"


class PostgresIdempotencyStore:
    """Connects on the first request with an idempotency key. Concurrent calls use separate connections."""

    def __init__(self, url: str, lease_seconds: float = LEASE_SECONDS) -> None:
        self._database = Database(url)
        self.lease_seconds = lease_seconds
        self._owner = secrets.token_hex(16)
        self._idle: deque[TimedConnection] = deque()
        self._close_idle = weakref.finalize(self, close_all, self._idle)
        self._ahead = 0.0
        """How far the database clock is ahead of this machine's clock, in seconds."""
        self._retry_at = 0.0

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """Return the saved reply, or claim the key and return None."""
        with self._connected() as connection:
            values = {
                "key": key,
                "fingerprint": fingerprint,
                "now": now + self._ahead,
                "owner": self._owner,
                "seconds": self.lease_seconds,
            }
            while not connection.execute(CLAIM, values).fetchone():
                row = connection.execute(
                    "SELECT fingerprint, reply FROM rowcast.repeats WHERE key = %s", [key]
                ).fetchone()
                if row is None:
                    continue  # the claim was released in the meantime
                if row[0] != fingerprint:
                    raise RepeatConflict(OTHER_REQUEST, slug="repeat-differs")
                if row[1] is None:
                    raise RepeatConflict(IN_FLIGHT)
                return bytes(row[1])
        return None

    def renew(self, keys: Collection[str], now: float) -> None:
        """Extend the leases of these claims."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE rowcast.repeats SET at = %s, expires = %s "
                "WHERE key = ANY (%s) AND owner = %s AND reply IS NULL",
                [now + self._ahead, now + self._ahead + self.lease_seconds, sorted(keys), self._owner],
            )

    def save_reply(self, key: str, reply: bytes, now: float) -> None:
        """Save the reply for later requests."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE rowcast.repeats SET reply = %s, at = %s WHERE key = %s AND owner = %s AND reply IS NULL",
                [reply, now + self._ahead, key, self._owner],
            )

    def release(self, key: str) -> None:
        """Release a claim."""
        with self._connected() as connection:
            connection.execute(
                "DELETE FROM rowcast.repeats WHERE key = %s AND owner = %s AND reply IS NULL", [key, self._owner]
            )

    def purge(self, before: float) -> None:
        """Delete old claims and replies, unless another process is doing so."""
        with self._exclusively() as connection:
            if connection is not None:
                connection.execute("DELETE FROM rowcast.repeats WHERE at < %s", [before + self._ahead])

    def trim(self, max_bytes: int) -> None:
        """Delete the oldest replies of the owners that use the most space, unless another process is doing so."""
        with self._exclusively() as connection:
            if connection is not None:
                sizes = [int(size) for (size,) in connection.execute(SIZES)]
                connection.execute(TRIM, [fair_share(sizes, max_bytes)])

    def check(self) -> None:
        """Connect to the database; create nothing."""
        try:
            self._database.connect(SECONDS, connect_timeout=SECONDS).close()
        except psycopg.Error as error:
            raise self._unusable(error) from None

    @contextmanager
    def _exclusively(self) -> Iterator[TimedConnection | None]:
        """Yield a connection in a transaction, or None if another process is deleting replies."""
        with self._connected() as connection, connection.transaction():
            row = connection.execute(TRY_LOCK, [LOCKS, REPEATS_LOCK]).fetchone()
            yield connection if row and row[0] else None

    @contextmanager
    def _connected(self) -> Iterator[TimedConnection]:
        """Yield a connection; raise Unavailable if the database fails or has just failed."""
        if time.monotonic() < self._retry_at:
            raise idempotency_unavailable(f"{self._database.location} is not available")
        connection = None
        try:
            connection = self._take()
            yield connection
        except psycopg.Error as error:
            if isinstance(error, psycopg.OperationalError):
                if connection is not None:
                    connection.close()
                self._retry_at = time.monotonic() + PAUSE_SECONDS
            raise self._unusable(error) from None
        finally:
            if connection is not None:
                if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                    self._idle.append(connection)
                else:
                    connection.close()

    def _take(self) -> TimedConnection:
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:
                break  # another thread took the last idle connection
            if not _was_closed(connection):
                return connection
            connection.close()
        connection = self._database.connect_writer(SECONDS, connect_timeout=SECONDS)
        row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
        self._ahead = row[0] - time.time() if row else 0.0
        return connection

    def _unusable(self, error: psycopg.Error) -> Exception:
        return idempotency_unavailable(f"{self._database.location}: {describe(error)}")


def _was_closed(connection: TimedConnection) -> bool:
    """Return whether the database has closed an idle connection, for example because the database was restarted."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))
