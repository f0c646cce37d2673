"""Ports of the history package: a journal, a journal reader and a store.

Every adapter passes the contract tests in `tests/contracts/`. Each journal folder has one indexer process, and any
number of indexers can write to the same store concurrently. No method depends on the order in which transactions
commit: entries are identified by (writer, seq) and listed by id, and ids contain the time of the prediction (UUIDv7).
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
    """The `seq` and link of the last entry in a writer's chain."""

    seq: int
    link: bytes


class Journal(Protocol):
    """Makes entries durable before a reply is sent. A journal has one writer at a time, and a writer has one chain."""

    @property
    def writer(self) -> str:
        """The current writer. After a failed write, the journal uses a new writer."""
        ...

    @property
    def head(self) -> Position | None:
        """The position of the writer's last entry, or None if the writer has no entries."""
        ...

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and write all drafts or none. On failure, raise Unavailable; the next call begins a new chain."""
        ...

    def append_block(self, block: Block) -> None:
        """Write all predictions of one request or none; raise Unavailable if they cannot be written.

        The entries of the block (see `history.blocks.entries`) continue this writer's chain or start a new chain.
        """
        ...

    def close(self) -> None:
        """Stop writing. All written entries remain readable."""
        ...


class StoredEntry(NamedTuple):
    """An entry with its writer."""

    writer: str
    sealed: SealedEntry


class JournalReader(Protocol):
    """Reads the journals in one folder. The folder's indexer also drains them into the store."""

    @property
    def folder_id(self) -> str:
        """The unique, permanent id of the folder."""
        ...

    def find(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry for this prediction if it is still in a journal. Skip damaged journals."""
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
        """Move complete entries into the store, delete completed journals, and return the number of entries moved.

        Only the folder's indexer may call this. Rename and keep damaged journals; after draining all other journals,
        raise HistoryError to report the damage.
        """
        ...

    def backlog(self) -> int:
        """Return the number of journals that have not been deleted yet; one per active writer is normal."""
        ...

    def open_journals(self) -> frozenset[str]:
        """Return the names of the journals that contain entries and have not been deleted yet."""
        ...

    def damaged(self) -> list[str]:
        """Return the names of damaged journals, which are kept and may still contain rows."""
        ...

    def unreadable(self) -> dict[str, int]:
        """Return the first unreadable `seq` of each writer that has a damaged journal."""
        ...

    def request_roll(self) -> None:
        """Ask all active writers to start new journals, so that the current journals can be deleted."""
        ...


class StoreReader(Protocol):
    """Reads stored entries. A store that does not exist yet counts as empty. Failed reads raise Unavailable."""

    def position(self, writer: str) -> Position | None:
        """Return the position of this writer's last entry, or None if the writer has no entries."""
        ...

    def get(self, prediction_id: str) -> StoredEntry | None:
        """Return the entry for one prediction, or None."""
        ...

    def latest(self, limit: int, selection: Selection = EVERYTHING, before: str | None = None) -> list[StoredEntry]:
        """Return up to `limit` selected entries with ids below `before`, in descending order of id."""
        ...

    def writers(self) -> list[str]:
        """Return every writer that has entries."""
        ...

    def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
        """Yield one writer's entries with a `seq` above `after`, in order, in constant memory."""
        ...

    def changed_copies(self, writer: str) -> Iterator[tuple[int, str]]:
        """Yield the `seq` and the name of each field whose copy in the store differs from the entry.

        A store keeps copies of some fields for use in queries.
        """
        ...

    def count(self) -> int:
        """Return the number of entries."""
        ...

    def erasures(self) -> list[SealedEntry]:
        """Return the erasure chain."""
        ...


class StoreWriter(Protocol):
    """Adds entries.

    Several indexers can add entries concurrently, but all entries of one writer's chain are added in order by a single
    indexer.
    """

    def position(self, writer: str) -> Position | None:
        """Return the position of this writer's last entry, or None if the writer has no entries."""
        ...

    def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
        """Add all entries durably in one transaction, or add none and raise Unavailable.

        Entries with an existing (writer, seq) are not changed, so recording is idempotent and never restores an erased
        row.
        """
        ...


class ErasureRequest(msgspec.Struct, frozen=True):
    """A request to erase the rows of the selected entries."""

    selection: Selection = msgspec.field(name="wanted")
    by: str
    reason: str


class OpenErasure(NamedTuple):
    """An erasure request that at least one journal folder has not completed.

    `pending` maps each such folder to the journals that the folder contained when its indexer first saw the request, or
    to None if the indexer has not seen the request yet. Selected rows can still enter the store while any of these
    journals exists.
    """

    number: int
    request: ErasureRequest
    pending: dict[str, frozenset[str] | None]


class ErasureStep(NamedTuple):
    """The number of rows erased in one small transaction, and the last examined id (None in the final step)."""

    rows: int
    last: str | None


class StoreEraser(Protocol):
    """Removes rows and salts from stored entries. Hashes remain, so every chain stays valid.

    A request is complete once every registered folder has completed its part. When a folder's indexer first sees the
    request, it notes which journals exist. Once it has drained these journals, it erases the selected rows.
    """

    def register_folder(self, folder_id: str) -> None:
        """Register this folder, so that all open and future erasures wait for it. Idempotent."""
        ...

    def unregister_folder(self, folder_id: str) -> None:
        """Stop new erasures from waiting for this folder."""
        ...

    def open_erasure(self, request: ErasureRequest, folder_id: str, journals: frozenset[str]) -> OpenErasure:
        """Store a request that waits for these journals in `folder_id`, and for every registered folder.

        No folder is registered or unregistered during this call. Request numbers are never reused.
        """
        ...

    def open_erasures(self) -> list[OpenErasure]:
        """Return all open erasure requests, ordered by number."""
        ...

    def acknowledge(self, number: int, folder_id: str, journals: frozenset[str]) -> None:
        """Record which journals the folder contained when its indexer first saw this request."""
        ...

    def complete(self, number: int, folder_id: str) -> None:
        """Record that the folder has completed its part. A request with no pending folders is complete. Idempotent."""
        ...

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        """Examine up to `limit` selected entries with ids above `after`, and erase their rows.

        If any row is erased, the same transaction appends an entry to the erasure chain. All processes share this
        chain, so the store serializes these transactions. `number` is 0 for retention.
        """
        ...

    def erase_partition(self, before: str, *, at: int) -> int | None:
        """Erase all rows of one whole partition whose ids are all below `before`, and free the disk space that the rows
        used.

        This takes one transaction, which records the erasure as retention. Return the number of erased rows, or None if
        no such partition is left, if the partition is in use, or if the store has no partitions. Only one process may
        call this at a time (see `Store.maintenance`). Entries and hashes remain, as in `erase`.
        """
        ...

    def newest_row(self, selection: Selection) -> str | None:
        """Return the id of the newest selected entry that still has its row, or None."""
        ...

    def erased_rows(self, number: int) -> int:
        """Return how many rows this request has erased so far."""
        ...

    def scrub(self) -> bool:
        """Remove erased bytes from disk. Return False if a reader prevents this; the caller must then retry later."""
        ...


class SecretStore(Protocol):
    """Stores one random secret."""

    @property
    def location(self) -> str:
        """Where the secret is stored, for use in messages; contains no password."""
        ...

    def find(self) -> bytes | None:
        """Return the secret, or None if it does not exist. Raise SettingsError or Unavailable if it cannot be read."""
        ...

    def keep(self, secret: bytes) -> bytes:
        """Store the secret durably unless one exists already, and return the stored secret.

        If several processes call this at the same time, all of them receive the same secret.
        """
        ...


class Store(StoreReader, StoreWriter, StoreEraser, Protocol):
    """The database of all entries. Use it as a context manager to open and close it."""

    @property
    def disk_folder(self) -> Path | None:
        """The local folder in which the store uses disk space, or None if it uses no local disk."""
        ...

    def open(self) -> None:
        """Connect for writing. If necessary, create the store or migrate its schema under the store-wide lock.

        Writing opens the store implicitly. Raise HistoryError if the store was written by a newer release, and
        Unavailable if it cannot be opened. Migrations only add to the schema; replaced tables and columns are dropped
        one release later.
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
        """Raise Unavailable or HistoryError if the store cannot accept entries; do not create or change anything."""
        ...

    def maintenance(self) -> AbstractContextManager[bool]:
        """Try to acquire the store-wide lock, and yield whether the attempt succeeded.

        Use the lock only for work that one indexer does for all indexers, such as migrations and retention. Recording
        never needs the lock. The lock is released when the `with` block ends or the process exits.
        """
        ...
