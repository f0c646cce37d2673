"""Retention replaces an expired partition with a new table whose entries have no row contents."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest

from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.postgresql.inspection import inspect_schema
from rowcast.adapters.postgresql.partitions import Month
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.history.chain import decode_erasure
from rowcast.history.entry_filter import Selection
from rowcast.history.erasure import Maintenance
from rowcast.history.ports import ErasureRequest
from rowcast.history.service import History
from rowcast.history.verification import Verification
from rowcast.schema.identity import uuid7_randomness, uuid7s
from support.entries import draft_at, sealed, utc
from support.postgresql import Postgres

KEY = bytes(32)
ENTRIES = sealed("w", [draft_at(utc(2026, month, day), day) for month in (8, 9, 10) for day in range(1, 29)])
OCTOBER = Month(2026, 10).first_id
AUGUST, SEPTEMBER = "entries_2026_08", "entries_2026_09"


@pytest.fixture
def store(database: str) -> Iterator[PostgresStore]:
    with PostgresStore(database, lambda: KEY) as opened:
        opened.record("w", ENTRIES)
        yield opened


def table_id(postgres: Postgres, name: str) -> object:
    return postgres.execute(f"SELECT 'rowcast.{name}'::regclass::oid")[0][0]


def verify(store: PostgresStore) -> Verification:
    history = History(store, EmptyJournalReader())
    return history.verify(history.heads(), KEY)


def test_the_old_table_is_dropped_and_every_chain_stays_valid(store: PostgresStore, postgres: Postgres) -> None:
    before = {name: table_id(postgres, name) for name in (AUGUST, SEPTEMBER)}
    heads = History(store, EmptyJournalReader()).heads()

    erased = [store.erase_partition(OCTOBER, at=7) for _ in range(3)]

    assert erased == [28, 28, None]
    assert all(table_id(postgres, name) != number for name, number in before.items())
    assert postgres.execute(f"SELECT count(*) FROM pg_class WHERE oid = {before[AUGUST]}") == [(0,)]
    assert list(store.chain("w")) == [
        entry._replace(salt=None, row=None) if entry.seq < 56 else entry for entry in ENTRIES
    ]
    verification = History(store, EmptyJournalReader()).verify(heads, KEY)
    assert (verification.entries, verification.erased, verification.heads) == (84, 56, 1)
    assert (verification.unrecorded, verification.unsigned_erasures, verification.broken) == (0, 0, [])
    erasures = [decode_erasure(entry.head) for entry in store.erasures()]
    assert [(each.at, each.reason, each.rows, each.request) for each in erasures] == [(7, "retention", 28, 0)] * 2


def test_a_partition_that_is_not_entirely_due_is_kept(store: PostgresStore) -> None:
    (middle,) = uuid7s(int(utc(2026, 9, 30, 23, 59).timestamp() * 1000), bytes(uuid7_randomness(1)))

    assert [store.erase_partition(middle, at=7) for _ in range(2)] == [28, None]


def test_the_new_partition_has_all_indexes_and_accepts_late_entries(
    store: PostgresStore, database: str, postgres: Postgres
) -> None:
    store.erase_partition(OCTOBER, at=7)
    late = sealed("late", [draft_at(utc(2026, 8, 30), 77)])
    store.record("late", late)

    counts = [
        postgres.execute(f"SELECT count(*) FROM pg_index WHERE indrelid = 'rowcast.{name}'::regclass AND indisvalid")
        for name in (AUGUST, SEPTEMBER)
    ]
    assert counts[0] == counts[1]
    assert list(store.chain("late")) == late
    assert inspect_schema(database).problems == []
    assert [stored.writer for stored in store.latest(1, Selection(end=Month(2026, 9).first_id))] == ["late"]


def test_a_partition_that_is_being_read_is_kept_until_the_next_pass(store: PostgresStore, database: str) -> None:
    with psycopg.connect(database) as reader:
        reader.execute("SELECT count(*) FROM rowcast.entries")
        assert store.erase_partition(OCTOBER, at=7) is None
        assert store.count() == 84
    assert verify(store).erased == 0

    assert store.erase_partition(OCTOBER, at=7) == 28


def test_a_partition_whose_rows_were_erased_is_replaced_without_an_erasure_record(
    store: PostgresStore, postgres: Postgres
) -> None:
    store.erase(ErasureRequest(Selection(end=OCTOBER), "user", "erase"), number=1, at=1, limit=1000)
    before = table_id(postgres, AUGUST)

    assert store.erase_partition(OCTOBER, at=7) == 0

    assert table_id(postgres, AUGUST) != before
    assert len(store.erasures()) == 1
    assert (verify(store).unrecorded, store.scrub()) == (0, True)


def test_retention_drops_whole_months_and_erases_the_other_rows_one_by_one(
    store: PostgresStore, postgres: Postgres, tmp_path: Path
) -> None:
    before = {name: table_id(postgres, name) for name in (AUGUST, SEPTEMBER)}
    now = [microseconds(utc(2026, 10, 16, 12))]
    maintenance = Maintenance(store, FolderJournalReader(tmp_path), lambda: now[0], 30)
    for _ in range(3):
        maintenance.run_once()

    erased = [entry.seq for entry in store.chain("w") if entry.row is None]
    assert erased == list(range(28 + 16))
    assert table_id(postgres, AUGUST) != before[AUGUST]
    assert table_id(postgres, SEPTEMBER) == before[SEPTEMBER]
    assert (verify(store).unrecorded, verify(store).broken) == (0, [])


def microseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)
