"""What the floors above need from the world, as small protocols; `adapters/` holds one file a technology.

Every implementation of a port passes that port's contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec

from rowcast.domain.access import Key
from rowcast.domain.blocks import Block
from rowcast.domain.chain import Draft, Sealed
from rowcast.domain.prediction import Outcome
from rowcast.domain.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Graph(Protocol):
    """A loaded model graph. Safe to call from one thread at a time."""

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Probabilities [N, k] or values [N]; of foreign graphs what `domain/outputs.py` makes these of. A row's answer
        does not depend on its companions, to the last bit."""
        ...


class GraphTensor(NamedTuple):
    """An input or output of a graph, as the runtime tells it; a dimension that may vary is None."""

    name: str
    type: str
    shape: Sequence[int | None]

    def __str__(self) -> str:
        sizes = ", ".join("N" if size is None else str(size) for size in self.shape)
        name = self.name if self.name.isprintable() else repr(self.name)  # a file's text must not steer a terminal
        return f"{name} ({self.type}, [{sizes}])"


class UnknownGraph(Protocol):
    """A graph of which nothing is known yet."""

    @property
    def inputs(self) -> Sequence[GraphTensor]:
        """What it takes."""
        ...

    @property
    def outputs(self) -> Sequence[GraphTensor]:
        """What it gives."""
        ...

    def run(self, output: str, tensors: Mapping[str, NDArray[Any]]) -> Any:
        """One output as it comes, an array or a list of maps; BundleError when the graph cannot be run."""
        ...


OpenGraph = Callable[[bytes, str], Graph]
"""(model bytes, output name) -> graph. BundleError when the bytes are not a graph that can be run."""


class Reference(NamedTuple):
    """One published version."""

    name: str
    version: int

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class Drop(msgspec.Struct, frozen=True):
    """A file in the models folder, and what became of it: a published version, or an error."""

    file: str
    model: str = ""
    version: int = 0
    error: str = ""


class RegistryReader(Protocol):
    """Published bundles and their aliases. A version never changes once it can be seen."""

    def models(self) -> Mapping[str, Sequence[int]]:
        """Every name with its versions, ascending."""
        ...

    def aliases(self, name: str) -> Mapping[str, int]:
        """Alias to version; ModelNotFound for an unknown name."""
        ...

    def folder(self, reference: Reference) -> Path:
        """Where the bundle lies on this machine; ModelNotFound when there is none."""
        ...

    def generation(self) -> int:
        """A number that grows with every change of an alias; cheap enough to be asked every second."""
        ...


class RegistryWriter(RegistryReader, Protocol):
    """Publishing is atomic: readers see the whole new version or nothing, whoever dies meanwhile."""

    def ready(self, name: str) -> None:
        """RegistryError when `name` could not be published to; nothing stays of the attempt."""
        ...

    def publish(self, name: str, fill: Callable[[Path], None], alias: str | None = None) -> Reference:
        """Call `fill` with an empty folder, then make it the next version of `name`, and the alias's if one is given.

        Nothing stays if `fill` raises or the alias cannot be moved; what a dead publisher left goes with the next one.
        """
        ...

    def point(self, reference: Reference, alias: str) -> None:
        """Let `alias` name this version from now on; bumps the generation that servers watch."""
        ...


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
        `domain/blocks.py` makes of it, and they stand in a chain: this one, or one that begins with them."""
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


class KeyReader(Protocol):
    """The API keys, as a server follows them."""

    def all(self) -> Sequence[Key]:
        """Every key, revoked ones included; SettingsError when they cannot be read."""
        ...

    def mark(self) -> object:
        """Something cheap that differs once the keys have changed."""
        ...


class KeyWriter(KeyReader, Protocol):
    """Changes are atomic: readers see the keys before or after, whoever dies meanwhile."""

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys by what `edit` makes of them; one change at a time. Nothing changes if `edit` raises."""
        ...


IN_FLIGHT = "the first request with this Idempotency-Key is not answered yet; try again in a second"
OTHER_REQUEST = "this Idempotency-Key was used for another request; choose a new key for a new request"


class Repeats(Protocol):
    """Requests that may come again: the first one is answered, the others get its reply. Shared by all workers.

    A claim is its process's until it is kept or released; claims of dead processes, and those held for too long, are
    void. `now` is in seconds and the same clock for everyone.
    """

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """None: the caller answers, then keeps or releases. Else the reply that was kept. RepeatConflict while the
        first is in flight, or when it was another request; Unavailable when nothing can be claimed."""
        ...

    def keep(self, key: str, reply: bytes, now: float) -> None:
        """The reply that repeats get from now on."""
        ...

    def release(self, key: str) -> None:
        """Let the next one be the first."""
        ...

    def purge(self, before: float) -> None:
        """Forget what was claimed before that moment."""
        ...


class Cache(Protocol):
    """Outcomes by row key. It may forget anything at any time, and a part that fails knows nothing: it never raises."""

    async def get(self, keys: Sequence[str]) -> Sequence[Outcome | None]:
        """What is known, in order of the keys."""
        ...

    def put(self, found: Mapping[str, Outcome], seconds: float | None = None) -> None:
        """Remember, for so long if it is said, without making anybody wait."""
        ...
