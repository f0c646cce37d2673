"""The life of a server process: start everything or say why not, keep an indexer alive, stop in order."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import structlog

from rowcast.errors import RowcastError
from rowcast.history.ports import Journal
from rowcast.http.cold_routes import Health
from rowcast.http.routes import ASGIApp, Receive, Scope, Send
from rowcast.runtime.journal_monitor import Watch
from rowcast.runtime.worker import Member

LOOK_EVERY_SECONDS = 1.0
YOUNG_OBJECTS = 20_000

log = structlog.get_logger("rowcast.runtime")


class Indexer:
    """Sees to it that one indexer process serves this journal folder, whoever started it.

    The child ends when the pipe to it closes, which the kernel does when this process dies.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], journal: Path) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._lock = journal / "indexer.lock"
        self._keeper: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None

    def start(self) -> None:
        """Begin to look after it."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let the child move what is left, then wait for it."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            await self._child.wait()

    async def _keep(self) -> None:
        while True:
            if self._is_free():
                self._child = await asyncio.create_subprocess_exec(
                    *self._command, stdin=asyncio.subprocess.PIPE, env=self._environment, start_new_session=True
                )
                status = await self._child.wait()
                self._child = None
                log.warning("the indexer ended and is started again", status=status)
            await asyncio.sleep(LOOK_EVERY_SECONDS)

    def _is_free(self) -> bool:
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True


class Reporter(Protocol):
    """Tells others how this process fares, from a thread; `stop` delivers what is left and may wait for seconds."""

    def stop(self) -> None:
        """No more."""
        ...


class Lifecycle:
    """Starts and stops what runs beside the requests."""

    def __init__(
        self,
        health: Health,
        journal: Journal,
        indexer: Indexer | None,
        member: Member,
        watch: Watch,
        begin: Callable[[], None],
        end: Callable[[], None],
        reporters: Sequence[Reporter] = (),
    ) -> None:
        self._reporters = reporters
        self._health = health
        self._watch = watch
        self._journal = journal
        self._indexer = indexer
        self._member = member
        self._begin = begin
        self._end = end

    def drain(self) -> None:
        """Ready no more: what was received is still answered."""
        self._health.ready = False
        self._member.drain()

    async def __call__(self, receive: Receive, send: Send) -> None:
        """The ASGI lifespan."""
        await receive()
        if self._indexer is not None:
            self._indexer.start()
        self._watch.start()
        self._begin()
        self._health.ready = True
        # What exists now stays: the collector need not walk it again and again while requests come and go.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.drain()
        await self._watch.stop()
        self._journal.close()
        if self._indexer is not None:
            await self._indexer.stop()
        await self._member.stop()
        await asyncio.gather(*[asyncio.to_thread(reporter.stop) for reporter in self._reporters])
        self._end()
        await send({"type": "lifespan.shutdown.complete"})


class Application:
    """The public ASGI app: built when the server starts, so that importing it opens nothing."""

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Build at the lifespan's start; what cannot be built is said to the server, which then ends."""
        if self._app is None:
            if scope["type"] != "lifespan":
                raise RuntimeError("rowcast.asgi:app needs a server that runs the ASGI lifespan")
            try:
                self._app = self._build()
            except RowcastError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": error.message})
                return
        await self._app(scope, receive, send)
