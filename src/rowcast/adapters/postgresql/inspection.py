"""Checks the schema, partitions, indexes and positions of a PostgreSQL history without changing them."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from rowcast.adapters.postgresql.database import Database, TimedConnection
from rowcast.adapters.postgresql.migrations import MIGRATIONS, schema_version
from rowcast.adapters.postgresql.partitions import SELECT_NAMES, Month
from rowcast.history.inspection import SchemaState

INDEXES = ("entries_id", "entries_model", "entries_label", "entries_tenant", "entries_entity")
SELECT_USED = "SELECT 1 FROM rowcast.{} LIMIT 1"
PROBLEMS = {
    "SELECT c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
    "WHERE c.relnamespace = 'rowcast'::regnamespace AND NOT i.indisvalid": "the index {} is not valid; run REINDEX",
    f"SELECT name FROM unnest(ARRAY{list(INDEXES)}) AS name "  # noqa: S608 - the names are constants
    "WHERE to_regclass('rowcast.' || name) IS NULL": "the index {} is missing",
    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'rowcast.entries'::regclass AND NOT EXISTS (SELECT FROM pg_index AS x "
    "WHERE x.indrelid = c.oid AND x.indisunique AND x.indnatts = 2)": (
        "the partition {} has no unique index on (writer, seq)"
    ),
    "SELECT partdefid::regclass::text FROM pg_partitioned_table "
    "WHERE partrelid = 'rowcast.entries'::regclass AND partdefid <> 0": "the default partition {} must not exist",
    "SELECT w.writer FROM rowcast.writers AS w WHERE w.last_seq >= 0 AND NOT EXISTS ("
    "SELECT FROM rowcast.entries AS e WHERE e.writer = w.number AND e.seq = w.last_seq AND e.link = w.last_link"
    ") ORDER BY 1 LIMIT 5": "the recorded position of writer {} does not match its last entry",
}


def inspect_schema(url: str) -> SchemaState:
    """Return the state of the schema; raise Unavailable if the database cannot be read."""
    database = Database(url)
    with database.translated("read the history"), closing(database.connect_reader()) as connection:
        version = schema_version(connection, database.location)
        if version < len(MIGRATIONS):
            return SchemaState(version, len(MIGRATIONS), [], [])
        partitions = sorted(name for (name,) in connection.execute(SELECT_NAMES))
        return SchemaState(version, len(MIGRATIONS), partitions, _problems(connection, partitions))


def _problems(connection: TimedConnection, partitions: list[str]) -> list[str]:
    now = datetime.now(UTC)
    month = Month(now.year, now.month)
    found = [text.format(name) for query, text in PROBLEMS.items() for (name,) in connection.execute(query)]
    is_used = month.partition in partitions and connection.execute(SELECT_USED.format(month.partition)).fetchone()
    if is_used and month.next.partition not in partitions:
        found.append(
            f"the partition {month.next.partition} was not created in advance; the next stored entry creates it"
        )
    return found
