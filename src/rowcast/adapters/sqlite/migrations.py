"""The schema of the history database: numbered SQL files, applied in order by a small runner.

A migration only adds to the schema. Replaced tables and columns are dropped one release later, so that two releases can
use the same file during a rolling upgrade.
"""

from __future__ import annotations

import sqlite3
import time
from importlib import resources

from rowcast.errors import HistoryError

MIGRATIONS = ("0001_history.sql", "0002_erasures.sql", "0003_folders.sql")


def read_statement(name: str) -> str:
    """Return the contents of a file in `sql/`."""
    return (resources.files("rowcast.adapters.sqlite") / "sql" / name).read_text()


def schema_version(connection: sqlite3.Connection, location: str) -> int:
    """Return the schema version, or 0 for an empty database; raise HistoryError if this release is too old for it."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        connection.close()
        raise HistoryError(
            f"{location} was written by a newer version of Rowcast (schema version {version}); "
            f"this release supports versions up to {len(MIGRATIONS)}"
        )
    return version


def migrate(connection: sqlite3.Connection, location: str) -> None:
    """Apply all pending migrations in one transaction; raise HistoryError if the schema is newer than this release."""
    if schema_version(connection, location) == len(MIGRATIONS):
        return
    connection.execute("BEGIN IMMEDIATE")
    applied = schema_version(connection, location)  # another process may have migrated the file in the meantime
    for name in MIGRATIONS[applied:]:
        for part in read_statement(name).split(";\n"):
            connection.execute(part)
    now = time.time_ns() // 1000
    connection.executemany(
        "INSERT INTO schema_versions (version, name, applied_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        [(number, name, now if number > applied else None) for number, name in enumerate(MIGRATIONS, 1)],
    )
    connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
    connection.execute("COMMIT")
