"""What history needs from the world: journals, what reads them, and the store.

Every implementation passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from rowcast.history.blocks import Block
from rowcast.history.chain import Draft, Sealed
from rowcast.history.entry_filter import EVERYTHING, Selection


class Position(NamedTuple):
    """How far a writer's chain goes: its last entry."""

    seq: int
    link: bytes


class Journal(Protocol):
    """Where predictions are kept before they are answered. One writer, one chain."""

    @property
    def writer(self) -> str:
        """The writer whose chain is being extended; another one after a failure."""
        ...

    @property
    def head(self) -> Position | None:
        """The writer's last entry that was kept."""
        ...

    def append(self, drafts: Sequence[Draft]) -> None:
        """Seal and keep all drafts; Unavailable when they could not be kept, and the next ones begin a new chain."""
        ...

    def append_block(self, block: Block) -> None:
        """Keep many predictions of one request at once; Unavailable when they could not be kept. Its entries are what
        `history/blocks.py` makes of it, and they stand in a chain: this one, or one that begins with them."""
        ...

    def close(self) -> None:
        """Give up the writer; what was kept stays."""
        ...


class Stored(NamedTuple):
    """One entry as the store gives it back."""

    writer: str
    sealed: Sealed


class Spool(Protocol):
    """Journals on their way into the store, seen from outside their writers."""

    def find(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction that still lies in a journal."""
        ...

    def after(self, writer: str, seq: int) -> Iterator[Sealed]:
        """One writer's entries that lie in journals, after `seq`; HistoryError where one is damaged."""
        ...

    def writers(self) -> list[str]:
        """Every writer with a journal."""
        ...

    def ends(self) -> dict[str, int]:
        """The last entry of every writer that lies in a journal, as far as it can be read."""
        ...

    def drain(self, store: StoreWriter) -> int:
        """Move whole entries into the store, delete journals that ended, and say how many entries moved."""
        ...

    def backlog(self) -> int:
        """Journals that are not yet stored to their end; one for each live writer is normal."""
        ...

    def journals(self) -> dict[str, str]:
        """Every journal that holds entries, or held some that are stored now, with its writer."""
        ...

    def damaged(self) -> list[str]:
        """Journals that were put aside as damaged; they still hold rows."""
        ...

    def cut(self) -> dict[str, int]:
        """Writers of journals that were put aside, each with its first entry that cannot be read from there."""
        ...

    def ask_to_roll(self) -> None:
        """Ask live writers to go on in new journals, so that those of now end and are deleted."""
        ...


class StoreWriter(Protocol):
    """The one process that moves journals into the store."""

    def position(self, writer: str) -> Position | None:
        """The last entry stored of this writer."""
        ...

    def record(self, writer: str, entries: Sequence[Sealed]) -> None:
        """Keep entries in one transaction; those already kept, by (writer, seq), are left alone."""
        ...


class ErasureRequest(msgspec.Struct, frozen=True):
    """Rows to erase, some of which may still be on their way into the store."""

    wanted: Selection
    by: str
    reason: str
    journals: dict[str, str] = {}
    """The journals of the time it was asked, with their writers: while one is there, the request is open."""


class OpenRequest(NamedTuple):
    """A request as the store remembers it; what is stored later than `mark` came after it was asked."""

    number: int
    mark: int
    request: ErasureRequest


class Step(NamedTuple):
    """One small transaction of an erasure: rows erased, and the last id it looked at; None when there are no more."""

    rows: int
    last: str | None


class StoreEraser(Protocol):
    """Takes rows and salts out of the store. Hashes stay, and with them the chain."""

    def erase(self, asked: OpenRequest, at: int, most: int, after: str | None = None, *, fresh: bool = False) -> Step:
        """Look at `most` entries behind the id `after`, when `fresh` at those stored since it was asked; erase their
        rows and record that, all in one transaction."""
        ...

    def erased(self, number: int) -> int:
        """How many rows a request erased so far."""
        ...

    def ask(self, request: ErasureRequest) -> OpenRequest:
        """Remember a request until it is settled."""
        ...

    def asked(self) -> list[OpenRequest]:
        """Requests that are open."""
        ...

    def settle(self, numbers: Sequence[int]) -> bool:
        """Forget requests, and see to it that erased bytes are gone from the disk; False when readers still hold
        them and one must try again."""
        ...


class StoreReader(Protocol):
    """History as evidence."""

    def position(self, writer: str) -> Position | None:
        """The last entry stored of this writer."""
        ...

    def get(self, prediction_id: str) -> Stored | None:
        """The entry of one prediction."""
        ...

    def latest(self, limit: int, wanted: Selection = EVERYTHING, before: str | None = None) -> list[Stored]:
        """Newest first; `before` is the id of the last entry of the page before."""
        ...

    def erasures(self) -> list[Sealed]:
        """The chain of erasures."""
        ...

    def writers(self) -> list[str]:
        """Every writer that has entries."""
        ...

    def chain(self, writer: str, after: int = -1) -> Iterator[Sealed]:
        """One writer's entries in order of `seq`, those after `after`."""
        ...

    def count(self) -> int:
        """How many entries are stored."""
        ...
