"""Copying a SQLite history to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import HistoryError
from rowcast.history import copying
from rowcast.history.copying import StoreCopy, copy_store
from rowcast.history.entry_filter import Selection
from rowcast.history.heads import ChainHead
from rowcast.history.ports import ErasureRequest
from rowcast.history.service import History
from support.entries import draft, drafts, sealed

KEY = bytes(32)
ENTITY = Selection(entity="customer-3")


@pytest.fixture
def source(tmp_path: Path) -> Iterator[SqliteStore]:
    with SqliteStore(tmp_path / "history.db", lambda: KEY) as store:
        store.record("a", sealed("a", drafts(0, 30)))
        store.record("b", sealed("b", drafts(100, 105)))
        yield store


@pytest.fixture
def target(database: str) -> Iterator[PostgresStore]:
    with PostgresStore(database) as store:
        yield store


def copy(source: SqliteStore, target: PostgresStore) -> StoreCopy:
    return copy_store(source, target, lambda count: None)


def erase(store: SqliteStore, *, complete: bool = True) -> int:
    erasure = store.open_erasure(ErasureRequest(Selection(), "user", "erase"), "f", frozenset())
    store.erase(erasure.request, number=erasure.number, at=5, limit=10)
    if complete:
        store.complete(erasure.number, "f")
    return erasure.number


def heads(store: SqliteStore | PostgresStore, folder: Path) -> list[ChainHead]:
    return History(store, FolderJournalReader(folder)).heads()


def test_a_copy_has_the_same_chains_heads_and_erasures(
    source: SqliteStore, target: PostgresStore, tmp_path: Path
) -> None:
    erase(source)

    result = copy(source, target)

    assert result == StoreCopy(writers=2, copied=35, present=0, erasures=1)
    assert {writer: list(target.chain(writer)) for writer in target.writers()} == {
        writer: list(source.chain(writer)) for writer in source.writers()
    }
    assert heads(target, tmp_path) == heads(source, tmp_path)
    verification = History(target, FolderJournalReader(tmp_path)).verify(heads(source, tmp_path), KEY)
    assert (verification.entries, verification.erased, verification.heads) == (35, 10, 3)
    assert (verification.unrecorded, verification.unsigned_erasures, verification.broken) == (0, 0, [])


def test_an_interrupted_copy_can_be_continued(
    source: SqliteStore, target: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "BATCH", 7)

    def stop(count: int) -> None:
        if count == 14:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_store(source, target, stop)

    assert copy(source, target) == StoreCopy(writers=2, copied=21, present=14, erasures=0)
    assert copy(source, target) == StoreCopy(writers=2, copied=0, present=35, erasures=0)
    assert list(target.chain("a")) == list(source.chain("a"))


def test_a_repeated_copy_erases_the_rows_that_were_erased_in_the_meantime(
    source: SqliteStore, target: PostgresStore
) -> None:
    copy(source, target)
    number = erase(source)

    copy(source, target)

    assert list(target.chain("a")) == list(source.chain("a"))
    assert target.erased_rows(number) == 10
    later = target.open_erasure(ErasureRequest(ENTITY, "user", "erase"), "f", frozenset())
    assert later.number > number


def test_a_target_that_is_ahead_keeps_its_entries(source: SqliteStore, target: PostgresStore) -> None:
    copy(source, target)
    target.record("a", sealed("a", drafts(0, 33)))

    assert copy(source, target).copied == 0
    assert target.count() == 38


def test_different_entries_of_the_same_writer_are_refused_before_anything_is_copied(
    source: SqliteStore, target: PostgresStore
) -> None:
    target.record("b", sealed("b", [draft(999)]))

    with pytest.raises(HistoryError) as refused:
        copy(source, target)

    assert "writer b" in refused.value.message
    assert target.count() == 1


def test_different_erasures_are_refused(source: SqliteStore, target: PostgresStore) -> None:
    target.record("c", sealed("c", drafts(500, 502)))
    target.erase(ErasureRequest(Selection(), "user", "erase"), number=1, at=1, limit=10)
    erase(source)

    with pytest.raises(HistoryError):
        copy(source, target)
    assert target.count() == 2


def test_a_store_with_an_open_erasure_is_refused(source: SqliteStore, target: PostgresStore) -> None:
    erase(source, complete=False)

    with pytest.raises(HistoryError):
        copy(source, target)
    assert target.count() == 0
