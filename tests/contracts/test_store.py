"""What every store keeps: `StoreReader` and `StoreWriter`."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from rowcast.adapters.memory import MemoryStore
from rowcast.adapters.sqlite import SqliteStore
from rowcast.domain import chain
from rowcast.domain.selection import Selection
from rowcast.errors import HistoryError, Unavailable
from rowcast.ports import Position, Stored
from support.entries import draft, drafts, identifier, sealed

Store = MemoryStore | SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "history.db")


def test_an_empty_store_answers_with_nothing(store: Store) -> None:
    assert store.get(identifier(0)) is None
    assert store.latest(10) == []
    assert store.writers() == []
    assert list(store.chain("w")) == []
    assert store.position("w") is None
    assert store.count() == 0


def test_an_entry_comes_back_as_it_was_kept(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))

    store.record("w", entries)

    assert store.get(identifier(1)) == Stored("w", entries[1])
    assert list(store.chain("w")) == entries
    assert list(store.chain("w", after=0)) == entries[1:]
    assert store.position("w") == Position(2, entries[2].link)
    assert store.count() == 3


def test_what_was_kept_verifies(store: Store) -> None:
    entries = sealed("w", drafts(0, 50))
    store.record("w", entries[:20])
    store.record("w", entries[20:])

    assert list(chain.verify("w", store.chain("w"))) == []


def test_recording_again_changes_nothing(store: Store) -> None:
    entries = sealed("w", drafts(0, 4))
    store.record("w", entries[:3])

    store.record("w", entries)
    store.record("w", entries[1:2])

    assert list(store.chain("w")) == entries
    assert store.count() == 4
    assert store.position("w") == Position(3, entries[3].link)


def test_what_is_kept_cannot_be_replaced(store: Store) -> None:
    entries = sealed("w", drafts(0, 3))
    store.record("w", entries)

    store.record("w", [entries[1]._replace(row=b"forged", link=b"forged" * 5), entries[2]._replace(row=None)])

    assert list(store.chain("w")) == entries


def test_writers_do_not_mix(store: Store) -> None:
    ours, theirs = sealed("b", drafts(0, 2)), sealed("a", drafts(10, 13))
    store.record("b", ours)
    store.record("a", theirs)

    assert store.writers() == ["a", "b"]
    assert list(store.chain("a")) == theirs
    assert store.get(identifier(0)) == Stored("b", ours[0])
    assert store.position("nobody") is None


def test_the_latest_come_newest_first_a_page_at_a_time(store: Store) -> None:
    store.record("a", sealed("a", drafts(0, 5)))
    store.record("b", sealed("b", drafts(5, 10)))

    first = store.latest(4)
    second = store.latest(4, before=identifier(6))
    third = store.latest(4, before=identifier(2))

    numbers = [[int.from_bytes(stored.sealed.salt or b"") for stored in page] for page in (first, second, third)]
    assert numbers == [[9, 8, 7, 6], [5, 4, 3, 2], [1, 0]]


def test_the_latest_can_be_those_of_one_model(store: Store) -> None:
    store.record("w", sealed("w", [draft(n, "loans" if n % 2 else "iris") for n in range(6)]))

    assert [stored.sealed.seq for stored in store.latest(10, Selection(model="loans"))] == [5, 3, 1]
    assert [stored.sealed.seq for stored in store.latest(1, Selection(model="loans"), before=identifier(5))] == [3]
    assert store.latest(10, Selection(model="nothing")) == []


def test_an_erased_row_stays_erased_and_the_chain_whole(store: Store) -> None:
    entries = [entry._replace(salt=None, row=None) for entry in sealed("w", drafts(0, 3))]

    store.record("w", entries)

    assert list(store.chain("w")) == entries
    assert list(chain.verify("w", store.chain("w"))) == []


def test_bytes_of_any_kind_are_kept(store: Store) -> None:
    entries = sealed("w", [draft(0, row=b""), draft(1, row=bytes(range(256))), draft(2, row=b"\0" * 9)])

    store.record("w", entries)

    assert [entry.row for entry in store.chain("w")] == [entry.row for entry in entries]


@pytest.fixture
def sqlite(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "history.db")


def test_reading_makes_no_file(sqlite: SqliteStore) -> None:
    sqlite.latest(1)

    assert not sqlite.path.exists()


def test_a_file_that_is_only_just_being_made_is_an_empty_history(sqlite: SqliteStore) -> None:
    connection = sqlite3.connect(sqlite.path)
    connection.execute("PRAGMA journal_mode = WAL")

    assert sqlite.count() == 0
    assert sqlite.latest(1) == []
    connection.close()


def test_another_store_on_the_file_reads_while_one_writes(sqlite: SqliteStore) -> None:
    entries = sealed("w", drafts(0, 400))
    reader = SqliteStore(sqlite.path)
    counts: list[int] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            counts.append(reader.count())

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(0, 400, 20):
        sqlite.record("w", entries[start : start + 20])
    done.set()
    thread.join()

    assert counts == sorted(counts)
    assert all(count % 20 == 0 for count in counts)
    assert reader.count() == 400


def test_a_transaction_that_fails_keeps_nothing(sqlite: SqliteStore) -> None:
    entries = sealed("w", drafts(0, 3))
    # Another writer with the same prediction ids: the index of ids refuses the whole transaction.
    sqlite.record("w", entries[:1])

    with pytest.raises(Unavailable, match="cannot be written"):
        sqlite.record("other", sealed("other", [draft(7), draft(0)]))

    assert sqlite.count() == 1
    sqlite.record("w", entries)
    assert list(sqlite.chain("w")) == entries


def test_a_file_that_is_no_database_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"not a database, by any means" * 100)

    with pytest.raises(Unavailable, match=r"history\.db"):
        SqliteStore(path).count()
    with pytest.raises(Unavailable, match=r"history\.db"):
        SqliteStore(path).record("w", sealed("w", drafts(0, 1)))


def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(Unavailable, match="cannot be opened"):
        SqliteStore(tmp_path / "file" / "history.db").record("w", sealed("w", drafts(0, 1)))


def test_a_newer_database_is_refused(sqlite: SqliteStore) -> None:
    sqlite.record("w", sealed("w", drafts(0, 1)))
    sqlite.close()
    with sqlite3.connect(sqlite.path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(HistoryError, match="newer Rowcast"):
        SqliteStore(sqlite.path).record("w", sealed("w", drafts(0, 1)))


def test_reading_a_newer_database_is_refused(sqlite: SqliteStore) -> None:
    sqlite.record("w", sealed("w", drafts(0, 1)))
    sqlite.close()
    with sqlite3.connect(sqlite.path) as connection:
        connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(HistoryError, match="newer Rowcast"):
        SqliteStore(sqlite.path).latest(1)
