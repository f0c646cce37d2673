"""The worker processes of one server, and the port for the state that they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Annotated, Any, Literal, Protocol, get_args

import msgspec

from rowcast.registry.ports import ImportResult

State = Literal["starting", "ready", "draining", "stale", "dead"]
# Replies use plain strings, so that a client accepts states added by a newer server.
StateName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(get_args(State))})]
ReloadStatus = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["ok", "failed", "pending"]})]


class LoadedModel(msgspec.Struct, frozen=True):
    """A version that a worker serves."""

    model: str
    version: int
    digest: str
    seconds: float
    """How long it took to load and verify the version."""


class WorkerReport(msgspec.Struct, frozen=True):
    """The state that a worker publishes."""

    pid: int
    state: State = "starting"
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    """The registry generation that the worker serves."""
    asked: int = 0
    """The number of the most recent reload request that the worker has completed."""
    reload_error: str = ""


class WorkerStatus(msgspec.Struct, frozen=True):
    """The state of one worker, readable by all workers."""

    worker: int
    state: StateName
    pid: int | None = None
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    asked: int = 0
    reload_error: str = ""
    silent_seconds: float = 0.0
    waiting: int = 0
    """The number of rows in the queue."""
    waiting_seconds: float = 0.0
    """The age of the oldest row in the queue, in seconds."""


class ReloadResult(msgspec.Struct, frozen=True):
    """The state of every worker after a reload."""

    status: ReloadStatus
    workers: list[WorkerStatus]
    imports: list[ImportResult] = []
    """The results of importing the files in the models folder."""


class WorkerSlot(Protocol):
    """The entry of one worker in the shared state. It is released when the worker's process exits."""

    status: WorkerReport

    def report(self, **changes: Any) -> None:
        """Change fields of the published state."""
        ...

    def beat(self) -> None:
        """Record a heartbeat."""
        ...

    def report_queue(self, rows: int, seconds: float) -> None:
        """Publish the number of waiting rows and the age of the oldest row; do nothing after `close`."""
        ...

    def close(self) -> None:
        """Release the entry."""
        ...


class WorkerState(Protocol):
    """The state that the workers of one server share. Changes are atomic."""

    worker_count: int

    def slot(self, number: int) -> WorkerSlot:
        """Acquire a worker's slot."""
        ...

    def counters(self, number: int) -> Counters:
        """Return the counters of a worker, which the other workers can read."""
        ...

    def workers(self) -> list[WorkerStatus]:
        """Return the state of every worker, including workers that are not running."""
        ...

    def request_reload(self) -> int:
        """Request a reload in every worker. A worker is done when its `asked` reaches the returned number."""
        ...

    def reload_requests(self) -> int:
        """Return the number of reload requests so far."""
        ...

    def unloaded_models(self) -> frozenset[str]:
        """Return the published models that were unloaded from this server."""
        ...

    def set_unloaded(self, model: str, *, unloaded: bool) -> None:
        """Unload a model, or load it again; workers apply the change at their next reload."""
        ...

    def trial_results(self) -> AbstractContextManager[dict[str, str]]:
        """Yield the trial results while holding a lock, and store them at the end of the `with` block."""
        ...

    def agree_default_model(self, choose: Callable[[], str | None]) -> str | None:
        """Return the default model. The first worker to call this method selects the model with `choose`."""
        ...

    def last_served(self) -> dict[str, int]:
        """Return the most recently served versions. This record survives a restart."""
        ...

    def record_served(self, versions: Mapping[str, int]) -> None:
        """Store the versions that are being served."""
        ...

    def remove(self) -> None:
        """Remove the shared state after the server has stopped."""
        ...


class Fleet(Protocol):
    """Operations on all workers of this server."""

    def workers(self) -> Sequence[WorkerStatus]:
        """Return the state of every worker."""
        ...

    async def reload(self) -> ReloadResult:
        """Have every worker reload, and wait until all workers are done."""
        ...

    async def unloaded_models(self) -> frozenset[str]:
        """Return the models that were unloaded from this server."""
        ...

    async def set_unloaded(self, model: str, *, unloaded: bool) -> ReloadResult:
        """Unload a model from every worker, or load it again."""
        ...


Labels = tuple[str, ...]


class CounterCells(Protocol):
    """Counters that are incremented in place: a list, or a memory-mapped view of a file."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, value: float, /) -> None: ...


class Counters(Protocol):
    """Counters keyed by labels and summed across all workers; the first label is the metric family."""

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """Return this process's counter cells for these labels. The counters start at 0 and never decrease."""
        ...

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """Yield the entries of all workers, including workers that have exited."""
        ...
