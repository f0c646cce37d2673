"""Reading the history while entries move from journals into the store."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import RequestError
from rowcast.history import service
from rowcast.history.chain import SealedEntry
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import StoredEntry
from rowcast.history.service import History
from support.entries import MIXED, draft, drafts, identifier, sealed

TEN_ENTRIES = sealed("w", drafts(0, 10))


class MovingJournalReader(EmptyJournalReader):
    """Journals whose first entries move into the store whenever the journals are read."""

    def __init__(self, store: MemoryStore, entries: list[SealedEntry], moves: int) -> None:
        self._store = store
        self._waiting = entries
        self._moves = moves

    def writers(self) -> list[str]:
        return ["w"]

    def find(self, prediction_id: str) -> StoredEntry | None:
        self._move(len(self._waiting))
        return None

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        self._move(self._moves)
        yield from [entry for entry in self._waiting if entry.seq > after]

    def _move(self, count: int) -> None:
        moving, self._waiting = self._waiting[:count], self._waiting[count:]
        self._store.record("w", moving)


@pytest.mark.parametrize("stored", [0, 4])
@pytest.mark.parametrize("moves", [0, 1, 3, 20])
def test_entries_that_move_during_a_read_are_returned_exactly_once_and_in_order(stored: int, moves: int) -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 20))
    store.record("w", entries[:stored])
    history = History(store, MovingJournalReader(store, entries[stored:], moves))

    assert [entry for _, entry in history.entries()] == entries
    assert history.verify().broken == []


def test_an_entry_that_moves_during_a_lookup_is_found() -> None:
    store = MemoryStore()
    history = History(store, MovingJournalReader(store, sealed("w", drafts(0, 3)), 0))

    assert history.get(identifier(1)) is not None


def test_a_record_contains_the_row_byte_for_byte() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", [draft(0, row=b'{"x" : 1.50}')]))

    record = History(store, EmptyJournalReader()).get(identifier(0))

    assert record is not None
    assert b'"row":{"x" : 1.50}' in msgspec.json.encode(record)
    assert msgspec.json.decode(record.prediction)["id"] == record.id == identifier(0)


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (Selection(), True),
        (Selection(tenant="bank"), True),
        (Selection(tenant=""), False),
        (Selection(tenant="bank", models=("iris",)), True),
        (Selection(models=("loans",)), False),
    ],
)
def test_a_lookup_returns_only_entries_that_are_visible_to_the_caller(visible: Selection, expected: bool) -> None:
    store = MemoryStore()
    store.record("w", sealed("w", [draft(0, "iris", tenant="bank")]))

    assert (History(store, EmptyJournalReader()).get(identifier(0), visible) is not None) is expected


def test_pages_contain_every_entry_exactly_once_and_ignore_entries_added_after_the_first_page() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", MIXED))
    history = History(store, EmptyJournalReader())

    page = history.page(25)
    records = list(page.predictions)
    store.record("v", sealed("v", [draft(100)]))
    while page.next is not None:
        page = history.page(25, cursor=page.next)
        records += page.predictions

    assert [record.id for record in records] == [identifier(number) for number in reversed(range(60))]


def test_a_page_of_large_rows_ends_early_and_the_next_page_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "CHUNK", 4)
    size = len(TEN_ENTRIES[-1].head) + len(TEN_ENTRIES[-1].row or b"")
    store = MemoryStore()
    store.record("w", TEN_ENTRIES)
    history = History(store, EmptyJournalReader())

    ids, sizes, cursor = [], [], None
    while True:
        page = history.page(10, cursor=cursor, max_bytes=3 * size - 100)
        ids += [record.id for record in page.predictions]
        sizes.append(len(page.predictions))
        cursor = page.next
        if cursor is None:
            break

    assert ids == [record.id for record in history.select()]
    assert len(ids) == len(TEN_ENTRIES)
    assert max(sizes) == 3


def test_a_full_page_of_several_chunks_has_the_requested_size() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", drafts(0, 250)))
    history = History(store, EmptyJournalReader())

    pages = [first := history.page(220), history.page(220, cursor=first.next)]

    assert [(len(page.predictions), page.next is None) for page in pages] == [(220, False), (30, True)]


def test_a_cursor_from_a_different_selection_is_rejected() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", MIXED))
    history = History(store, EmptyJournalReader())

    with pytest.raises(RequestError) as refused:
        history.page(5, Selection(model="loans"), history.page(5).next)
    assert refused.value.slug == "bad-option"


def test_each_head_is_the_last_entry_of_a_chain() -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 3))
    store.record("w", entries)

    heads = History(store, EmptyJournalReader()).heads()

    assert [(head.writer, head.seq, head.link) for head in heads] == [("w", 2, entries[2].link.hex())]
