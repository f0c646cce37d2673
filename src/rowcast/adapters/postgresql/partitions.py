"""The monthly partitions of the table `entries`. Each partition is created before its first entry is stored."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, NamedTuple

import psycopg

from rowcast.adapters.postgresql.migrations import LOCKS, PARTITION_LOCK
from rowcast.history.entry_filter import milliseconds_of

# Creating a table with its index first and attaching it afterward blocks neither readers nor writers.
CREATE = """CREATE TABLE rowcast.{name} (LIKE rowcast.entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS);
CREATE UNIQUE INDEX {name}_writer ON rowcast.{name} (writer, seq);
ALTER TABLE rowcast.entries ATTACH PARTITION rowcast.{name} FOR VALUES FROM ('{first}') TO ('{end}')"""
COUNT_ROWS = 'SELECT count(*) FROM rowcast.{name} WHERE "row" IS NOT NULL'
COPY_WITHOUT_ROWS = """CREATE TABLE rowcast.{name}_new
    (LIKE rowcast.entries INCLUDING DEFAULTS INCLUDING CONSTRAINTS INCLUDING INDEXES);
INSERT INTO rowcast.{name}_new
    SELECT writer, seq, id, model, version, label, tenant, entity, head, NULL, NULL, row_hash, link
    FROM rowcast.{name} ORDER BY id;
CREATE UNIQUE INDEX {name}_new_writer ON rowcast.{name}_new (writer, seq);
ALTER TABLE rowcast.{name}_new ADD CONSTRAINT {name}_range CHECK (id >= '{first}' AND id < '{end}')"""
# The constraint proves to ATTACH that all ids are in the range, so ATTACH does not read the table.
REPLACE = """DELETE FROM rowcast.unscrubbed WHERE to_regclass(partition) = 'rowcast.{name}'::regclass;
ALTER TABLE rowcast.entries DETACH PARTITION rowcast.{name};
DROP TABLE rowcast.{name};
ALTER TABLE rowcast.{name}_new RENAME TO {name};
ALTER INDEX rowcast.{name}_new_writer RENAME TO {name}_writer;
ALTER TABLE rowcast.entries ATTACH PARTITION rowcast.{name} FOR VALUES FROM ('{first}') TO ('{end}');
ALTER TABLE rowcast.{name} DROP CONSTRAINT {name}_range;
INSERT INTO rowcast.emptied_partitions (partition) VALUES ('{name}')"""
LOCK_MILLISECONDS = 200
"""The maximum time to wait for readers when replacing a partition. The wait can delay other readers."""
SELECT_NAMES = (
    "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
    "WHERE i.inhparent = 'rowcast.entries'::regclass"
)


class Month(NamedTuple):
    """A calendar month in UTC."""

    year: int
    month: int

    @property
    def next(self) -> Month:
        """The following month."""
        return Month(self.year + self.month // 12, self.month % 12 + 1)

    @property
    def partition(self) -> str:
        """The name of the table that contains this month's entries."""
        return f"entries_{self.year:04d}_{self.month:02d}"

    @property
    def first_id(self) -> str:
        """The lowest UUID whose timestamp is in this month."""
        start = datetime(self.year, self.month, 1, tzinfo=UTC)
        stamp = f"{int(start.timestamp()) * 1000:012x}"
        return f"{stamp[:8]}-{stamp[8:]}-0000-0000-000000000000"


def month_of(prediction_id: str) -> Month:
    """Return the month of an id's timestamp."""
    moment = datetime.fromtimestamp(milliseconds_of(prediction_id) // 1000, UTC)
    return Month(moment.year, moment.month)


class Partitions:
    """Creates missing partitions. Caches the names of existing partitions, because partitions are never removed."""

    def __init__(self) -> None:
        self._existing: set[str] = set()

    def create_missing(self, connection: psycopg.Connection[Any], ids: Collection[str]) -> None:
        """Create the partitions for entries with these ids, and the partition of the month after the latest id."""
        first, last = month_of(min(ids)), month_of(max(ids))
        months = {first, last, last.next}
        if last not in (first, first.next):
            months |= {month_of(each) for each in ids}
        if any(month.partition not in self._existing for month in months):
            self._create(connection, months)

    def _create(self, connection: psycopg.Connection[Any], months: set[Month]) -> None:
        with connection.transaction():
            # Another process may hold the store-wide lock for a long time, so a separate lock is used.
            connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCKS, PARTITION_LOCK])
            existing = {name for (name,) in connection.execute(SELECT_NAMES)}
            for month in sorted(months):
                if month.partition not in existing:
                    statements = CREATE.format(name=month.partition, first=month.first_id, end=month.next.first_id)
                    connection.execute(statements)
        self._existing = existing | {month.partition for month in months}


def due_month(connection: psycopg.Connection[Any], before: str) -> Month | None:
    """Return the oldest month whose ids are all below `before` and whose partition has not been emptied, or None."""
    emptied = "SELECT partition FROM rowcast.emptied_partitions"
    rows = connection.execute(f"{SELECT_NAMES} AND c.relname NOT IN ({emptied}) ORDER BY c.relname").fetchall()
    for (name,) in rows:
        _, year, month = name.split("_")
        if Month(int(year), int(month)).next.first_id <= before:
            return Month(int(year), int(month))
    return None


def empty_partition(connection: psycopg.Connection[Any], month: Month) -> int:
    """Replace a month's partition with a copy whose entries have no rows; return the number of erased rows.

    Call this in a transaction. Readers are locked out only while the tables are exchanged. Writers to this month wait
    until the transaction ends.
    """
    names = {"name": month.partition, "first": month.first_id, "end": month.next.first_id}
    connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
    connection.execute(f"LOCK TABLE rowcast.{month.partition} IN SHARE MODE")
    row = connection.execute(COUNT_ROWS.format(**names)).fetchone()
    connection.execute(COPY_WITHOUT_ROWS.format(**names))
    connection.execute("LOCK TABLE rowcast.erasures IN EXCLUSIVE MODE")
    connection.execute(REPLACE.format(**names))
    return int(row[0]) if row else 0
