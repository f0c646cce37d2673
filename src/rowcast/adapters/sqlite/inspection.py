"""Checks the schema of a SQLite history without changing it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from rowcast.adapters.sqlite.migrations import MIGRATIONS, migrate, schema_version
from rowcast.errors import Unavailable
from rowcast.history.inspection import SchemaState

SELECT_NAMES = (
    "SELECT type || ' ' || name FROM sqlite_master WHERE type IN ('table', 'index') AND name NOT LIKE 'sqlite_%'"
)


def inspect_schema(path: Path) -> SchemaState:
    """Return the state of the schema; raise Unavailable if the file cannot be read."""
    if not path.exists():
        return SchemaState(0, len(MIGRATIONS), [], [])
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection,
            closing(sqlite3.connect(":memory:", isolation_level=None)) as example,
        ):
            version = schema_version(connection, str(path))
            migrate(example, ":memory:")
            names, expected = ({name for (name,) in each.execute(SELECT_NAMES)} for each in (connection, example))
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise Unavailable(f"cannot read the history {path}: {error}") from None
    problems = [f"the file is damaged: {verdict}"] if verdict != "ok" else []
    if version == len(MIGRATIONS):
        problems += [f"the {name} is missing" for name in sorted(expected - names)]
    return SchemaState(version, len(MIGRATIONS), [], problems)
