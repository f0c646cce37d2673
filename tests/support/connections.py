"""HTTP connections without sockets, and a route whose reply shows which code path handled the request."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from structlog.contextvars import get_contextvars
from uvicorn.server import ServerState

from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.events import Event
from rowcast.http.authentication import AccessRules, Authenticator
from rowcast.http.bodies import RequestIds
from rowcast.http.edge import Edge
from rowcast.http.idempotency import Idempotency
from rowcast.http.quick_path import QuickPath
from rowcast.http.routes import Request, RequestRules, Response, Route, Router, any_options
from rowcast.runtime.connections import ConnectionLimits
from rowcast.runtime.http_protocol import Connection, protocol_class
from rowcast.serving.ports import Answer


class MemoryTransport(asyncio.Transport):
    """Collects the written bytes. Like uvloop, it raises an error if data is written after the connection is lost."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 40000), "sockname": ("127.0.0.1", 80)})
        self.written = b""
        self.is_reading = True
        self.is_lost = False
        self.write_limit: int | None = None
        self._is_closing = False

    def write(self, data: Any) -> None:
        if self.is_lost:
            raise RuntimeError("the transport is closed")
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Store the limit; this transport never buffers."""
        self.write_limit = high

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        self._is_closing = True

    def abort(self) -> None:
        self.close()
        self.is_lost = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


class HeldRequests:
    """A quick handler that either replies to every request immediately or holds it until the test replies."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.replies_at_once = False

    def accepts(self, query: bytes, body: bytes) -> bool:
        """As the native dialect does, return False for batches and for requests with options."""
        return b'"rows"' not in body and not query

    def submit(self, request: Request, answer: Answer) -> None:
        """Hold the request; raise an error if the body is `fail`."""
        if request.body == b"fail":
            raise ZeroDivisionError
        self.answers.append(answer)
        if self.replies_at_once:
            answer.set_result(b"quick")


class Server:
    """A server process without sockets. On the general path, replies from `/predict` start with `general`."""

    def __init__(self, limits: ConnectionLimits | None = None, *, root_path: str = "", max_body: int = 200_000) -> None:
        self.held = HeldRequests()
        self.events: list[Event] = []
        self.log_contexts: list[dict[str, Any]] = []
        """The log context of each request to `/predict` on the general path."""
        self.gate = asyncio.Event()
        """Requests to `/wait` receive a reply once this event is set."""
        routes = {
            "/predict": _route("/predict", self._answer, self.held),
            "/wait": _route("/wait", self._wait, None),
        }
        router, rules, ids = Router(routes, []), RequestRules(max_body, 60, root_path), RequestIds("made")
        access = Authenticator(MemoryKeys(), AccessRules(hosts=frozenset("x")))
        idempotency = Idempotency(MemoryIdempotencyStore(), 60)
        edge = Edge(router, _no_app, _no_lifespan, self.events.append, access, idempotency, rules, ids)
        self.quick_path = QuickPath(router, access, self.events.append, rules, ids)
        self.protocol = protocol_class(limits or ConnectionLimits(), self.quick_path)
        self.config = uvicorn.Config(edge, log_config=None, lifespan="off", root_path=root_path)
        self.state = ServerState()
        self.state.default_headers = [(b"date", b"today")]

    def connect(self) -> tuple[Connection, MemoryTransport]:
        """Return a new connection and its transport."""
        connection = self.protocol(self.config, self.state, {}, asyncio.get_running_loop())
        transport = MemoryTransport()
        connection.connection_made(transport)
        return connection, transport

    async def _answer(self, request: Request) -> Response:
        self.log_contexts.append(get_contextvars())
        return Response(b"general " + request.body[-8:])

    async def _wait(self, request: Request) -> Response:
        await self.gate.wait()
        return Response(b"waited")


def _route(pattern: str, handler: Any, quick: HeldRequests | None) -> Route:
    return Route(
        pattern=pattern,
        method="POST",
        handler=handler,
        scope="predict",
        is_idempotent=True,
        read_options=any_options,
        quick=quick,
    )


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def _no_lifespan(receive: Any, send: Any) -> None:
    """Do nothing, because nothing needs to be started."""


def post(body: bytes = b"{}", *headers: bytes, target: bytes = b"/predict", version: bytes = b"1.1") -> bytes:
    """Return the bytes of a POST request."""
    lines = [b"POST %b HTTP/%b" % (target, version), b"host: x", b"content-length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
