"""The worker processes of one server, as each of them sees the others; what they share is behind a port."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal, Protocol, get_args

import msgspec

from rowcast.registry.ports import ImportResult

State = Literal["starting", "ready", "draining", "stale", "dead"]
# Plain strings in replies: a client must accept a state that a newer server adds.
StateName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(get_args(State))})]
ReloadStatus = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["ok", "failed", "pending"]})]


class LoadedModel(msgspec.Struct, frozen=True):
    """A version that a worker serves."""

    model: str
    version: int
    digest: str
    seconds: float
    """How long loading and verifying it took."""


class WorkerReport(msgspec.Struct, frozen=True):
    """What a worker reports about itself."""

    pid: int
    state: State = "starting"
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    """The generation of the registry that the worker has followed."""
    asked: int = 0
    """The number of the last reload request that the worker has followed."""
    reload_error: str = ""


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker as the others see it."""

    worker: int
    state: StateName
    pid: int | None = None
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    asked: int = 0
    reload_error: str = ""
    silent_seconds: float = 0.0
    waiting: int = 0
    """Rows that wait to be answered."""
    waiting_seconds: float = 0.0
    """The age of the oldest of them."""


class ReloadResult(msgspec.Struct, frozen=True):
    """The state of every worker after a reload."""

    status: ReloadStatus
    workers: list[WorkerStatus]
    imports: list[ImportResult] = []
    """The files of the models folder."""


class WorkerSlot(Protocol):
    """A worker's own place in the shared state. The place is free again when the worker's process ends."""

    status: WorkerReport

    def report(self, **changes: Any) -> None:
        """Change what the worker reports about itself."""
        ...

    def beat(self) -> None:
        """Show that the event loop runs."""
        ...

    def report_queue(self, rows: int, seconds: float) -> None:
        """Show how many rows wait, and the age of the oldest; does nothing once the place is given up."""
        ...

    def close(self) -> None:
        """Give up the place."""
        ...


class WorkerState(Protocol):
    """What the workers of one server share. Readers see a value before or after a change, never half of it."""

    worker_count: int

    def slot(self, number: int) -> WorkerSlot:
        """Take a worker's place."""
        ...

    def counters(self, number: int) -> Counters:
        """Return the counters of a worker, which the others can read."""
        ...

    def workers(self) -> list[WorkerStatus]:
        """Return every worker that should exist, with its present state."""
        ...

    def request_reload(self) -> int:
        """Ask every worker to follow the registry; a worker has done so when its `asked` reaches this number."""
        ...

    def reload_requests(self) -> int:
        """Return how many reloads were requested."""
        ...

    def unloaded_models(self) -> frozenset[str]:
        """Return the models that this server does not serve although the registry has them."""
        ...

    def set_unloaded(self, model: str, *, unloaded: bool) -> None:
        """Unload a model, or load it again; workers see it when they follow the registry next."""
        ...

    def trial_results(self) -> AbstractContextManager[dict[str, str]]:
        """Yield the results of trials, which are stored when the block ends; one worker at a time."""
        ...

    def agree_default_model(self, choose: Callable[[], str | None]) -> str | None:
        """Return the default model that the first worker chose."""
        ...

    def last_served(self) -> dict[str, int]:
        """Return the versions that were served last; outlives servers."""
        ...

    def record_served(self, versions: Mapping[str, int]) -> None:
        """Store the versions that are served now."""
        ...

    def remove(self) -> None:
        """Remove the shared state when the server has ended."""
        ...


class Fleet(Protocol):
    """What the routes ask of all workers of this server."""

    def workers(self) -> Sequence[WorkerStatus]:
        """Return every worker with its present state."""
        ...

    async def reload(self) -> ReloadResult:
        """Have every worker follow the registry, and wait for them."""
        ...

    async def unloaded_models(self) -> frozenset[str]:
        """Return the models that were unloaded from this server."""
        ...

    async def set_unloaded(self, model: str, *, unloaded: bool) -> ReloadResult:
        """Unload a model from every worker, or load it again."""
        ...


Labels = tuple[str, ...]


class CounterCells(Protocol):
    """Numbers that are counted up in place: a list, or a view of a file."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, value: float, /) -> None: ...


class Counters(Protocol):
    """Counters by labels, added up over all workers; the first label names the family."""

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """Return this process's cells for these labels; they begin at 0 and only ever grow."""
        ...

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """Yield every entry of every worker, including workers that died."""
        ...
