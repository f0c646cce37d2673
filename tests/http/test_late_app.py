"""A cold app that is built when the first request needs it."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rowcast.http.cold_app import ColdApp
from rowcast.http.late_app import LateColdApp
from rowcast.http.routes import Receive, Response, Route, Router, Scope, Send
from support import apps
from support.waiting import eventually_async


class Late:
    """An edge with the hot route `/hot`, and a cold app with the route `/cold`."""

    def __init__(self, failures: int = 0) -> None:
        self.builders: list[threading.Thread] = []
        self._failures = failures
        self.may_finish = threading.Event()
        self.may_finish.set()
        hot = Route(pattern="/hot", method="GET", handler=self._answer)
        self.router = Router({"/hot": hot}, [])
        self.late = LateColdApp(self.router, self._build, "/root")
        self.client = apps.client(self.late.guard(self._edge))

    async def has_begun(self) -> bool:
        """Return whether the cold app is being built, or has been built."""
        return bool(self.builders)

    def _build(self) -> ColdApp:
        self.builders.append(threading.current_thread())
        assert self.may_finish.wait(60)
        if len(self.builders) <= self._failures:
            raise RuntimeError("out of memory")
        cold = ColdApp()

        @cold.route("GET", "/cold", is_public=True, response=str)
        def cold_reply() -> str:
            return "cold"

        return cold

    async def _edge(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self.router.find(scope["path"].removeprefix("/root"), scope["method"])
        if route.handler is None:
            await self.late({**scope, "path": "/cold"}, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hot"})

    async def _answer(self, request: Any) -> Response:
        raise NotImplementedError  # the edge above answers


async def test_a_hot_route_does_not_build_the_cold_app() -> None:
    server = Late()

    replies = [await server.client.get(path) for path in ("/hot", "/root/hot")]

    assert [reply.text for reply in replies] == ["hot", "hot"]
    assert server.builders == []


async def test_requests_do_not_pass_through_a_guard_if_the_cold_app_was_built_first() -> None:
    server = Late()

    server.late.build()

    assert server.late.guard(server._edge) == server._edge


async def test_the_first_cold_requests_build_the_cold_app_once_and_not_on_the_event_loop() -> None:
    server = Late()

    replies = await asyncio.gather(*[server.client.get("/root/cold") for _ in range(4)])
    later = await server.client.get("/cold")

    assert [reply.json() for reply in [*replies, later]] == ["cold"] * 5
    assert len(server.builders) == 1
    assert server.builders[0] is not threading.current_thread()
    assert server.router.find("/cold", "GET").is_public


async def test_a_cold_app_that_cannot_be_built_is_built_by_a_later_request() -> None:
    server = Late(failures=1)

    failed, later = await server.client.get("/cold"), await server.client.get("/cold")

    assert (failed.status_code, later.json()) == (500, "cold")


async def test_a_canceled_request_does_not_stop_the_cold_app_from_being_built() -> None:
    server = Late()
    server.may_finish.clear()
    first = asyncio.create_task(server.client.get("/cold"))
    second = asyncio.create_task(server.client.get("/cold"))
    await eventually_async(server.has_begun)
    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first
    server.may_finish.set()
    assert (await second).json() == "cold"
    assert len(server.builders) == 1


def test_a_cold_app_can_be_built_at_once() -> None:
    server = Late()

    server.late.build()

    assert server.builders == [threading.current_thread()]
    assert server.router.find("/cold", "GET").pattern == "/cold"
