"""A history store in the memory of one process. It passes the same contract tests as the SQLite store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from types import TracebackType
from typing import Self

import msgspec

from rowcast.errors import Unavailable
from rowcast.history.chain import Erasure, SealedEntry, decode_erasure, decode_head, seal_erasure
from rowcast.history.entry_filter import EVERYTHING, Selection
from rowcast.history.ports import ErasureRequest, ErasureStep, OpenErasure, Position, StoredEntry
from rowcast.history.records import decode_reply
from rowcast.schema.prediction import searchable_label


class MemoryStore:
    """Keeps the history until the process exits."""

    disk_folder = None

    def __init__(self) -> None:
        self._chains: dict[str, dict[int, SealedEntry]] = {}
        self._positions: dict[str, Position] = {}
        self._places: dict[str, tuple[str, int]] = {}
        """Maps each prediction id to its writer and `seq`."""
        self._erasures: list[SealedEntry] = []
        self._folders: set[str] = set()
        self._open: dict[int, OpenErasure] = {}
        self._last_number = 0
        self._maintenance = threading.Lock()

    def open(self) -> None:
        """Do nothing: there is no connection to open."""

    def close(self) -> None:
        """Do nothing: the entries are still available after the next `open`."""

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def check(self) -> None:
        """Do nothing: memory is always available."""

    @contextmanager
    def maintenance(self) -> Iterator[bool]:
        """Try to acquire the store-wide lock, which is a thread lock; yield whether the attempt succeeded."""
        acquired = self._maintenance.acquire(blocking=False)
        try:
            yield acquired
        finally:
            if acquired:
                self._maintenance.release()

    def position(self, writer: str) -> Position | None:
        """Return the position of this writer's last entry."""
        return self._positions.get(writer)

    def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
        """Add the entries that are not in the store yet."""
        existing = self._chains.get(writer, {})
        new = {entry.seq: entry for entry in reversed(entries) if entry.seq not in existing}
        places = {decode_reply(decode_head(entry.head).reply).id: (writer, seq) for seq, entry in new.items()}
        if len(places) != len(new) or places.keys() & self._places.keys():
            raise Unavailable(f"cannot record the entries of writer {writer}: a prediction id already exists")
        self._chains.setdefault(writer, {}).update(new)
        self._places.update(places)
        for entry in new.values():
            if writer not in self._positions or entry.seq > self._positions[writer].seq:
                self._positions[writer] = Position(entry.seq, entry.link)

    def get(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry for one prediction."""
        return self._at(prediction_id) if prediction_id in self._places else None

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        """Return the selected entries in descending order of id."""
        entries = (self._at(key) for key in sorted(self._places, reverse=True) if before is None or key < before)
        return list(islice((entry for entry in entries if _matches(selection, entry)), limit))

    def writers(self) -> list[str]:
        """Return every writer that has entries."""
        return sorted(self._chains)

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries in order."""
        entries = self._chains.get(writer, {})
        yield from [entries[seq] for seq in sorted(entries) if seq > after]

    def changed_copies(self, writer: str) -> Iterator[tuple[int, str]]:
        """Yield nothing: this store keeps no copies of fields."""
        return iter(())

    def count(self) -> int:
        """Return the number of entries."""
        return len(self._places)

    def erasures(self) -> list[SealedEntry]:
        """Return the erasure chain."""
        return list(self._erasures)

    def register_folder(self, folder_id: str) -> None:
        """Register this folder, so that all open and future erasures wait for it."""
        if folder_id not in self._folders:
            self._folders.add(folder_id)
            for erasure in self._open.values():
                erasure.pending.setdefault(folder_id, None)

    def unregister_folder(self, folder_id: str) -> None:
        """Stop new erasures from waiting for this folder."""
        self._folders.discard(folder_id)

    def open_erasure(self, request: ErasureRequest, folder_id: str, journals: frozenset[str]) -> OpenErasure:
        """Store an erasure request, which stays open until every folder has completed it."""
        self._last_number += 1
        pending: dict[str, frozenset[str] | None] = {**dict.fromkeys(self._folders), folder_id: journals}
        self._open[self._last_number] = OpenErasure(self._last_number, request, pending)
        return self._copy(self._open[self._last_number])

    def open_erasures(self) -> list[OpenErasure]:
        """Return all open erasure requests."""
        return [self._copy(erasure) for erasure in self._open.values()]

    def acknowledge(self, number: int, folder_id: str, journals: frozenset[str]) -> None:
        """Record which journals the folder contained when its indexer first saw this request."""
        if number in self._open and folder_id in self._open[number].pending:
            self._open[number].pending[folder_id] = journals

    def complete(self, number: int, folder_id: str) -> None:
        """Record that the folder has completed its part of this request."""
        erasure = self._open.get(number)
        if erasure is not None:
            erasure.pending.pop(folder_id, None)
            if not erasure.pending:
                del self._open[number]

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        """Examine up to `limit` selected entries, and erase their rows."""
        keys = (key for key in sorted(self._places) if after is None or key > after)
        examined = list(islice((key for key in keys if _matches(request.selection, self._at(key))), limit))
        rows = 0
        for key in examined:
            writer, seq = self._places[key]
            entry = self._chains[writer][seq]
            rows += entry.row is not None
            self._chains[writer][seq] = entry._replace(row=None, salt=None)
        if rows:
            previous = self._erasures[-1].link if self._erasures else None
            selection = msgspec.json.encode(request.selection)
            erasure = Erasure(at, request.by, request.reason, selection, rows, number)
            self._erasures.append(seal_erasure(len(self._erasures), previous, erasure))
        return ErasureStep(rows, examined[-1] if len(examined) == limit else None)

    def erase_partition(self, before: str, *, at: int) -> int | None:
        """Return None: this store has no partitions."""

    def newest_row(self, selection: Selection) -> str | None:
        """Return the id of the newest selected entry that still has its row, or None."""
        keys = (key for key in sorted(self._places, reverse=True) if self._at(key).sealed.row is not None)
        return next((key for key in keys if _matches(selection, self._at(key))), None)

    def erased_rows(self, number: int) -> int:
        """Return how many rows this request has erased."""
        erasures = [decode_erasure(entry.head) for entry in self._erasures]
        return sum(erasure.rows for erasure in erasures if erasure.request == number)

    def scrub(self) -> bool:
        """Return True: rows in memory are never written to disk."""
        return True

    def _at(self, prediction_id: str) -> StoredEntry:
        writer, seq = self._places[prediction_id]
        return StoredEntry(writer, self._chains[writer][seq])

    def _copy(self, erasure: OpenErasure) -> OpenErasure:
        return erasure._replace(pending=dict(erasure.pending))


def _matches(selection: Selection, stored: StoredEntry) -> bool:
    entry = decode_head(stored.sealed.head)
    reply = decode_reply(entry.reply)
    return selection.matches(
        id=reply.id,
        model=reply.model,
        version=reply.version,
        label=searchable_label(reply.prediction, reply.probability),
        tenant=entry.tenant,
        entity=entry.entity,
    )
