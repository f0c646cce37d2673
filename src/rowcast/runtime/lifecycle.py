"""The lifecycle of a server process: start the parts, keep an indexer running, and stop the parts in reverse order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import structlog

from rowcast.errors import RowcastError
from rowcast.http.routes import ASGIApp, Receive, Scope, Send
from rowcast.serving.health import Health

CHECK_SECONDS = 1.0
YOUNG_OBJECTS = 20_000

log = structlog.get_logger("rowcast.runtime")


class Part(Protocol):
    """A component that starts and stops with the server."""

    async def start(self) -> None:
        """Start the part. The event loop is already running."""
        ...

    async def stop(self) -> None:
        """Finish outstanding work and stop."""
        ...


class Closing:
    """A part that has nothing to start; `stop` closes it."""

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close

    async def start(self) -> None:
        """Do nothing."""

    async def stop(self) -> None:
        """Close the part."""
        self._close()


class Reporting:
    """A part that reports to another service from a background thread.

    `stop` sends the remaining data, which may take seconds."""

    def __init__(self, start: Callable[[], None], stop: Callable[[], None]) -> None:
        self._start = start
        self._stop = stop

    async def start(self) -> None:
        """Start the thread."""
        self._start()

    async def stop(self) -> None:
        """Send the remaining data without blocking the event loop."""
        await asyncio.to_thread(self._stop)


class IndexerChild:
    """Keeps one indexer process running for a journal folder, unless another server already runs an indexer for it.

    The child exits when its standard input closes, so it also exits if this process dies.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], is_running: Callable[[], bool]) -> None:
        self._command = list(command)
        self._environment = dict(environment)
        self._is_running = is_running
        self._keeper: asyncio.Task[None] | None = None
        self._child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the task that keeps the indexer running."""
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Let the child move the remaining entries into the store, and wait until it exits."""
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        if self._child is not None and self._child.stdin is not None:
            self._child.stdin.close()
            await self._child.wait()

    async def _keep(self) -> None:
        while True:
            if not self._is_running():
                try:
                    self._child = await asyncio.create_subprocess_exec(
                        *self._command, stdin=asyncio.subprocess.PIPE, env=self._environment, start_new_session=True
                    )
                    status = await self._child.wait()
                    self._child = None
                    log.warning("the indexer exited; restarting it", status=status)
                except OSError as error:
                    log.warning("cannot start the indexer", reason=error.strerror)
            await asyncio.sleep(CHECK_SECONDS)


class Lifecycle:
    """Starts the parts in order and stops them in reverse order."""

    def __init__(self, health: Health, parts: Sequence[Part], on_drain: Callable[[], None]) -> None:
        self._health = health
        self._parts = parts
        self._on_drain = on_drain

    def drain(self) -> None:
        """Report that the process is no longer ready. It still answers the requests that it has received."""
        self._health.is_ready = False
        self._on_drain()

    async def __call__(self, receive: Receive, send: Send) -> None:
        """Run the ASGI lifespan."""
        await receive()
        for part in self._parts:
            await part.start()
        self._health.is_ready = True
        # Objects that exist now are long-lived: the garbage collector does not need to visit them again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.drain()
        for part in reversed(self._parts):
            await part.stop()
        await send({"type": "lifespan.shutdown.complete"})


class Application:
    """The public ASGI app. It is built when the server starts, so that importing the module has no side effects."""

    def __init__(self, build: Callable[[], ASGIApp]) -> None:
        self._build = build
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Build the app when the lifespan starts; if that fails, report the reason so that the server shuts down."""
        if self._app is None:
            if scope["type"] != "lifespan":
                raise RuntimeError("rowcast.asgi:app requires a server that supports the ASGI lifespan protocol")
            try:
                self._app = self._build()
            except RowcastError as error:
                await receive()
                await send({"type": "lifespan.startup.failed", "message": error.message})
                return
        await self._app(scope, receive, send)
