"""Run the ASGI app in the test process and send requests without a socket."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import structlog

from rowcast import settings
from rowcast.app import server as app_server
from rowcast.app.logs import log_processors
from support import logs


class _StandardError:
    """A stream that writes to the current `sys.stderr`, which pytest replaces for each test and closes afterward."""

    def write(self, text: str) -> None:
        logs.collect(text)
        (sys.__stderr__ if sys.stderr.closed else sys.stderr).write(text)  # type: ignore[union-attr]

    def flush(self) -> None:
        """Do nothing, because output is not buffered."""


_always, _last = log_processors(as_text=True)
structlog.configure(
    processors=[*_always, *_last],
    logger_factory=lambda *args: structlog.PrintLogger(_StandardError()),  # type: ignore[arg-type]
)


@contextlib.asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Start the app and stop it at the end of the block; raise AssertionError if it does not start."""
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    running = asyncio.create_task(app(scope, inbox.get, outbox.put))
    await inbox.put({"type": "lifespan.startup"})
    started = await asyncio.wait_for(outbox.get(), 20)
    assert started["type"] == "lifespan.startup.complete", started
    try:
        yield
    finally:
        await inbox.put({"type": "lifespan.shutdown"})
        stopped = await asyncio.wait_for(outbox.get(), 20)
        await running
    assert stopped["type"] == "lifespan.shutdown.complete", stopped


def client(app: Any, root_path: str = "", **options: Any) -> httpx.AsyncClient:
    """Return a client that calls the app directly."""
    transport = httpx.ASGITransport(app, root_path=root_path, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://localhost", **options)


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run a complete server with these settings and yield a client."""
    app = app_server.build_server(settings.load(**options)).app
    async with lifespan(app), client(app, options.get("root_path", "")) as http_client:
        yield http_client
