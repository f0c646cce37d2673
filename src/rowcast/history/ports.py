"""Ports of the history package: a journal, a journal reader and a store.

Every adapter passes the contract tests in `tests/contracts/`. A store is shared: any number of journal folders, each
with one indexer process, write to it at the same time. No method depends on the order in which transactions commit:
entries are identified by (writer, seq) and listed by id, and ids contain the time of the prediction (UUIDv7).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import msgspec

from rowcast.history.blocks import Block
from rowcast.history.chain import Draft, SealedEntry
from rowcast.history.entry_filter import EVERYTHING, Selection


class Position(NamedTuple):
    """The last entry of a writer's chain."""

    seq: int
    link: bytes


class Journal(Protocol):
    """Makes entries durable before a reply is sent. A journal has one writer at a time, and a writer has one chain."""

    @property
    def writer(self) -> str:
        """The writer whose chain is being extended. After a failed write, the journal uses a new writer."""
        ...

    @property
    def head(self) -> Position | None:
        """The writer's last entry, or None if it has not written any."""
        ...

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and write all drafts or none. On failure, raise Unavailable; the next call begins a new chain."""
        ...

    def append_block(self, block: Block) -> None:
        """Write all predictions of one request or none; raise Unavailable if they cannot be written.

        `history.blocks.entries` yields the entries of a block. They continue this writer's chain or start a new one.
        """
        ...

    def close(self) -> None:
        """Stop writing. Everything written remains readable."""
        ...


class StoredEntry(NamedTuple):
    """An entry with its writer."""

    writer: str
    sealed: SealedEntry


class JournalReader(Protocol):
    """Reads the journals of one folder. One process per folder, the indexer, also drains them into the store."""

    @property
    def folder_id(self) -> str:
        """The unique id of the folder, which never changes."""
        ...

    def find(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry of a prediction that is still in a journal. Skip damaged journals."""
        ...

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield a writer's entries with a `seq` above `after`, in order; raise HistoryError if a journal is damaged."""
        ...

    def writers(self) -> list[str]:
        """Return every writer that has a journal."""
        ...

    def last_seqs(self) -> dict[str, int]:
        """Return the highest `seq` of each writer in the journals. Skip damaged journals."""
        ...

    def drain(self, store: StoreWriter) -> int:
        """Move complete entries into the store, delete finished journals, and return the number of entries.

        Only the folder's indexer may call this. Damaged journals are renamed and kept; after all other journals have
        been drained, raise HistoryError to report them.
        """
        ...

    def backlog(self) -> int:
        """Return the number of journals whose entries are not all in the store yet; one per active writer is normal."""
        ...

    def open_journals(self) -> frozenset[str]:
        """Return the names of the journals that contain entries and have not been deleted yet."""
        ...

    def damaged(self) -> list[str]:
        """Return the names of damaged journals, which are kept and may still contain rows."""
        ...

    def unreadable(self) -> dict[str, int]:
        """Return, for each writer of a damaged journal, the first `seq` that cannot be read from it."""
        ...

    def request_roll(self) -> None:
        """Request that all active writers start new journals, so that the current journals can be deleted."""
        ...


class StoreReader(Protocol):
    """Reads stored entries. A store that does not exist yet is empty. Failed reads raise Unavailable."""

    def position(self, writer: str) -> Position | None:
        """Return the entry of this writer with the highest `seq`."""
        ...

    def get(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry of one prediction."""
        ...

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        """Return up to `limit` selected entries in descending order of id, starting below the id `before`."""
        ...

    def writers(self) -> list[str]:
        """Return every writer that has entries."""
        ...

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries with a `seq` above `after`, in order, in constant memory."""
        ...

    def count(self) -> int:
        """Return the number of entries."""
        ...

    def erasures(self) -> list[SealedEntry]:
        """Return the chain of erasures."""
        ...


class StoreWriter(Protocol):
    """Adds entries. Many indexers can write at the same time; each writer's entries come from one indexer, in order."""

    def position(self, writer: str) -> Position | None:
        """Return the entry of this writer with the highest `seq`."""
        ...

    def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
        """Add entries durably in one transaction; raise Unavailable if nothing was added.

        Entries that already exist, by (writer, seq), are not changed: recording is idempotent and never restores an
        erased row.
        """
        ...


class ErasureRequest(msgspec.Struct, frozen=True):
    """A request to erase the rows of a selection."""

    selection: Selection = msgspec.field(name="wanted")
    by: str
    reason: str


class OpenErasure(NamedTuple):
    """A request that at least one journal folder has not completed.

    `pending` maps each such folder to the journals that it contained when its indexer first saw the request, or to None
    until then. Rows of the selection can still enter the store as long as any of these journals exists.
    """

    number: int
    request: ErasureRequest
    pending: dict[str, frozenset[str] | None]


class ErasureStep(NamedTuple):
    """The result of one small transaction: the number of erased rows, and the last id examined or None at the end."""

    rows: int
    last: str | None


class StoreEraser(Protocol):
    """Removes rows and salts from stored entries. Hashes remain, so every chain stays valid.

    A request is complete once every registered folder has completed it. Each folder waits until the journals that it
    contained when its indexer first saw the request have been drained, erases the selection again, and then completes
    its part.
    """

    def register_folder(self, folder_id: str) -> None:
        """Make all open and future erasures wait for this folder. Idempotent."""
        ...

    def unregister_folder(self, folder_id: str) -> None:
        """Stop new erasures from waiting for this folder."""
        ...

    def open_erasure(self, request: ErasureRequest, folder_id: str, journals: frozenset[str]) -> OpenErasure:
        """Store a request that waits for `folder_id` with these journals, and for every registered folder.

        This is atomic with respect to registrations. The number of a request is never reused.
        """
        ...

    def open_erasures(self) -> list[OpenErasure]:
        """Return all open requests, ordered by number."""
        ...

    def acknowledge(self, number: int, folder_id: str, journals: frozenset[str]) -> None:
        """Record which journals a folder contained when its indexer first saw a request."""
        ...

    def complete(self, number: int, folder_id: str) -> None:
        """Record that a folder has completed its part; once all folders have, the request is complete. Idempotent."""
        ...

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        """Examine up to `limit` selected entries with ids above `after`, and erase their rows.

        This is one transaction, which also appends to the chain of erasures if it erases any row. All processes share
        this chain, so the store serialises their transactions. `number` is 0 for retention.
        """
        ...

    def erased_rows(self, number: int) -> int:
        """Return how many rows a request has erased so far."""
        ...

    def scrub(self) -> bool:
        """Remove erased bytes from disk. Return False if a reader still needs them and the caller must retry later."""
        ...


class Store(StoreReader, StoreWriter, StoreEraser, Protocol):
    """The database of all entries. As a context manager, it opens the store on entry and closes it on exit."""

    @property
    def disk_folder(self) -> Path | None:
        """The local folder in which the store uses disk space, or None if it uses no local disk."""
        ...

    def open(self) -> None:
        """Connect for writing. If necessary, create the store or migrate its schema under the store-wide lock.

        Writing opens the store implicitly. Raise HistoryError if a newer release wrote it, and Unavailable if it cannot
        be opened. Migrations only add to the schema; anything they replace is dropped one release later.
        """
        ...

    def close(self) -> None:
        """Release all connections. The store can be opened again."""
        ...

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...

    def check(self) -> None:
        """Raise Unavailable or HistoryError if entries cannot be recorded. This does not create or change anything."""
        ...

    def maintenance(self) -> AbstractContextManager[bool]:
        """Try to acquire the store-wide lock, and yield whether that succeeded.

        Use it only for work that must run once for all indexers, such as migrations and retention; recording never
        needs it. The lock is released when the block ends or the process exits.
        """
        ...
