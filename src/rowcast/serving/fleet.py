"""The processes of one server, and the port for the state that they share."""

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
    """A version that a server process serves."""

    model: str
    version: int
    digest: str
    seconds: float
    """How long it took to load and verify the version."""


class ProcessReport(msgspec.Struct, frozen=True):
    """The state that a server process publishes."""

    pid: int
    state: State = "starting"
    models: tuple[LoadedModel, ...] = ()
    generation: int = -1
    """The registry generation that the process serves."""
    asked: int = 0
    """The number of the most recent reload request that the process has completed."""
    reload_error: str = ""


class ProcessStatus(msgspec.Struct, frozen=True):
    """The state of one server process, readable by all processes of the server."""

    process: int
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
    """The state of every server process after a reload."""

    status: ReloadStatus
    processes: list[ProcessStatus]
    imports: list[ImportResult] = []
    """The results of importing the files in the models folder."""


class ProcessSlot(Protocol):
    """The entry of one server process in the shared state. It is released when the process exits."""

    status: ProcessReport

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


class ServerState(Protocol):
    """The state that the processes of one server share. Changes are atomic."""

    process_count: int

    def slot(self, number: int) -> ProcessSlot:
        """Acquire the slot of a server process."""
        ...

    def counters(self, number: int) -> Counters:
        """Return the counters of a server process, which the other processes can read."""
        ...

    def processes(self) -> list[ProcessStatus]:
        """Return the state of every process, including those that are not running."""
        ...

    def request_reload(self) -> int:
        """Request a reload in every process. A process is done when its `asked` field reaches the returned number."""
        ...

    def reload_requests(self) -> int:
        """Return the number of reload requests so far."""
        ...

    def unloaded_models(self) -> frozenset[str]:
        """Return the published models that were unloaded from this server."""
        ...

    def set_unloaded(self, model: str, *, unloaded: bool) -> None:
        """Unload a model, or load it again; the processes apply the change at their next reload."""
        ...

    def trial_results(self) -> AbstractContextManager[dict[str, str]]:
        """Yield the trial results while holding a lock, and store them at the end of the `with` block."""
        ...

    def agree_default_model(self, choose: Callable[[], str | None]) -> str | None:
        """Return the default model. The first process to call this method selects the model with `choose`."""
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
    """Operations on all processes of the server."""

    def processes(self) -> Sequence[ProcessStatus]:
        """Return the state of every process."""
        ...

    async def reload(self) -> ReloadResult:
        """Have every server process reload, and wait until all of them are done."""
        ...

    async def unloaded_models(self) -> frozenset[str]:
        """Return the models that were unloaded from this server."""
        ...

    async def set_unloaded(self, model: str, *, unloaded: bool) -> ReloadResult:
        """Unload a model from every server process, or load it again."""
        ...


Labels = tuple[str, ...]


class CounterCells(Protocol):
    """Counters that are incremented in place: a list, or a memory-mapped view of a file."""

    def __getitem__(self, place: int, /) -> float: ...
    def __setitem__(self, place: int, value: float, /) -> None: ...


class Counters(Protocol):
    """Counters keyed by labels and summed across all server processes; the first label is the metric family."""

    def cells(self, labels: Labels, count: int) -> CounterCells:
        """Return this process's counter cells for these labels. The counters start at 0 and never decrease."""
        ...

    def each(self) -> Iterator[tuple[Labels, list[float]]]:
        """Yield the entries of all processes, including those that have exited."""
        ...
