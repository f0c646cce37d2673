"""The PostgreSQL store: privileges, unusual contents, erased rows and concurrent transactions."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import psycopg
import pytest

from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.errors import Unavailable
from rowcast.history import chain
from rowcast.history.chain import Draft, Entry, decode_erasure, encode_head
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import ErasureRequest
from rowcast.history.signing import is_signed_erasure
from rowcast.schema.prediction import Prediction
from support.entries import MIXED, draft, drafts, identifier, sealed
from support.postgresql import Postgres

KEY = b"k" * 32


def erase(store: PostgresStore, selection: Selection, number: int = 0) -> int:
    return store.erase(ErasureRequest(selection, "user", "erase"), number=number, at=0, limit=1000).rows


def test_reading_or_checking_a_store_creates_nothing(postgres: Postgres, database: str) -> None:
    store = PostgresStore(database)

    store.check()
    assert (store.latest(1), store.count(), store.erasures(), store.position("w")) == ([], 0, [], None)
    assert list(store.changed_copies("w")) == []
    assert len(store._readers._idle) == 1  # servers poll a store that its indexer has not created yet
    store.close()

    assert postgres.execute("SELECT to_regnamespace('rowcast')") == [(None,)]


def test_checking_a_store_fails_if_the_user_cannot_write_to_it(postgres: Postgres, database: str) -> None:
    reader = database.replace("//rowcast:", "//reader:")
    postgres.execute("CREATE ROLE reader LOGIN PASSWORD 'not-to-be-shown'")
    try:
        with pytest.raises(Unavailable):  # the user cannot create the schema
            PostgresStore(reader).check()
        with PostgresStore(database) as store:
            store.record("w", sealed("w", drafts(0, 1)))
            store.check()
        postgres.execute("GRANT USAGE ON SCHEMA rowcast TO reader")
        postgres.execute("GRANT SELECT ON ALL TABLES IN SCHEMA rowcast TO reader")

        assert PostgresStore(reader).count() == 1
        with PostgresStore(reader) as store, pytest.raises(Unavailable):
            store.check()
        with PostgresStore(reader) as store, pytest.raises(Unavailable):
            store.record("v", sealed("v", drafts(1, 2)))
    finally:
        postgres.reset()
        postgres.execute("DROP ROLE reader")


def test_a_missing_table_is_not_an_empty_history(postgres: Postgres, database: str) -> None:
    with PostgresStore(database) as store:
        postgres.execute("DROP TABLE rowcast.entries")

        with pytest.raises(Unavailable):
            store.count()


def test_checking_a_read_only_database_fails(database: str) -> None:
    store = PostgresStore(f"{database}?options=-c%20default_transaction_read_only%3Don")

    with pytest.raises(Unavailable) as refused:
        store.check()
    assert "read-only" in refused.value.message


def test_connections_for_reading_cannot_write(database: str) -> None:
    with PostgresStore(database) as store, pytest.raises(Unavailable):
        store._readers.fetch("DELETE FROM rowcast.entries RETURNING 1")


def test_commits_are_synchronous_even_if_that_is_not_the_default(database: str) -> None:
    with PostgresStore(f"{database}?options=-c%20synchronous_commit%3Doff") as store:
        assert store._writer().execute("SHOW synchronous_commit").fetchone() == ("on",)


@pytest.mark.parametrize("label", ["a\0b", "\U0001f600", "x" * 199, "%s {where}'"])
def test_a_label_can_contain_any_text(database: str, label: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", [draft(0, label=label), draft(1, label=label + "y")]))

        assert [stored.sealed.seq for stored in store.latest(9, Selection(label=label))] == [0]
        assert list(store.changed_copies("w")) == []


def test_labels_that_are_too_long_for_an_index_can_be_recorded_and_found(database: str) -> None:
    long = "".join(chr(0x4E00 + number) for number in range(20_000))
    labels = [long, long + "x", long[:200], long[:199]]
    with PostgresStore(database) as store:
        store.record("w", sealed("w", [draft(number, label=label) for number, label in enumerate(labels)]))

        for number, label in enumerate(labels):
            assert [stored.sealed.seq for stored in store.latest(9, Selection(label=label))] == [number]


def test_the_predicted_value_of_a_regression_model_is_not_stored_as_a_label(postgres: Postgres, database: str) -> None:
    reply = msgspec.json.encode(Prediction(identifier(0), "prices", 1, 12.5))
    head = encode_head(Entry(0, "rb1-00", "native", "r", reply))
    with PostgresStore(database) as store:
        store.record("w", sealed("w", [Draft(head, bytes(16), b"{}")]))

    assert postgres.execute("SELECT label FROM rowcast.entries") == [("",)]


@pytest.mark.parametrize("prediction_id", ["", "\0", "1" * 36, identifier(0).upper(), f"{{{identifier(0)}}}"])
def test_only_the_exact_id_finds_an_entry(database: str, prediction_id: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", drafts(0, 1)))

        assert store.get(prediction_id) is None
        assert store.latest(9, Selection(ids=(prediction_id,))) == []
        assert len(store.latest(9, Selection(ids=(prediction_id, identifier(0))))) == 1


def test_changed_copies_are_reported_even_after_a_damaged_entry(postgres: Postgres, database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", drafts(0, 4)))
        postgres.execute(r"UPDATE rowcast.entries SET head = '\xc1' WHERE seq = 1")
        postgres.execute("UPDATE rowcast.entries SET label = 'x', entity = 'y' WHERE seq IN (0, 3)")

        assert list(store.changed_copies("w")) == [(0, "label"), (0, "entity"), (3, "label"), (3, "entity")]


def test_long_chains_are_read_in_chunks(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowcast.adapters.postgresql.store.CHUNK", 3)
    entries = sealed("w", drafts(0, 10))
    with PostgresStore(database) as store:
        store.record("w", entries)
        reading = store.chain("w")
        first = next(reading)
        erase(store, Selection(ids=(identifier(1), identifier(8))))

        assert [first, *reading] == [*entries[:8], entries[8]._replace(row=None, salt=None), entries[9]]
        assert list(store.chain("w", after=8)) == entries[9:]


def test_erasures_are_signed_with_the_key(database: str) -> None:
    with PostgresStore(database, lambda: KEY) as store:
        store.record("w", sealed("w", drafts(0, 2)))
        erase(store, Selection(ids=(identifier(0),)))
        erase(store, Selection())
        first, second = store.erasures()

    for entry, previous in ((first, None), (second, first.link)):
        assert is_signed_erasure(decode_erasure(entry.head), seq=entry.seq, previous=previous, key=KEY)


def test_erasures_by_several_processes_form_one_chain(database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", drafts(0, 80)))

    def erase_some(part: int) -> int:
        with PostgresStore(database) as own:
            return sum(erase(own, Selection(ids=(identifier(n), identifier(n + 1)))) for n in range(part * 19, 60))

    with ThreadPoolExecutor(4) as threads:
        erased = sum(threads.map(erase_some, range(4)))

    recorded = [decode_erasure(entry.head) for entry in store.erasures()]
    assert list(chain.verify(chain.ERASURES, store.erasures())) == []
    assert erased == sum(erasure.rows for erasure in recorded) == 61
    assert [entry.seq for entry in store.chain("w") if entry.row is None] == list(range(61))


def test_a_request_is_complete_if_several_folders_complete_it_at_the_same_time(database: str) -> None:
    folders = [f"folder-{number}" for number in range(4)]
    with PostgresStore(database) as store:
        for folder in folders:
            store.register_folder(folder)
        numbers = [
            store.open_erasure(ErasureRequest(Selection(), "user", "erase"), "folder-0", frozenset()).number
            for _ in range(10)
        ]

        def complete(folder: str) -> None:
            with PostgresStore(database) as own:
                for number in numbers:
                    own.complete(number, folder)

        with ThreadPoolExecutor(4) as threads:
            list(threads.map(complete, folders))

        assert store.open_erasures() == []


def test_scrubbing_waits_for_old_snapshots(postgres: Postgres, database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", MIXED))
        with psycopg.connect(database) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM rowcast.entries")
            erase(store, Selection())

            assert store.scrub() is False
        assert store.scrub() is True

    statistics = "SELECT last_vacuum IS NOT NULL FROM pg_stat_user_tables WHERE relname = 'entries_2023_11'"
    assert postgres.execute(statistics) == [(True,)]
    assert postgres.execute("SELECT * FROM rowcast.unscrubbed") == []


def test_scrubbing_does_not_wait_for_a_locked_table(database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", MIXED))
        erase(store, Selection())
        with psycopg.connect(database) as holder:
            holder.execute("LOCK TABLE rowcast.entries_2023_11 IN SHARE UPDATE EXCLUSIVE MODE")
            assert store.scrub() is False
        assert store.scrub() is True


def test_a_snapshot_that_is_newer_than_the_erasure_does_not_prevent_scrubbing(database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", MIXED))
        erase(store, Selection())
        with psycopg.connect(database) as reader:
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM rowcast.entries")
            assert store.scrub() is True
