"""A journal without files: every entry is recorded directly in a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rowcast.history import blocks
from rowcast.history.blocks import Block
from rowcast.history.chain import Chain, Draft, SealedEntry
from rowcast.history.ports import Position, StoredEntry, StoreWriter


class MemoryJournal:
    """Records entries directly in a store, so that they can be looked up immediately."""

    def __init__(self, store: StoreWriter, writer: str) -> None:
        self._store = store
        self._chain = Chain(writer)

    @property
    def writer(self) -> str:
        """The current writer."""
        return self._chain.writer

    @property
    def head(self) -> Position | None:
        """The position of the writer's most recent entry."""
        return self._store.position(self.writer)

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and record all drafts."""
        self._store.record(self.writer, [self._chain.seal(draft) for draft in drafts])

    def append_block(self, block: Block) -> None:
        """Record the entries of a block, continuing this writer's chain."""
        self.append(list(blocks.entries(block)))

    def close(self) -> None:
        """Do nothing: the store belongs to the caller."""


class EmptyJournalReader:
    """The journal reader for a `MemoryJournal`. It has nothing to read, because entries are stored immediately."""

    folder_id = "memory"

    def find(self, prediction_id: str) -> StoredEntry | None:
        """Return None."""
        return None

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield nothing."""
        return iter(())

    def writers(self) -> list[str]:
        """Return an empty list."""
        return []

    def last_seqs(self) -> dict[str, int]:
        """Return an empty dictionary."""
        return {}

    def drain(self, store: StoreWriter) -> int:
        """Return 0: there are no entries to move."""
        return 0

    def backlog(self) -> int:
        """Return 0."""
        return 0

    def open_journals(self) -> frozenset[str]:
        """Return an empty set."""
        return frozenset()

    def damaged(self) -> list[str]:
        """Return an empty list."""
        return []

    def unreadable(self) -> dict[str, int]:
        """Return an empty dictionary."""
        return {}

    def request_roll(self) -> None:
        """Do nothing: there are no segments."""
