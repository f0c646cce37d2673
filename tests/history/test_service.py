"""Reading the history while entries are being moved from journals into the store."""

from __future__ import annotations

import time
from collections.abc import Iterator

import msgspec
import pytest

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import RequestError
from rowcast.history import service
from rowcast.history.chain import ERASURES, SealedEntry
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.heads import ChainHead
from rowcast.history.ports import ErasureRequest, Position, StoredEntry
from rowcast.history.service import History
from support.entries import MIXED, draft, drafts, identifier, sealed

TEN_ENTRIES = sealed("w", drafts(0, 10))


class MovingJournalReader(EmptyJournalReader):
    """Journals whose first entries are moved into the store whenever the journals are read."""

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


class CountingStore(MemoryStore):
    """A store that records how many entries are requested at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.limits: list[int] = []

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        self.limits.append(limit)
        return super().latest(limit, selection, before)


def test_a_page_reads_at_most_one_hundred_entries_at_a_time_and_no_more_than_requested() -> None:
    store = CountingStore()
    store.record("w", sealed("w", drafts(0, 250)))

    History(store, EmptyJournalReader()).page(220)

    assert store.limits == [100, 100, 20]


def test_a_page_ends_when_its_entries_reach_eight_mebibytes() -> None:
    half = 4 * 1024 * 1024 - len(TEN_ENTRIES[0].head)
    store = MemoryStore()
    store.record("w", sealed("w", [draft(number, row=b"x" * (half - (number == 1))) for number in range(4)]))
    history = History(store, EmptyJournalReader())

    first = history.page(10)
    second = history.page(10, cursor=first.next)

    assert [record.seq for record in first.predictions] == [3, 2]
    assert [record.seq for record in second.predictions] == [1, 0]  # one byte less than the limit
    assert (first.next is None, second.next is None) == (False, True)


def test_an_erased_row_has_no_size() -> None:
    store = MemoryStore()
    store.record("w", [entry._replace(row=None, salt=None) for entry in TEN_ENTRIES])
    history = History(store, EmptyJournalReader())

    assert len(history.page(10, max_bytes=len(TEN_ENTRIES[0].head) + 1).predictions) == 2


class LaggingStore(MemoryStore):
    """A store to which writer `a` adds one more entry each time the writer's position is read."""

    def __init__(self, seq: int) -> None:
        super().__init__()
        self.seq = seq

    def position(self, writer: str) -> Position | None:
        if writer == "b":
            return None
        self.seq += 1
        return Position(self.seq, b"")


class Journals(EmptyJournalReader):
    """Journals whose last sequence numbers are set by the test."""

    def __init__(self, **seqs: int) -> None:
        self.seqs = seqs

    def last_seqs(self) -> dict[str, int]:
        return self.seqs


def test_catching_up_waits_until_all_entries_are_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    store = LaggingStore(-1)

    assert History(store, Journals(a=3)).catch_up(60.0) == 0

    assert store.seq == 3
    assert pauses == [0.02] * 3


def test_entries_that_are_stored_but_no_longer_in_a_journal_are_not_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", pytest.fail)

    assert History(LaggingStore(8), Journals(a=3)).catch_up(60.0) == 0
    assert History(LaggingStore(8), Journals(a=3, b=1)).catch_up(0.0) == 2


def test_a_lookup_searches_the_journals_only_if_the_store_lacks_the_entry() -> None:
    store = MemoryStore()
    store.record("w", TEN_ENTRIES)
    journals = MovingJournalReader(store, sealed("v", drafts(20, 22)), 0)

    assert History(store, journals).get(identifier(3)) is not None
    assert store.count() == 10


def test_the_chain_of_erasures_has_a_head() -> None:
    store = MemoryStore()
    store.record("w", TEN_ENTRIES)
    for number in range(2):
        store.erase(ErasureRequest(Selection(ids=(identifier(number),)), "me", "erase"), number=1, at=1, limit=9)

    heads = History(store, EmptyJournalReader()).heads()

    assert heads == [
        ChainHead("w", 9, TEN_ENTRIES[9].link.hex()),
        ChainHead(ERASURES, 1, store.erasures()[1].link.hex()),
    ]


def test_the_entries_of_one_model_can_be_read() -> None:
    store = MemoryStore()
    store.record("a", sealed("a", drafts(0, 3, "loans")))
    store.record("b", sealed("b", drafts(3, 5, "iris")))

    entries = [(writer, entry.seq) for writer, entry in History(store, EmptyJournalReader()).entries("iris")]

    assert entries == [("b", 0), ("b", 1)]


@pytest.mark.parametrize("count", [0, 20])
def test_a_chain_is_read_in_one_pass_and_confirmed_in_another(count: int) -> None:
    class CountingChains(MemoryStore):
        """A store that counts how often a chain is read."""

        reads = 0

        def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
            self.reads += 1
            return super().chain(writer, after)

    store, entries = CountingChains(), sealed("w", drafts(0, count))

    assert [entry for _, entry in History(store, MovingJournalReader(store, entries, 0)).entries()] == entries
    assert store.reads == 2


def test_a_gap_in_the_journals_is_confirmed_in_another_pass() -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 9))
    history = History(store, MovingJournalReader(store, [*entries[:3], *entries[5:]], 0))

    assert [entry.seq for _, entry in history.entries()] == [0, 1, 2, 5, 6, 7, 8]
