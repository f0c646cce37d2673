"""What history needs from its adapters: a journal, a reader of journals, and a store.

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
        """The writer whose chain is being extended. A failed write starts a new writer."""
        ...

    @property
    def head(self) -> Position | None:
        """The writer's last entry; None before the first."""
        ...

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and write all drafts, or none: Unavailable when they cannot be written, and a new chain begins."""
        ...

    def append_block(self, block: Block) -> None:
        """Write all predictions of one request, or none: Unavailable when they cannot be written.

        The entries of a block are those of `history.blocks.entries`. They continue this writer's chain or start one.
        """
        ...

    def close(self) -> None:
        """Stop writing. Everything written stays readable."""
        ...


class StoredEntry(NamedTuple):
    """An entry with its writer."""

    writer: str
    sealed: SealedEntry


class JournalReader(Protocol):
    """Reads the journals of one folder. One process per folder, the indexer, also drains them into the store."""

    @property
    def folder_id(self) -> str:
        """The identity of the folder, which never changes and which no other folder shares."""
        ...

    def find(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry of a prediction that is still in a journal. Skips damaged journals."""
        ...

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries with a `seq` above `after`, in order; HistoryError where a journal is damaged."""
        ...

    def writers(self) -> list[str]:
        """Return every writer that has a journal."""
        ...

    def last_seqs(self) -> dict[str, int]:
        """Return the last `seq` in the journals of each writer. Skips damaged journals."""
        ...

    def drain(self, store: StoreWriter) -> int:
        """Move complete entries into the store, delete journals that have ended, and return the number of entries.

        Only the folder's indexer may call this. A damaged journal is renamed and kept, and HistoryError reports it
        after all other journals are drained.
        """
        ...

    def backlog(self) -> int:
        """Return the number of journals that are not completely stored; one per active writer is normal."""
        ...

    def open_journals(self) -> frozenset[str]:
        """Return the names of the journals that have contained entries and are not deleted yet."""
        ...

    def damaged(self) -> list[str]:
        """Return the names of damaged journals, which are kept and may still contain rows."""
        ...

    def unreadable(self) -> dict[str, int]:
        """Return, for each writer of a damaged journal, the first `seq` that cannot be read from it."""
        ...

    def request_roll(self) -> None:
        """Ask all active writers to start new journals, so that the present ones end and can be deleted."""
        ...


class StoreReader(Protocol):
    """Reads stored entries. A store that does not exist yet reads as empty; Unavailable when it cannot be read."""

    def position(self, writer: str) -> Position | None:
        """Return the entry of this writer with the highest `seq`."""
        ...

    def get(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry of one prediction."""
        ...

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        """Return selected entries by descending id, starting below the id `before`."""
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
    """Adds entries. Many indexers write at the same time; each writer's entries come in order from one of them."""

    def position(self, writer: str) -> Position | None:
        """Return the entry of this writer with the highest `seq`."""
        ...

    def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
        """Add entries in one transaction, durable on return; Unavailable when nothing was added.

        Entries that exist already, by (writer, seq), stay as they are: recording is idempotent and never restores an
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

    `pending` maps each such folder to the journals that it still had when it learned of the request, or to None until
    then. Rows of the selection may enter the store as long as one of these journals exists.
    """

    number: int
    request: ErasureRequest
    pending: dict[str, frozenset[str] | None]


class ErasureStep(NamedTuple):
    """The result of one small transaction: rows erased, and the last id examined; None when no entries remain."""

    rows: int
    last: str | None


class StoreEraser(Protocol):
    """Removes rows and salts from stored entries. Hashes stay, so every chain still verifies.

    A request is complete once every registered folder has completed it: each folder waits until the journals that it
    had when it learned of the request are drained, erases the selection again, and then completes its part.
    """

    def register_folder(self, folder_id: str) -> None:
        """Make every erasure wait for this folder: those that are open now and all later ones. Idempotent."""
        ...

    def unregister_folder(self, folder_id: str) -> None:
        """Stop new erasures from waiting for this folder."""
        ...

    def open_erasure(self, request: ErasureRequest, folder_id: str, journals: frozenset[str]) -> OpenErasure:
        """Store a request that waits for `folder_id` with these journals, and for every registered folder.

        Atomic with registrations. The number has never been used before.
        """
        ...

    def open_erasures(self) -> list[OpenErasure]:
        """Return all open requests, by number."""
        ...

    def acknowledge(self, number: int, folder_id: str, journals: frozenset[str]) -> None:
        """Record which journals a folder still had when it learned of a request."""
        ...

    def complete(self, number: int, folder_id: str) -> None:
        """Record that a folder has completed its part; the last folder closes the request. Idempotent."""
        ...

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        """Examine up to `limit` selected entries with ids above `after`, and erase their rows.

        One transaction, which also appends to the chain of erasures if it erased any row. All processes share this
        chain, so the store serialises their transactions. `number` is 0 for retention.
        """
        ...

    def erased_rows(self, number: int) -> int:
        """Return how many rows a request has erased so far."""
        ...

    def scrub(self) -> bool:
        """Remove erased bytes from the disk. False when a reader still needs them; try again later."""
        ...


class Store(StoreReader, StoreWriter, StoreEraser, Protocol):
    """The database of all entries. A context manager: entering opens the store, leaving closes it."""

    @property
    def disk_folder(self) -> Path | None:
        """The local folder whose disk the store fills; None when it uses no local disk."""
        ...

    def open(self) -> None:
        """Connect for writing. Creates the store or migrates its schema if necessary, under the store-wide lock.

        Writing opens the store implicitly. HistoryError when a newer release wrote it, Unavailable when it cannot be
        opened. Migrations only add to the schema; what they replace is dropped one release later.
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
        """Raise Unavailable or HistoryError when entries cannot be recorded now. Creates and changes nothing."""
        ...

    def maintenance(self) -> AbstractContextManager[bool]:
        """Try to take the store-wide lock; True inside the block when this process holds it.

        Only for work that must run once for all indexers, such as migrations and retention; recording never needs it.
        The lock ends with the block or with the process.
        """
        ...
