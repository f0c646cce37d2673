"""The cold app of a server with a queue. It is built only when a cold route is first requested."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from rowcast.http.routes import ASGIApp, Receive, Router, Scope, Send, strip_prefix

if TYPE_CHECKING:
    from rowcast.http.cold_app import ColdApp


class LateColdApp:
    """A placeholder for the cold app. The app that `guard` returns must receive all requests before the router."""

    def __init__(self, router: Router, build: Callable[[], ColdApp], root_path: str) -> None:
        self._router = router
        self._build = build
        self._root_path = root_path
        self._app: ASGIApp | None = None
        self._building: asyncio.Task[None] | None = None

    def build(self) -> None:
        """Build the cold app now."""
        self._use(self._build())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward a request to the cold app."""
        assert self._app is not None  # `guard` has built it
        await self._app(scope, receive, send)

    def guard(self, edge: ASGIApp) -> ASGIApp:
        """Return an ASGI app that builds the cold app before it passes on the first request that needs it, or the edge
        itself if the cold app has already been built.
        """
        if self._app is not None:
            return edge

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if self._app is None and scope["type"] == "http":
                path = strip_prefix(scope["path"], scope.get("root_path") or self._root_path)
                if self._router.is_cold(path):
                    await self._build_in_thread()
            await edge(scope, receive, send)

        return guarded

    async def _build_in_thread(self) -> None:
        """Wait until the cold app has been built. Concurrent requests wait for the same attempt; if it fails, the next
        request tries again.
        """
        if self._building is None or self._building.done():
            self._building = asyncio.create_task(self._build_once())
        await asyncio.shield(self._building)

    async def _build_once(self) -> None:
        self._use(await asyncio.to_thread(self._build))

    def _use(self, cold: ColdApp) -> None:
        self._router.add_cold(cold.routes)
        self._app = cold.api
