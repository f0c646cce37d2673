"""Reads the history: entries in the store, and journal entries that have not been stored yet."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator

from rowcast.history.chain import ERASURES, SealedEntry, decode_head
from rowcast.history.entry_filter import EVERYTHING, Selection, decode_cursor, encode_cursor
from rowcast.history.heads import ChainHead
from rowcast.history.ports import JournalReader, StoredEntry, StoreReader
from rowcast.history.records import HistoryPage, Record, decode_reply, to_record
from rowcast.history.verification import ChainAudit, Verification

CHUNK = 100
"""The number of entries per query. It is small because each row can have up to `max_row_bytes` bytes."""
PAGE_BYTES = 8 * 1024 * 1024
"""A page ends when its entries reach this size, even if it has fewer entries than requested."""
POLL_SECONDS = 0.02
"""The polling interval. Another process stores the entries, so `catch_up` polls the store."""


class History:
    """All recorded predictions, whether they are in the store or still in a journal."""

    def __init__(self, store: StoreReader, journals: JournalReader, *, is_shared: bool = False) -> None:
        self.store = store
        self.is_shared = is_shared
        """Whether other homes write to the store. Their most recent predictions may not be stored yet."""
        self.journals = journals

    def get(self, prediction_id: str, visible: Selection = EVERYTHING) -> Record | None:
        """Return the entry for one prediction, or None if it does not exist or `visible` excludes it."""
        # Query the store twice: the entry can move from a journal to the store between the first two lookups.
        stored = self.store.get(prediction_id) or self.journals.find(prediction_id) or self.store.get(prediction_id)
        record = to_record(stored) if stored else None
        return record if record is not None and _is_visible(record, visible) else None

    def page(
        self,
        limit: int,
        selection: Selection = EVERYTHING,
        cursor: str | None = None,
        max_bytes: int = PAGE_BYTES,
    ) -> HistoryPage:
        """Return one page of stored entries, newest first. New entries do not shift later pages.

        The cursor is None after the last page. A page of large rows has fewer than `limit` entries.
        """
        before = None if cursor is None else decode_cursor(cursor, selection)
        records: list[Record] = []
        size = 0
        for stored in self._latest(limit, selection, before):
            records.append(to_record(stored))
            size += len(stored.sealed.head) + len(stored.sealed.row or b"")
            if size >= max_bytes:
                break
        is_full = len(records) == limit or size >= max_bytes
        return HistoryPage(records, encode_cursor(records[-1].id, selection) if is_full else None)

    def select(self, selection: Selection = EVERYTHING) -> Iterator[Record]:
        """Yield every stored entry that matches the selection, newest first, in constant memory."""
        return map(to_record, self._latest(sys.maxsize, selection))

    def _latest(self, limit: int, selection: Selection, before: str | None = None) -> Iterator[StoredEntry]:
        """Yield up to `limit` stored entries, newest first. Only `CHUNK` entries are in memory at a time."""
        while limit > 0 and (chunk := self.store.latest(min(limit, CHUNK), selection, before)):
            yield from chunk
            limit -= len(chunk)
            before = to_record(chunk[-1]).id

    def catch_up(self, timeout: float) -> int:
        """Wait up to `timeout` seconds for the current journal entries to be stored; return how many are not stored."""

        def missing(writer: str, seq: int) -> int:
            position = self.store.position(writer)
            return max(0, seq - (-1 if position is None else position.seq))

        targets = self.journals.last_seqs()
        deadline = time.monotonic() + timeout
        while count := sum(missing(writer, seq) for writer, seq in targets.items()):
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        return count

    def entries(self, model: str | None = None) -> Iterator[tuple[str, SealedEntry]]:
        """Yield each entry in the store and the journals, with its writer. Each writer's entries are in order."""
        for writer in self._writers():
            for entry in self._chain(writer):
                if model is None or decode_reply(decode_head(entry.head).reply).model == model:
                    yield writer, entry

    def heads(self) -> list[ChainHead]:
        """Return the last entry of every chain, including the erasure chain."""
        heads = []
        for writer in [*self._writers(), ERASURES]:
            entries = self.store.erasures() if writer == ERASURES else self._chain(writer)
            heads += [ChainHead(writer, entry.seq, entry.link.hex()) for entry in deque(entries, maxlen=1)]
        return heads

    def verify(self, published: Iterable[ChainHead] = (), key: bytes | None = None) -> Verification:
        """Verify every chain completely, and check that the published heads are still in their chains.

        `key` verifies the signatures of heads and erasures. Without a key, all heads and erasures count as unsigned.
        """
        audit = ChainAudit(published, key)
        writers = self._writers()
        for writer in writers:
            audit.check_writer(writer, self._chain(writer))
            audit.check_copies(writer, self.store.changed_copies(writer))
        for writer, seq in self.journals.unreadable().items():
            audit.report_lost(writer, seq)
        audit.check_erasures(self.store.erasures())
        audit.report_missing_writers(writers)
        return audit.result(len(writers))

    def _writers(self) -> list[str]:
        return sorted({*self.store.writers(), *self.journals.writers()})

    def _chain(self, writer: str) -> Iterator[SealedEntry]:
        """Yield a writer's entries in order while the indexer may be moving them into the store.

        Read the store, then the journals, and repeat until a round yields nothing. A gap in the journals is real only
        if the next round does not find the missing entries in the store.
        """
        last = -1
        gap: int | None = -1  # the `seq` that follows the gap found in the previous round, or None
        while True:
            round_start, previous_gap = last, gap
            for entry in self.store.chain(writer, last):
                last = entry.seq
                yield entry
            gap = None
            for entry in self.journals.chain(writer, last):
                if entry.seq != last + 1 and (last != round_start or entry.seq != previous_gap):
                    gap = entry.seq
                    break
                last = entry.seq
                yield entry
            if last == round_start and gap is None and previous_gap is None:
                return


def _is_visible(record: Record, visible: Selection) -> bool:
    return visible.tenant in (None, record.tenant) and (not visible.models or record.model in visible.models)
