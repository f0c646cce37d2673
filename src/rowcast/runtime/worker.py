"""This worker among the workers of its server: it shows what it does, gives signs of life and follows the registry."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
import structlog

from rowcast.adapters.files.worker_state import LoadedModel, ServerFolder, WorkerSlot, WorkerStatus
from rowcast.errors import RowcastError
from rowcast.registry.ports import ImportResult
from rowcast.serving.batcher import Queue
from rowcast.serving.live_models import Deployment
from rowcast.serving.reload import Followed, Follower

BEAT_SECONDS = 0.5
LOOK_SECONDS = 0.25
RELOAD_SECONDS = 30.0
"""How long the answer to a reload waits for all workers."""

log = structlog.get_logger("rowcast.runtime")


class Reload(msgspec.Struct, frozen=True):
    """Where every worker stands after a reload was asked for."""

    status: Literal["ok", "failed", "pending"]
    workers: list[WorkerStatus]
    imports: list[ImportResult]
    """What lies in the models folder."""


def log_drops(drops: Sequence[ImportResult]) -> None:
    """Say what of the models folder cannot be served."""
    for drop in drops:
        if drop.error:
            log.error("a file of the models folder is not served", file=drop.file, reason=drop.error)


class Member:
    """One worker. `refresh` is called on the event loop whenever the live models changed."""

    def __init__(
        self,
        board: ServerFolder,
        slot: WorkerSlot,
        deployment: Deployment,
        follower: Follower,
        generation: Callable[[], int],
        refresh: Callable[[], None],
        take_up: Callable[[], list[ImportResult]],
        queue: Callable[[], Queue],
    ) -> None:
        self._board = board
        self._slot = slot
        self._deployment = deployment
        self._follower = follower
        self._generation = generation
        self._refresh = refresh
        self._take_up = take_up
        self._queue = queue
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def state(self) -> str:
        """What this worker last said of itself."""
        return self._slot.status.state

    def workers(self) -> list[WorkerStatus]:
        """Every worker of this server, as it is now."""
        return self._board.workers()

    def begin(self, generation: int, asked: int, followed: Followed) -> None:
        """Say what is served; `generation` and `asked` were read before it was loaded."""
        self._slot.report(
            models=self._loaded(), generation=generation, asked=asked, reload_error=followed.error, state="ready"
        )
        if followed.error:
            log.error("a new version is not served", reason=followed.error)
        self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._watch())]

    def show_queue(self) -> None:
        """What waits here, for whoever is asked about all workers; from any thread."""
        self._slot.report_queue(*self._queue())

    def drain(self) -> None:
        """This worker takes no new work."""
        self._slot.report(state="draining")

    async def stop(self) -> None:
        """Give no more signs."""
        for task in self._tasks:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._slot.close()

    async def reload(self) -> Reload:
        """Import what is new in the models folder, then let every worker look at the registry again, also at what
        failed before, and wait for them."""
        drops = await asyncio.to_thread(self._take_up)
        log_drops(drops)
        number = await asyncio.to_thread(self._board.request_reload)
        deadline = asyncio.get_running_loop().time() + RELOAD_SECONDS
        while True:
            workers = self.workers()
            # One that is stopped is not waited for; one that starts reads the registry as it is now.
            pending = [worker for worker in workers if worker.asked < number or worker.state == "dead"]
            waited_for = [worker for worker in pending if worker.state not in ("stale", "draining")]
            if not waited_for or asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(BEAT_SECONDS / 10)
        failed = any(worker.reload_error for worker in workers) or any(drop.error for drop in drops)
        return Reload("failed" if failed else "pending" if pending else "ok", workers, drops)

    async def _beat(self) -> None:
        while True:
            self._slot.beat()
            self.show_queue()
            await asyncio.sleep(BEAT_SECONDS)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                generation, asked = await asyncio.to_thread(self._wanted)
            except RowcastError as error:
                self._say_error(error.message)
                self._slot.report(generation=-1)  # followed anew once it can be read
                continue
            status = self._slot.status
            if (generation, asked) != (status.generation, status.asked):
                await self._follow(generation, asked)

    def _wanted(self) -> tuple[int, int]:
        return self._generation(), self._board.reload_requests()

    async def _follow(self, generation: int, asked: int) -> None:
        live = self._deployment.live
        followed = await asyncio.to_thread(self._follower.follow, live)
        before = {(model.name, model.version) for model in live.values()}
        after = {(model.name, model.version) for model in followed.models.values()}
        self._deployment.swap(followed.models, followed.meant)
        self._refresh()
        self._say_error(followed.error)
        self._slot.report(models=self._loaded(), generation=generation, asked=asked)
        for name, version in sorted(after - before):
            log.info("a new version is served", model=name, version=version)
        for name in sorted({name for name, _ in before} - {name for name, _ in after}):
            log.info("a model is served no more", model=name)

    def _say_error(self, error: str) -> None:
        if error != self._slot.status.reload_error:
            self._slot.report(reload_error=error)
            if error:
                log.error("a new version is not served", reason=error)

    def _loaded(self) -> tuple[LoadedModel, ...]:
        seconds = self._follower.seconds
        return tuple(
            LoadedModel(model.name, model.version, model.digest, round(seconds.get(model.name, 0.0), 4))
            for model in self._deployment.models()
        )
