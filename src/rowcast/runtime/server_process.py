"""One process of a server: it reports its state, sends heartbeats and watches the registry for changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import structlog

from rowcast.errors import RowcastError
from rowcast.registry.ports import ImportResult, Reference
from rowcast.serving.batcher import QueueState
from rowcast.serving.deployment import Deployment
from rowcast.serving.fleet import LoadedModel, ProcessSlot, ProcessStatus, ReloadResult, ServerState
from rowcast.serving.interface import ModelInterface
from rowcast.serving.reload import FollowResult, RegistryFollower

HEARTBEAT_SECONDS = 0.5
POLL_SECONDS = 0.25
RELOAD_SECONDS = 30.0
"""The maximum time, in seconds, that a reload request waits for the server processes."""

log = structlog.get_logger("rowcast.runtime")


class StartingPoint(msgspec.Struct, frozen=True):
    """The result of loading the first models. The counters are read before loading, so that no change is missed."""

    generation: int
    reload_requests: int
    result: FollowResult[ModelInterface]


class LiveParts(NamedTuple):
    """The deployment, the registry follower, and the result of loading the first models."""

    deployment: Deployment[ModelInterface]
    follower: RegistryFollower[ModelInterface]
    point: StartingPoint


def log_import_errors(imports: Sequence[ImportResult]) -> None:
    """Log each file in the models folder that cannot be served."""
    for file in imports:
        if file.error:
            log.error("a file in the models folder cannot be served", file=file.file, reason=file.error)


class ServerProcess:
    """The server process that runs this code. It calls `on_change` on the event loop when the models change."""

    def __init__(
        self,
        state: ServerState,
        slot: ProcessSlot,
        live: LiveParts,
        *,
        generation: Callable[[], int],
        import_models: Callable[[], list[ImportResult]],
        queue: Callable[[], QueueState],
        on_change: Callable[[], None],
    ) -> None:
        self._state = state
        self._slot = slot
        self._deployment, self._follower, self._point = live
        self._generation = generation
        self._import_models = import_models
        self._queue = queue
        self._on_change = on_change
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Report the live models, and begin to watch the registry for changes."""
        point = self._point
        self._slot.report(
            models=self._loaded_models(),
            generation=point.generation,
            asked=point.reload_requests,
            reload_error=point.result.error,
            state="ready",
        )
        if point.result.error:
            log.error("cannot serve a new version", reason=point.result.error)
        self._tasks = [asyncio.create_task(self._show_life()), asyncio.create_task(self._poll())]

    def drain(self) -> None:
        """Report that this process accepts no more requests."""
        self._slot.report(state="draining")

    async def stop(self) -> None:
        """Stop watching the registry and release this process's slot."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._slot.close()

    def published(self) -> list[Reference]:
        """Read the registry and return every version that this server is configured to serve. This call blocks."""
        return self._follower.published()

    def processes(self) -> list[ProcessStatus]:
        """Return the current state of every process of the server."""
        self._report_queue()
        return self._state.processes()

    async def unloaded_models(self) -> frozenset[str]:
        """Return the models that were unloaded from this server."""
        return await asyncio.to_thread(self._state.unloaded_models)

    async def set_unloaded(self, model: str, *, unloaded: bool) -> ReloadResult:
        """Unload a model from every server process, or load it again."""
        await asyncio.to_thread(lambda: self._state.set_unloaded(model, unloaded=unloaded))
        return await self.reload()

    async def reload(self) -> ReloadResult:
        """Import new files from the models folder, make every server process reload, and wait for all of them.

        The processes also retry versions that they failed to load earlier.
        """
        imports = await asyncio.to_thread(self._import_models)
        log_import_errors(imports)
        number = await asyncio.to_thread(self._state.request_reload)
        deadline = asyncio.get_running_loop().time() + RELOAD_SECONDS
        while True:
            processes = self._state.processes()
            # Do not wait for stale or draining processes.
            pending = [process for process in processes if process.asked < number or process.state == "dead"]
            expected = [process for process in pending if process.state not in ("stale", "draining")]
            if not expected or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(HEARTBEAT_SECONDS / 10)
        failed = any(process.reload_error for process in processes) or any(file.error for file in imports)
        return ReloadResult("failed" if failed else "pending" if pending else "ok", processes, imports)

    def _report_queue(self) -> None:
        self._slot.report_queue(*self._queue())

    async def _show_life(self) -> None:
        while True:
            self._slot.beat()
            self._report_queue()
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                generation, requests = await asyncio.to_thread(self._read_numbers)
                status = self._slot.status
                if (generation, requests) != (status.generation, status.asked):
                    await self._follow(generation, requests)
            except Exception as error:  # later changes must still be detected
                self._report_error(error.message if isinstance(error, RowcastError) else repr(error))
                self._slot.report(generation=-1)  # retry at the next poll

    def _read_numbers(self) -> tuple[int, int]:
        return self._generation(), self._state.reload_requests()

    async def _follow(self, generation: int, requests: int) -> None:
        live = self._deployment.live
        result = await asyncio.to_thread(self._follower.follow, live)
        before = {(model.name, model.version) for model in live.values()}
        after = {(model.name, model.version) for model in result.models.values()}
        self._deployment.swap(result.models, result.temporary_default)
        self._on_change()
        self._report_error(result.error)
        self._slot.report(models=self._loaded_models(), generation=generation, asked=requests)
        for name, version in sorted(after - before):
            log.info("serving a new version", model=name, version=version)
        for name in sorted({name for name, _ in before} - {name for name, _ in after}):
            log.info("stopped serving a model", model=name)

    def _report_error(self, error: str) -> None:
        if error != self._slot.status.reload_error:
            self._slot.report(reload_error=error)
            if error:
                log.error("cannot serve a new version", reason=error)

    def _loaded_models(self) -> tuple[LoadedModel, ...]:
        seconds = self._follower.load_seconds
        return tuple(
            LoadedModel(model.name, model.version, model.digest, round(seconds.get(model.name, 0.0), 4))
            for model in self._deployment.models()
        )
