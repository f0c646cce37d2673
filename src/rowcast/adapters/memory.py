"""Everything a server needs, kept in memory: for the Python face, for notebooks and as the tests' doubles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from rowcast.domain.chain import Chain, Draft, Sealed, decode_head, row_hash
from rowcast.ports import Position, Stored, StoreWriter


class Identified(msgspec.Struct):
    """The part of a reply that history is searched by."""

    id: str
    model: str


_identified = msgspec.json.Decoder(Identified).decode


class MemoryStore:
    """History for the life of one process."""

    def __init__(self) -> None:
        self._chains: dict[str, list[Sealed]] = {}
        self._by_id: dict[str, tuple[str, Stored]] = {}

    def position(self, writer: str) -> Position | None:
        """The last entry stored of this writer."""
        kept = self._chains.get(writer)
        return Position(kept[-1].seq, kept[-1].link) if kept else None

    def record(self, writer: str, entries: Sequence[Sealed]) -> None:
        """Keep entries; those already kept are left alone."""
        kept = self._chains.setdefault(writer, [])
        last = kept[-1].seq if kept else -1
        for entry in entries:
            if entry.seq > last:
                found = _identified(decode_head(entry.head).reply)
                kept.append(entry)
                self._by_id[found.id] = (found.model, Stored(writer, entry))

    def get(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction."""
        found = self._by_id.get(prediction_id)
        return found[1] if found else None

    def latest(self, limit: int, before: str | None = None, model: str | None = None) -> list[Stored]:
        """Newest first; `before` is the id of the last entry of the page before."""
        page = []
        for key in sorted(self._by_id, reverse=True):
            name, stored = self._by_id[key]
            if (before is None or key < before) and (model is None or name == model):
                page.append(stored)
            if len(page) == limit:
                break
        return page

    def writers(self) -> list[str]:
        """Every writer that has entries."""
        return sorted(self._chains)

    def chain(self, writer: str, after: int = -1) -> Iterator[Sealed]:
        """One writer's entries in order of `seq`, those after `after`."""
        yield from (entry for entry in self._chains.get(writer, ()) if entry.seq > after)

    def count(self) -> int:
        """How many entries are stored."""
        return len(self._by_id)


class MemoryJournal:
    """A journal that is its own store: what is appended can be looked up at once."""

    def __init__(self, store: MemoryStore, writer: str) -> None:
        self._store = store
        self._chain = Chain(writer)

    @property
    def writer(self) -> str:
        """The writer whose chain is being extended."""
        return self._chain.writer

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and keep all drafts."""
        self._store.record(self.writer, [self._sealed(draft) for draft in drafts])

    def _sealed(self, draft: Draft) -> Sealed:
        seq, hashed = self._chain.seq, row_hash(draft.salt, draft.row)
        linked = self._chain.extend(draft.head, draft.salt, draft.row)
        return Sealed(seq, draft.head, draft.salt, draft.row, hashed, linked)

    def close(self) -> None:
        """Nothing to give up: the store lives as long as the process."""


class NoSpool:
    """The spool beside a MemoryStore: nothing ever waits."""

    def find(self, prediction_id: str) -> Stored | None:
        """Nothing waits."""
        return None

    def after(self, writer: str, seq: int) -> Iterator[Sealed]:
        """Nothing waits."""
        return iter(())

    def writers(self) -> list[str]:
        """Nobody waits."""
        return []

    def drain(self, store: StoreWriter) -> int:
        """Nothing to move."""
        return 0

    def backlog(self) -> int:
        """Nothing waits."""
        return 0
