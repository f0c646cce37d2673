"""Rows erased wherever they lie, and when their time is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowcast.adapters.files.journal import FileJournal, FolderSpool
from rowcast.adapters.memory import MemoryStore, NoSpool
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.history.chain import decode_erasure
from rowcast.history.entry_filter import Selection
from rowcast.history.erasure import RETENTION_EVERY_US, ROWS_AT_ONCE, Caretaker, Eraser
from rowcast.history.service import History
from support.entries import draft, drafts, sealed

STARTED_US = 1_700_000_000_000_000
DAY_US = 24 * 3600 * 1_000_000
Store = MemoryStore | SqliteStore


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    found = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "history.db")
    yield found
    if isinstance(found, SqliteStore):
        found.close()


def test_a_row_is_erased_in_the_store_in_an_open_journal_and_in_what_was_not_moved(
    store: Store, tmp_path: Path
) -> None:
    folder = tmp_path / "journal"
    journal, spool = FileJournal(folder, lambda: "w"), FolderSpool(folder)
    everything = [draft(number, entity="e" if number % 2 else "other") for number in range(9)]
    journal.append(everything[:4])
    spool.drain(store)  # stored, and still in the open journal
    journal.append(everything[4:8])  # not stored yet
    eraser, caretaker = Eraser(store, FolderSpool(folder), lambda: 5), Caretaker(store, spool, lambda: 6)

    begun = eraser.erase(Selection(entity="e"), "somebody", "erase")
    caretaker.turn()
    assert (begun.rows, begun.journals, eraser.is_done(begun.request)) == (2, ["w-000000000000.journal"], False)

    journal.roll()
    journal.append(everything[8:])
    spool.drain(store)
    caretaker.turn()

    assert eraser.is_done(begun.request)
    assert eraser.result(begun.request).rows == 4
    assert [entry.seq for entry in store.chain("w") if entry.row is None] == [1, 3, 5, 7]
    verdict = History(store, spool).verify()
    assert (verdict.entries, verdict.erased, verdict.unrecorded, verdict.broken) == (9, 4, 0, [])
    assert not any(b'{"x":5}' in path.read_bytes() for path in folder.iterdir())
    journal.close()


def test_an_erasure_without_journals_is_done_at_once(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))
    eraser = Eraser(store, NoSpool(), lambda: 5)

    erased = eraser.erase(Selection(model="loans"), "somebody", "purge")

    assert (erased.rows, erased.journals, eraser.is_done(erased.request)) == (5, [], True)


def test_more_rows_than_a_transaction_takes_are_all_erased(store: Store) -> None:
    count = 2 * ROWS_AT_ONCE + 7
    store.record("w", sealed("w", drafts(0, count)))

    assert Eraser(store, NoSpool(), lambda: 5).erase(Selection(), "somebody", "purge").rows == count
    assert [decode_erasure(entry.head).rows for entry in store.erasures()] == [ROWS_AT_ONCE, ROWS_AT_ONCE, 7]


def test_retention_erases_what_is_old_a_step_a_turn_and_later_what_became_old(store: Store) -> None:
    day = [draft(number) for number in range(ROWS_AT_ONCE + 5)]  # a millisecond apart
    store.record("w", sealed("w", day))
    now = STARTED_US + 30 * DAY_US + ROWS_AT_ONCE * 1000  # the last five are not 30 days old
    caretaker = Caretaker(store, NoSpool(), lambda: now, 30)

    def erased() -> int:
        return sum(entry.row is None for entry in store.chain("w"))

    caretaker.turn()
    assert erased() == ROWS_AT_ONCE
    caretaker.turn()
    now += 1_000_000  # they are now, but it is not time to look yet
    caretaker.turn()
    assert erased() == ROWS_AT_ONCE
    now += RETENTION_EVERY_US
    caretaker.turn()
    caretaker.turn()

    assert erased() == ROWS_AT_ONCE + 5
    assert {decode_erasure(entry.head).reason for entry in store.erasures()} == {"retention"}
    assert History(store, NoSpool()).verify().unrecorded == 0


def test_without_retention_nothing_is_erased(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))

    Caretaker(store, NoSpool(), lambda: STARTED_US * 9).turn()

    assert all(entry.row is not None for entry in store.chain("w"))


def test_rows_taken_out_by_hand_are_told_from_erased_ones() -> None:
    store = MemoryStore()
    store.record("w", [entry._replace(row=None, salt=None) for entry in sealed("w", drafts(0, 3))])

    verdict = History(store, NoSpool()).verify()

    assert (verdict.erased, verdict.unrecorded, verdict.broken) == (3, 3, [])
