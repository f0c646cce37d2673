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
        """Create the partitions for entries with these ids, and the partition of the following month."""
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
