"""Monthly partitions: created before they are needed, without waiting for the store-wide lock."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from rowcast.adapters.postgresql.partitions import Month, month_of
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.errors import Unavailable
from rowcast.schema.identity import uuid7_randomness, uuid7s
from support.entries import draft_at, sealed, utc
from support.postgresql import Postgres


def partitions(postgres: Postgres) -> dict[str, int]:
    """Return the number of entries in each partition."""
    names = postgres.execute(
        "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = 'rowcast.entries'::regclass"
    )
    return {str(name): postgres.execute(f"SELECT count(*) FROM rowcast.{name}")[0][0] for (name,) in sorted(names)}  # type: ignore[misc]


def test_each_entry_is_in_the_partition_of_its_month_and_the_next_month_is_ready(
    postgres: Postgres, database: str
) -> None:
    moments = [utc(2026, 11, 30, 23, 59, 59, 999_000), utc(2026, 12, 1), utc(2026, 12, 31, 23, 59, 59, 999_000)]
    entries = sealed("w", [draft_at(moment) for moment in moments])
    with PostgresStore(database) as store:
        store.record("w", entries)

        assert partitions(postgres) == {"entries_2026_11": 1, "entries_2026_12": 2, "entries_2027_01": 0}
        assert [stored.sealed for stored in store.latest(10)] == entries[::-1]
        assert list(store.chain("w")) == entries


def test_only_the_months_of_the_entries_get_partitions(postgres: Postgres, database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", [draft_at(utc(2020, 2, 29)), draft_at(utc(2026, 1, 1))]))
        store.record("v", sealed("v", [draft_at(utc(1970, 1, 1))]))

    assert partitions(postgres) == {
        "entries_1970_01": 1,
        "entries_1970_02": 0,
        "entries_2020_02": 1,
        "entries_2026_01": 1,
        "entries_2026_02": 0,
    }


def test_a_new_month_does_not_wait_for_the_store_wide_lock(postgres: Postgres, database: str) -> None:
    with PostgresStore(database) as store, PostgresStore(database) as other, other.maintenance() as acquired:
        assert acquired
        store.record("w", sealed("w", [draft_at(utc(2026, 5, 1))]))

    assert partitions(postgres) == {"entries_2026_05": 1, "entries_2026_06": 0}


def test_several_indexers_can_create_the_partition_of_a_month_concurrently(postgres: Postgres, database: str) -> None:
    def record(number: int) -> None:
        with PostgresStore(database) as store:
            writer = f"w{number}"
            drafts = [draft_at(utc(2026, month, 1), number) for month in range(1, 13)]
            for position, entry in enumerate(sealed(writer, drafts)):
                store.record(writer, [entry])
                assert store.position(writer) == (position, entry.link)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(record, range(4)))

    assert partitions(postgres) == {**{f"entries_2026_{month:02d}": 4 for month in range(1, 13)}, "entries_2027_01": 0}


def test_the_position_in_a_chain_is_unique_across_months(postgres: Postgres, database: str) -> None:
    entries = sealed("w", [draft_at(utc(2026, 1, day)) for day in range(1, 4)])
    others = sealed("w", [draft_at(utc(2026, 3, day)) for day in range(1, 5)])
    with PostgresStore(database) as store:
        store.record("w", entries)
        store.record("w", others)

        assert list(store.chain("w")) == [*entries, others[3]]
    assert partitions(postgres)["entries_2026_03"] == 1


def test_prediction_ids_are_unique_in_every_partition(database: str) -> None:
    january, march = draft_at(utc(2026, 1, 1)), draft_at(utc(2026, 3, 1))
    with PostgresStore(database) as store:
        store.record("a", sealed("a", [january, march]))
        for repeated in (january, march):
            with pytest.raises(Unavailable):
                store.record("b", sealed("b", [draft_at(utc(2026, 2, 1)), repeated]))

        assert (store.count(), store.writers()) == (2, ["a"])


@pytest.mark.parametrize(("month", "following"), [(Month(2026, 1), Month(2026, 2)), (Month(2026, 12), Month(2027, 1))])
def test_the_ids_of_a_month_end_where_the_next_month_begins(month: Month, following: Month) -> None:
    start = int(datetime(*following, 1, tzinfo=UTC).timestamp() * 1000)

    assert month.next == following
    assert month_of(uuid7s(start - 1, b"\xff" * uuid7_randomness(1))[0]) == month
    assert month_of(uuid7s(start, bytes(uuid7_randomness(1)))[0]) == following
    assert uuid7s(start - 1, b"\xff" * uuid7_randomness(1))[0] < following.first_id
    assert following.first_id < uuid7s(start, bytes(uuid7_randomness(1)))[0]
