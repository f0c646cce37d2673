"""Connections to one PostgreSQL database. Messages never contain the password or the contents of a row."""

from __future__ import annotations

import re
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from rowcast.adapters.postgresql.migrations import MIGRATIONS, migrate, schema_version
from rowcast.errors import SettingsError, Unavailable

READ_SECONDS, WRITE_SECONDS = 5.0, 60.0
"""How long a connection waits for each response from the database. The database can stop responding without closing its
connections, for example if its machine is suspended."""
LOCK_SECONDS = 30
IDLE_TRANSACTION_SECONDS = 10
"""How long the database waits for the next statement of a transaction. If a connection is lost without being closed,
its transaction would otherwise keep its locks, and the indexer could store nothing."""
POLL_SECONDS = 0.1
"""The interval at which a waiting connection checks for signals."""
MAX_IDLE = 4
"""The maximum number of idle read-only connections per process."""
DEFAULTS = {
    "application_name": "rowcast",
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""Default connection parameters. The URL can override them."""
KEEPALIVES = "; ".join(f"SET tcp_{name} = {value}" for name, value in DEFAULTS.items() if name.startswith("keepalives"))
"""Sets the same values on the database's side of a connection, where the default idle time is two hours."""
_match_url = re.compile(r"postgres(?:ql)?://(?:[^@/?#]*@)?([^@/?#]*)(/[^@?#]*)?(?:\?[^#]*)?").fullmatch
_match_hosts = re.compile(r"(?:(?:\[[0-9A-Fa-f:.]+\]|[^\[\]:,]*)(?::[0-9]*)?(?:,|$))*").fullmatch


class TimedConnection(psycopg.Connection[Any]):  # type: ignore[misc]
    """A connection that closes itself if the database does not respond within `seconds`. None disables the limit."""

    seconds: float | None = WRITE_SECONDS

    def wait(self, generator: Any, interval: float = POLL_SECONDS, timeout: float | None = None) -> Any:
        """Wait for one response from the database."""
        try:
            return super().wait(generator, interval, self.seconds if timeout is None else timeout)
        except psycopg.OperationalError as error:
            if error.sqlstate is not None or self.pgconn.status != psycopg.pq.ConnStatus.OK:
                raise  # the query or the connection failed
            # The driver has only stopped waiting. A late response must not be mistaken for the response to the next
            # query.
            self.pgconn.finish()
            raise psycopg.OperationalError(f"the database did not respond within {self.seconds:g} s") from None


class Database:
    """Connects to the database at a `postgresql://` URL."""

    def __init__(self, url: str) -> None:
        match = _match_url(url)
        try:
            if match is None or not _match_hosts(match[1]):
                raise psycopg.ProgrammingError
            parameters = conninfo_to_dict(url)
        except psycopg.Error:  # the message could contain the password
            raise SettingsError(
                "setting 'store' is not a valid PostgreSQL URL; expected postgresql://USER:PASSWORD@HOST/DATABASE, "
                "with special characters in the password percent-encoded"
            ) from None
        self._parameters = {**DEFAULTS, **parameters}
        self.location = f"postgresql://{match[1]}{match[2] or ''}"
        """The URL without the user, the password and the parameters."""

    def connect(self, seconds: float = WRITE_SECONDS, **parameters: Any) -> TimedConnection:
        """Connect with this response timeout and these parameters; raise psycopg.Error on failure."""
        options = {**self._parameters, **parameters}
        connection: TimedConnection = TimedConnection.connect(**options, autocommit=True, prepare_threshold=None)
        connection.seconds = seconds
        return connection

    def connect_reader(self) -> TimedConnection:
        """Return a read-only connection; raise HistoryError if a newer release created the store."""
        connection = self.connect(READ_SECONDS)
        try:
            connection.execute("SET default_transaction_read_only = on")
            schema_version(connection, self.location)
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_writer(self, seconds: float = WRITE_SECONDS, **parameters: Any) -> TimedConnection:
        """Return a connection for writing; create or migrate the schema if necessary."""
        connection = self.connect(min(seconds, READ_SECONDS), **parameters)
        try:
            connection.execute(
                f"SET lock_timeout = '{LOCK_SECONDS}s'; "
                f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s'; {KEEPALIVES}"
            )
            # Entries must be on disk before their journal is deleted, regardless of the database's default.
            connection.execute(
                "SELECT set_config('synchronous_commit', 'on', false) "
                "WHERE current_setting('synchronous_commit') IN ('off', 'local')"
            )
            if schema_version(connection, self.location) < len(MIGRATIONS):
                connection.seconds = seconds
                migrate(connection, self.location)
            connection.seconds = seconds
        except BaseException:
            connection.close()
            raise
        return connection

    def unavailable(self, action: str, error: psycopg.Error) -> Unavailable:
        """Return the error for a failed action."""
        return Unavailable(f"cannot {action} {self.location}: {describe(error)}")

    @contextmanager
    def translated(self, action: str) -> Iterator[None]:
        """Convert the driver's errors to Unavailable."""
        try:
            yield
        except psycopg.Error as error:
            raise self.unavailable(action, error) from None


def describe(error: psycopg.Error) -> str:
    """Return the error message without the details, which can contain parts of a row."""
    text = error.diag.message_primary or str(error)
    # After a failed connection attempt, there is one line per address. If the server closed the connection, there is a
    # hint.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines) or type(error).__name__


class Readers:
    """Runs queries on a few read-only connections, which are opened on demand and reused."""

    def __init__(self, database: Database, action: str = "read the history") -> None:
        self._database = database
        self._action = action
        self._idle: deque[TimedConnection] = deque()
        # Many callers, such as commands, never close their readers.
        self._close_idle = weakref.finalize(self, close_all, self._idle)

    def fetch(self, query: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query; return no rows if the store does not exist yet."""
        with self._database.translated(self._action):
            connection = self._take_idle()
            if connection is not None:
                try:
                    return self._run(connection, query, values)
                except psycopg.OperationalError:  # for example, because the database was restarted
                    self.close()
            return self._run(self._database.connect_reader(), query, values)

    def _take_idle(self) -> TimedConnection | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _run(self, connection: TimedConnection, query: str, values: Any) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = []
        try:
            with self._empty_without_store(connection):
                rows = connection.execute(query, values).fetchall()
        except BaseException:
            connection.close()
            raise
        if len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            connection.close()
        return rows

    @contextmanager
    def _empty_without_store(self, connection: TimedConnection) -> Iterator[None]:
        """Suppress the error about a missing table if a migration has not created the table yet."""
        try:
            yield
        except psycopg.errors.UndefinedTable:
            if schema_version(connection, self._database.location) == len(MIGRATIONS):
                raise

    def close(self) -> None:
        """Close all idle connections."""
        close_all(self._idle)


def close_all(connections: deque[TimedConnection]) -> None:
    """Close idle connections."""
    with suppress(IndexError):
        while True:
            connections.pop().close()
