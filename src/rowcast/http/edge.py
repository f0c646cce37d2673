"""The outermost ASGI callable: request id, access, bounds, headers, errors and events for every route, written once.

Hot routes are answered here from a table; everything else goes to the cold app (FastAPI, whose router and middleware
would cost each prediction about 70 µs). A hot request with none of the `UNUSUAL` headers takes the short way, which
knows nothing of them; `bench/serve.py` holds its cost.
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
from structlog.contextvars import bind_contextvars

from rowcast.access.callers import Caller
from rowcast.access.quotas import Meter
from rowcast.errors import BodyError, MethodNotAllowed, Overloaded, RequestError, RowcastError, TooLate
from rowcast.events import Listener, RequestAnswered, RequestFailed
from rowcast.http import bodies, problems
from rowcast.http.authentication import Gate, Headers, require
from rowcast.http.idempotency import Once
from rowcast.http.routes import (
    JSON,
    ONLY_JSON,
    ASGIApp,
    Bounds,
    Door,
    Doors,
    HotRoute,
    Lifespan,
    Message,
    Receive,
    Reply,
    Request,
    Scope,
    Send,
)

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
UNUSUAL = frozenset((b"origin", b"traceparent", b"content-encoding", b"x-request-timeout", b"idempotency-key"))
MEANING = (b"content-type", b"inference-header-content-length", b"accept-encoding")
"""Headers that decide, beside the body, what another dialect's request asks."""
NO_EXTENSIONS: Mapping[str, Any] = {}
REPLY = "rowcast.reply"
"""The ASGI extension of `runtime/http_protocol.py`."""
# What a hot reply's head says besides its length and id; the whole head in one formatting.
HOT_HEADERS: Headers = [
    (b"content-type", JSON),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]
HOT_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    + b"".join(b"%s: %s\r\n" % header for header in HOT_HEADERS)
    + b"content-length: %d\r\nx-request-id: %b\r\n"
)
# What every other reply says unless it says otherwise itself.
COLD_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-cache"),
]

log = structlog.get_logger("rowcast.http")


class ClientGone(Exception):
    """The caller hung up before it had sent everything."""


class Arrived(msgspec.Struct):
    """What is known of a request from its head, and what its reply will say besides its answer."""

    scope: Scope
    path: str
    headers: dict[bytes, bytes]
    request_id: str
    started: float
    extra: Headers
    meter: Meter | None = None
    form: problems.Form | None = None
    """How the caller's dialect says what is wrong."""


class Edge:
    """Everything that is true of every request."""

    def __init__(
        self,
        hot: Mapping[str, HotRoute],
        cold: ASGIApp,
        lifespan: Lifespan,
        listen: Listener,
        gate: Gate,
        once: Once,
        bounds: Bounds,
        *,
        root_path: str,
        request_id_prefix: str,
        doors: Doors = lambda path: None,
    ) -> None:
        self._hot = hot
        self._doors = doors
        self._cold = cold
        self._lifespan = lifespan
        self._listen = listen
        self._gate = gate
        self._once = once
        self._max_body = bounds.max_body
        self._wait = bounds.wait_seconds
        self._root_path = root_path
        self._request_id_prefix = request_id_prefix
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or run the lifespan."""
        if scope["type"] != "http":
            await self._not_http(scope, receive, send)
            return
        started = time.perf_counter()
        path: str = scope["path"]
        if root := scope.get("root_path") or self._root_path:
            path = _below(path, root)
        headers = dict(scope["headers"])
        request_id = self._request_id(headers)
        route = self._hot.get(path)
        if route is None or scope["method"] != route.method or not UNUSUAL.isdisjoint(headers):
            await self._other(Arrived(scope, path, headers, request_id, started, []), route, receive, send)
            return
        # HOT from here on.
        meter = None
        try:
            caller = self._gate.admit(headers, scope)
            require(caller, route.scope)
            meter = caller.meter
            if meter is not None:
                meter.spend(1, started)
            if headers.get(b"content-type", JSON) != JSON:
                _expect_json(headers[b"content-type"])
            message = await receive()
            body = message.get("body", b"")
            if message.get("more_body") or len(body) > self._max_body or message["type"] != "http.request":
                body = await self._rest_of_body(message, receive, headers)
            request = Request(path, scope["query_string"], headers, body, request_id, caller, started + self._wait)
            reply = await route.answer(request)
        except ClientGone:
            return
        except Exception as error:
            arrived = Arrived(scope, path, headers, request_id, started, [], meter)
            status = await self._refuse(arrived, error, send)
            self._listen(RequestAnswered(route.name, route.method, status, time.perf_counter() - started))
            return
        whole = (scope.get("extensions") or NO_EXTENSIONS).get(REPLY)
        head = _hot_head(request, len(reply), started)
        if whole is None or not whole(head, reply):
            await _send(send, 200, _listed(head), reply)
        self._listen(RequestAnswered(route.name, route.method, 200, time.perf_counter() - started))

    async def _not_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    def _request_id(self, headers: dict[bytes, bytes]) -> str:
        """The caller's id for this request where it can be used, else one of ours."""
        given = headers.get(b"x-request-id")
        if given is not None and REQUEST_ID(given):
            return given.decode()
        return f"{self._request_id_prefix}-{next(self._numbers):x}"

    async def _other(self, arrived: Arrived, route: HotRoute | None, receive: Receive, send: Send) -> None:
        """Whatever is not the short way."""
        scope, headers = arrived.scope, arrived.headers
        door = self._doors(arrived.path) if route is None else None
        known = route or door
        name = known.name if known else "unmatched"
        if door is not None and problems.CONTENT_TYPE not in headers.get(b"accept", b""):
            arrived.form = door.form
        bind_contextvars(**_ids(arrived))  # a request has a context of its own
        method = scope["method"]
        try:
            if b"origin" in headers:
                answer = self._gate.preflight(headers, method)
                if answer is not None:
                    await _send(send, 204, [*answer, (b"x-request-id", arrived.request_id.encode())], b"")
                    self._listen(RequestAnswered("preflight", method, 204, time.perf_counter() - arrived.started))
                    return
                arrived.extra += self._gate.cross_origin(headers, method)
            if b"traceparent" in headers:
                arrived.extra.append((b"traceparent", bodies.traced(headers[b"traceparent"])))
            if door is not None:
                status = await self._open(arrived, door, receive, send)
            elif route is not None:
                status = await self._answer(arrived, route, receive, send)
            else:
                status, name = await self._forward(arrived, receive, send)
        except ClientGone:
            return
        except Exception as error:
            status = await self._refuse(arrived, error, send)
        self._listen(RequestAnswered(name, method, status, time.perf_counter() - arrived.started))

    async def _answer(self, arrived: Arrived, route: HotRoute, receive: Receive, send: Send) -> int:
        """A hot route, with everything that a request may carry."""
        caller = self._gate.admit(arrived.headers, arrived.scope)
        require(caller, route.scope)
        self._spend(arrived, caller)
        if arrived.scope["method"] != route.method:
            raise MethodNotAllowed(route.method)
        _expect_json(arrived.headers.get(b"content-type", JSON))
        request = await self._request(arrived, caller, receive)
        reply = await self._first_or_again(request, lambda: route.answer(request), request.query)
        await _send(send, 200, [*HOT_HEADERS, *self._last_headers(arrived), *request.notes], reply)
        return 200

    async def _open(self, arrived: Arrived, door: Door, receive: Receive, send: Send) -> int:
        """A route of another dialect."""
        caller = Caller() if door.open else self._gate.admit(arrived.headers, arrived.scope)
        if door.scope is not None:
            require(caller, door.scope)
            self._spend(arrived, caller)
        method = arrived.scope["method"]
        if method != door.method and (method, door.method) != ("HEAD", "GET"):
            raise MethodNotAllowed(door.method)
        if method == "POST":
            _expect(arrived.headers.get(b"content-type", JSON), door.content_types)
        request = await self._request(arrived, caller, receive)

        async def answer() -> bytes:
            return _pack_reply(await door.answer(request))

        if door.scope == "predict":
            # The same bytes mean something else when these differ.
            meant = b"\0".join([request.query, *[arrived.headers.get(name, b"") for name in MEANING]])
            reply = _unpack_reply(await self._first_or_again(request, answer, meant))
        else:
            reply = await door.answer(request)
        own = [header for header in HOT_HEADERS if header[0] != b"content-type"]
        headers = [(b"content-type", reply.content_type), *own, *reply.headers, *request.notes]
        await _send(send, reply.status, [*headers, *self._last_headers(arrived)], reply.body)
        return reply.status

    async def _request(self, arrived: Arrived, caller: Caller, receive: Receive) -> Request:
        """The request, read to its end, with everything that it may carry."""
        headers, query = arrived.headers, arrived.scope["query_string"]
        deadline = arrived.started + self._wait
        if b"x-request-timeout" in headers:
            deadline = min(deadline, bodies.deadline(headers[b"x-request-timeout"], arrived.started))
        body = await self._body(arrived, receive)
        return Request(arrived.path, query, headers, body, arrived.request_id, caller, deadline)

    async def _first_or_again(self, request: Request, first: Callable[[], Awaitable[bytes]], meant: bytes) -> bytes:
        """The answer; with an Idempotency-Key, that of the first such request."""
        key = request.headers.get(b"idempotency-key")
        if key is None:
            return await first()
        reply, again = await self._once.answer(key, request.caller, request.path, meant, request.body, first)
        request.note(b"idempotency-replayed", b"true" if again else b"false")
        return reply

    async def _forward(self, arrived: Arrived, receive: Receive, send: Send) -> tuple[int, str]:
        """Let the cold app answer, inside the same bounds and with the same headers; its status and route."""
        scope, path = arrived.scope, arrived.path
        if self._gate.is_open(path):
            caller = self._gate.recognise(arrived.headers)
        else:
            caller = self._gate.admit(arrived.headers, scope)
            if self._gate.check(caller, scope["method"], path) is not None:
                self._spend(arrived, caller)
        status = 500
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                given = message["headers"]
                names = {name.lower() for name, _ in given}
                missing = [header for header in COLD_HEADERS if header[0] not in names]
                message["headers"] = [*given, *missing, *self._last_headers(arrived)]
            await send(message)

        # A copy: the server looks at its own scope to know that a HEAD gets no body.
        root = scope.get("root_path") or self._root_path
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        state = {**scope.get("state", {}), "request_id": arrived.request_id, "caller": caller}
        scope = {**scope, "state": state, "root_path": root, "path": root + path, "method": method}
        body: bytes | None = await self._body(arrived, receive)

        async def replay_body() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        try:
            await self._cold(scope, replay_body, send_with_headers)
        except Exception as error:
            if begun:
                raise
            status = await self._refuse(arrived, error, send)
        if "problem" in state:
            self._listen(RequestFailed(state["problem"]))
        return status, getattr(scope.get("route"), "path", "unmatched")

    async def _refuse(self, arrived: Arrived, error: Exception, send: Send) -> int:
        """Answer with a problem; its status."""
        if isinstance(error, TooLate) and b"x-request-timeout" not in arrived.headers:
            error = Overloaded(f"the request waited for more than {self._wait:g} s and was not scored; try again")
        status, reply, extra = problems.answer(error, arrived.request_id, arrived.form)
        if not isinstance(error, RowcastError) or status == 500:
            known = {"path": arrived.path} if arrived.path in self._hot else {}  # others hold what callers like
            log.error("request failed", **_ids(arrived), **known, exc_info=error)
        self._listen(RequestFailed(problems.slug(error)))
        await _send(send, status, [*extra, *COLD_HEADERS, *self._last_headers(arrived)], reply)
        return status

    def _last_headers(self, arrived: Arrived) -> Headers:
        """What every reply says of its request."""
        quota = [] if arrived.meter is None else _listed(arrived.meter.headers(arrived.started))
        return [(b"x-request-id", arrived.request_id.encode()), *arrived.extra, *quota]

    def _spend(self, arrived: Arrived, caller: Caller) -> None:
        arrived.meter = caller.meter
        if caller.meter is not None:
            caller.meter.spend(1, arrived.started)

    async def _body(self, arrived: Arrived, receive: Receive) -> bytes:
        """The body, unpacked."""
        body = await self._rest_of_body(await receive(), receive, arrived.headers)
        encoding = arrived.headers.get(b"content-encoding")
        return body if encoding is None else bodies.unpacked(body, encoding, self._max_body)

    async def _rest_of_body(self, message: Message, receive: Receive, headers: dict[bytes, bytes]) -> bytes:
        """The whole body that `message` begins; refused as soon as it is known to be too large."""
        if int(headers.get(b"content-length", b"0")) > self._max_body:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGone
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body:
                raise self._too_large()
            if not message.get("more_body"):
                return b"".join(pieces)
            message = await receive()

    def _too_large(self) -> BodyError:
        return BodyError(f"the body is larger than {self._max_body} bytes; send fewer rows", slug="body-too-large")


def _ids(arrived: Arrived) -> dict[str, str]:
    """By what a line of the log is found again."""
    trace = bodies.trace_id(arrived.headers.get(b"traceparent", b""))
    return {"request_id": arrived.request_id, **({"trace_id": trace} if trace else {})}


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


def _hot_head(request: Request, length: int, now: float) -> bytes:
    """The head of a hot reply as it goes over the wire, without the blank line at its end. HOT."""
    head = HOT_HEAD % (length, request.request_id.encode())
    if request.caller.meter is not None:
        head += request.caller.meter.headers(now)
    if request.notes:
        head += b"".join([b"%b: %b\r\n" % header for header in request.notes])
    return head


def _listed(head: bytes) -> Headers:
    """Headers as ASGI has them, from lines as they go over the wire; the first line and the length left out."""
    pairs = [line.split(b": ", 1) for line in head.split(b"\r\n")[:-1] if not line.startswith(b"HTTP/1.1 ")]
    return [(name, value) for name, value in pairs if name != b"content-length"]


def _below(path: str, root: str) -> str:
    """The path without the prefix, which the server puts before it, and a proxy that takes nothing away once more."""
    for _ in range(2):
        if path.startswith(root + "/") or path == root:
            path = path[len(root) :] or "/"
    return path


_pack_reply = msgspec.msgpack.Encoder().encode
_unpack_reply = msgspec.msgpack.Decoder(Reply).decode


def _expect(declared: bytes, content_types: frozenset[bytes]) -> None:
    """One of these content types, or one that is JSON where JSON is among them; RequestError says what it was."""
    media = declared.partition(b";")[0].strip().lower()
    if media not in content_types and not (JSON in content_types and media.endswith(b"+json")):
        listed = " or ".join(kind.decode() for kind in sorted(content_types))
        shown = media.decode("latin-1")[:100]
        raise RequestError(f"the content type is {shown!r}; send {listed}", slug="unsupported-media-type")


def _expect_json(declared: bytes) -> None:
    """Some content type that is JSON; RequestError says what it was."""
    _expect(declared, ONLY_JSON)
