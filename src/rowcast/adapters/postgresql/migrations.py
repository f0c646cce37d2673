"""The schema of the history database: numbered SQL files, applied in order by a small runner.

A migration only adds to the schema. Replaced tables and columns are dropped one release later, so that two releases can
use the same database during a rolling upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from typing import Any

import psycopg

from rowcast.errors import HistoryError, Unavailable

MIGRATIONS = ("0001_history.sql", "0002_shared_state.sql", "0003_jobs.sql")
LOCKS = 0x726F7763
"""Identifies Rowcast's advisory locks in a database that is shared with other programs."""
STORE_LOCK, PARTITION_LOCK, REPEATS_LOCK, JOBS_LOCK = 1, 2, 3, 4
OLDEST_SERVER = 130_000


def read_statement(name: str) -> str:
    """Return the contents of a file in `sql/`."""
    return (resources.files("rowcast.adapters.postgresql") / "sql" / name).read_text()


def schema_version(connection: psycopg.Connection[Any], location: str) -> int:
    """Return the schema version, or 0 for an empty database; raise HistoryError if this release is too old for it."""
    row = connection.execute("SELECT to_regclass('rowcast.schema_versions') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return 0
    row = connection.execute("SELECT coalesce(max(version), 0) FROM rowcast.schema_versions").fetchone()
    version = int(row[0]) if row else 0
    if version > len(MIGRATIONS):
        raise HistoryError(
            f"{location} was written by a newer version of Rowcast (schema version {version}); "
            f"this release supports versions up to {len(MIGRATIONS)}"
        )
    return version


def migrate(connection: psycopg.Connection[Any], location: str) -> None:
    """Apply all pending migrations under the store-wide lock.

    Each migration is one transaction. The lock is held by the session, because some statements, such as `CREATE INDEX
    CONCURRENTLY`, cannot run in a transaction.
    """
    if schema_version(connection, location) == len(MIGRATIONS):
        return
    _refuse_unsuitable(connection, location)
    with session_lock(connection, STORE_LOCK):
        applied = schema_version(connection, location)  # another process may have migrated the database
        for number, name in enumerate(MIGRATIONS[applied:], applied + 1):
            with connection.transaction():
                connection.execute(read_statement(name))
                connection.execute(
                    "INSERT INTO rowcast.schema_versions (version, name) VALUES (%s, %s)", [number, name]
                )


def _refuse_unsuitable(connection: psycopg.Connection[Any], location: str) -> None:
    version = connection.info.server_version
    if version < OLDEST_SERVER:
        raise Unavailable(f"{location} is PostgreSQL {version // 10_000}; Rowcast requires version 13 or later")
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise Unavailable(f"{location} has the encoding {encoding}; create a database with the encoding UTF8")


@contextmanager
def session_lock(connection: psycopg.Connection[Any], lock: int) -> Iterator[None]:
    """Hold an advisory lock; wait for it if necessary."""
    connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCKS, lock])
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", [LOCKS, lock])
