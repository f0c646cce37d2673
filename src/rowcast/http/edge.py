"""The ASGI callable that runs the request pipeline.

Every request passes through the same steps: request id, route, cross-origin rules, key, scope, quota, method, content
type, body, idempotency, handler. `quick_path.py` contains a faster pipeline for plain prediction requests.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
from structlog.contextvars import bind_contextvars

from rowcast.access.callers import UNAUTHENTICATED, Caller
from rowcast.access.context import RequestContext
from rowcast.access.quotas import Meter
from rowcast.errors import BodyError, MethodNotAllowed, RequestError
from rowcast.events import Listener, RequestAnswered, RequestFailed
from rowcast.http import bodies, problems
from rowcast.http.authentication import Authenticator, require
from rowcast.http.bodies import RequestIds
from rowcast.http.failures import COLD_HEADERS, Failures
from rowcast.http.idempotency import Idempotency
from rowcast.http.request_log import LoggedRequest
from rowcast.http.routes import (
    API_HEADERS,
    JSON,
    LONG_BODY,
    ASGIApp,
    Headers,
    Lifespan,
    Message,
    Receive,
    Request,
    RequestRules,
    Response,
    Route,
    Router,
    Scope,
    Send,
    strip_prefix,
)
from rowcast.serving.quota import charge, charge_request

SIGNIFICANT_HEADERS = (b"content-type", b"inference-header-content-length", b"accept-encoding")
"""Requests with the same Idempotency-Key must have the same path, query and body, and the same values for these
headers."""


class ClientDisconnected(Exception):
    """The client closed the connection before it had sent the whole request."""


class Exchange(msgspec.Struct):
    """The head of a request, with the state that determines its response headers and log entry."""

    scope: Scope
    path: str
    headers: dict[bytes, bytes]
    request_id: str
    started: float
    route: Route
    extra: Headers = []
    meter: Meter | None = None
    problem: str = ""
    """The slug of the problem in the response."""
    logged: LoggedRequest | None = None
    """The log entry for this request; None if logging and tracing are disabled."""

    def ids(self) -> dict[str, str]:
        """Return the ids that appear in every log line for this request."""
        trace = bodies.trace_id(self.headers.get(b"traceparent", b""))
        return {"request_id": self.request_id, **({"trace_id": trace} if trace else {})}

    def error_form(self) -> problems.ErrorForm | None:
        """Return the dialect's error format, or None if the dialect has none or the client accepts problem details."""
        wants_problem = problems.CONTENT_TYPE in self.headers.get(b"accept", b"")
        return None if wants_problem else self.route.error_form


class Edge:
    """Applies the rules that are common to all routes."""

    def __init__(
        self,
        router: Router,
        cold: ASGIApp,
        lifespan: Lifespan,
        listen: Listener,
        authenticator: Authenticator,
        idempotency: Idempotency,
        rules: RequestRules,
        request_ids: RequestIds,
    ) -> None:
        self._router = router
        self._cold = cold
        self._lifespan = lifespan
        self._listen = listen
        self._authenticator = authenticator
        self._idempotency = idempotency
        self._max_body = rules.max_body
        self._wait_seconds = rules.wait_seconds
        self._root_path = rules.root_path
        self._request_ids = request_ids
        self._failures = Failures(listen, rules.wait_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or handle the lifespan events."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        started = time.perf_counter()
        path = strip_prefix(scope["path"], scope.get("root_path") or self._root_path)
        headers = dict(scope["headers"])
        route = self._router.find(path, scope["method"])
        logged = scope.get("state", {}).get("logged_request")
        exchange = Exchange(scope, path, headers, self._request_ids.id_of(headers), started, route, [], logged=logged)
        bind_contextvars(**exchange.ids())  # each request runs in its own context
        try:
            pattern, status = await self._answer(exchange, receive, send)
        except ClientDisconnected:
            return
        except Exception as error:
            pattern, status = route.pattern, await self._send_problem(exchange, error, send)
        seconds = time.perf_counter() - started
        if logged is not None:
            logged.finish(pattern, status, seconds)
        self._listen(RequestAnswered(pattern, scope["method"], status, seconds))

    async def _answer(self, exchange: Exchange, receive: Receive, send: Send) -> tuple[str, int]:
        """Run the pipeline; return the route's pattern and the status, for metrics."""
        scope, headers, route = exchange.scope, exchange.headers, exchange.route
        if b"origin" in headers:
            preflight = self._authenticator.preflight(headers, scope["method"])
            if preflight is not None:
                await _send(send, 204, [*preflight, (b"x-request-id", exchange.request_id.encode())], b"")
                return "preflight", 204
            exchange.extra += self._authenticator.cross_origin(headers, scope["method"])
        if b"traceparent" in headers:
            exchange.extra.append((b"traceparent", bodies.child_traceparent(headers[b"traceparent"])))
        caller = await self._admit(exchange)
        if route.handler is None:
            return await self._forward(exchange, caller, receive, send)
        _check_method(scope["method"], route)
        _check_content_type(headers, route)
        request = await self._read(exchange, caller, receive)
        response = await self._first_or_repeated(request, route, exchange)
        own = [*API_HEADERS, *response.headers, *request.response_headers, *self._last_headers(exchange)]
        await _send(send, response.status, [(b"content-type", response.content_type), *own], response.body)
        if exchange.logged is not None and request.model is not None:
            exchange.logged.use(request.model.name, request.model.version, request.rows)
        return route.pattern, response.status

    async def _admit(self, exchange: Exchange) -> Caller:
        """Authenticate the caller, check the route's scope and charge one row against the caller's quota."""
        route = exchange.route
        if route.is_probe:
            return UNAUTHENTICATED
        if route.is_public:
            return self._authenticator.recognise(exchange.headers, exchange.scope.get("client"))
        caller = self._authenticator.admit(exchange.headers, exchange.scope.get("client"))
        if route.scope is not None:
            require(caller, route.scope)
            is_prediction = route.scope == "predict"
            exchange.meter = caller.meter if is_prediction else caller.general_meter
            charging = (
                charge(caller, 1, exchange.started) if is_prediction else charge_request(caller, exchange.started)
            )
            if charging is not None:
                await charging
        return caller

    async def _read(self, exchange: Exchange, caller: Caller, receive: Receive) -> Request:
        """Read the body and the options."""
        headers, route = exchange.headers, exchange.route
        options = route.read_options(exchange.scope["query_string"])
        deadline = exchange.started + self._wait_seconds
        if b"x-request-timeout" in headers:
            deadline = min(deadline, bodies.deadline(headers[b"x-request-timeout"], exchange.started))
        body = await self._read_body(headers, receive)
        context = RequestContext(route.dialect, exchange.request_id, caller, options.entity, deadline)
        return Request(exchange.path, headers, body, context, options)

    async def _first_or_repeated(self, request: Request, route: Route, exchange: Exchange) -> Response:
        """Return the handler's response, or the stored response if the Idempotency-Key has been used before."""
        assert route.handler is not None
        key = request.headers.get(b"idempotency-key")
        if key is None or not route.is_idempotent:
            return await route.handler(request)
        handler = route.handler

        async def first() -> bytes:
            return _encode_response(await handler(request))

        # Requests with the same body are different if their query strings or significant headers differ.
        query = exchange.scope["query_string"]
        meaning = b"\0".join([query, *[request.headers.get(name, b"") for name in SIGNIFICANT_HEADERS]])
        stored, repeated = await self._idempotency.answer(
            key, request.context.caller, request.path, meaning, request.body, first
        )
        request.add_header(b"idempotency-replayed", b"true" if repeated else b"false")
        return _decode_response(stored)

    async def _forward(self, exchange: Exchange, caller: Caller, receive: Receive, send: Send) -> tuple[str, int]:
        """Forward the request to the cold app; enforce the body limit and add the common response headers."""
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                names = {name.lower() for name, _ in message["headers"]}
                missing = [header for header in COLD_HEADERS if header[0] not in names]
                message["headers"] = [*message["headers"], *missing, *self._last_headers(exchange)]
            await send(message)

        scope = exchange.scope
        # Change a copy of the scope: the server needs the original method to omit the body of a response to HEAD.
        root = scope.get("root_path") or self._root_path
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        state = {**scope.get("state", {}), "request_id": exchange.request_id, "caller": caller}
        scope = {**scope, "state": state, "root_path": root, "path": root + exchange.path, "method": method}
        if exchange.route.is_streamed:
            if LONG_BODY in scope.get("extensions", {}):
                scope["extensions"][LONG_BODY]["allow"]()
            await self._cold(scope, receive, send_with_headers)
            return self._finish_forwarding(exchange, state, status)
        body: bytes | None = await self._read_body(exchange.headers, receive)

        async def replay_body() -> Message:
            nonlocal body
            if body is None:
                return await receive()
            whole, body = body, None
            return {"type": "http.request", "body": whole, "more_body": False}

        await self._cold(scope, replay_body, send_with_headers)
        return self._finish_forwarding(exchange, state, status)

    def _finish_forwarding(self, exchange: Exchange, state: Mapping[str, Any], status: int) -> tuple[str, int]:
        if "problem" in state:
            self._listen(RequestFailed(state["problem"]))
        return exchange.route.pattern, status

    async def _send_problem(self, exchange: Exchange, error: Exception, send: Send) -> int:
        """Send a problem response and return its status."""
        status, body, headers = self._failures.answer(
            error,
            exchange.ids(),
            exchange.error_form(),
            known_path=exchange.path if exchange.path in self._router.hot else "",
            has_own_deadline=b"x-request-timeout" in exchange.headers,
        )
        await _send(send, status, [*headers, *self._last_headers(exchange)], body)
        return status

    def _last_headers(self, exchange: Exchange) -> Headers:
        """Return the headers that are added to every response."""
        quota = [] if exchange.meter is None else _parse_headers(exchange.meter.headers(exchange.started))
        return [(b"x-request-id", exchange.request_id.encode()), *exchange.extra, *quota]

    async def _read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Return the whole decompressed body; raise BodyError as soon as it exceeds the limit."""
        if int(headers.get(b"content-length", b"0")) > self._max_body:
            raise self._too_large()
        pieces: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected
            pieces.append(message.get("body", b""))
            size += len(pieces[-1])
            if size > self._max_body:
                raise self._too_large()
            more = message.get("more_body", False)
        body = b"".join(pieces)
        encoding = headers.get(b"content-encoding")
        return body if encoding is None else bodies.decompress(body, encoding, self._max_body)

    def _too_large(self) -> BodyError:
        return BodyError(f"the body is larger than {self._max_body} bytes; send fewer rows", slug="body-too-large")


async def _send(send: Send, status: int, headers: Headers, body: bytes) -> None:
    length = [] if status == 204 else [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await send({"type": "http.response.body", "body": body})


def _parse_headers(lines: bytes) -> Headers:
    """Convert HTTP header lines to ASGI headers."""
    return [(name, value) for name, _, value in (line.partition(b": ") for line in lines.split(b"\r\n")[:-1])]


def _check_method(method: str, route: Route) -> None:
    if method != route.method and (method, route.method) != ("HEAD", "GET"):
        raise MethodNotAllowed(route.method)


def _check_content_type(headers: Mapping[bytes, bytes], route: Route) -> None:
    """Raise RequestError if the route does not accept the content type. Treat `+json` types as JSON."""
    if route.method != "POST":
        return
    media = headers.get(b"content-type", JSON).partition(b";")[0].strip().lower()
    if media not in route.content_types and not (JSON in route.content_types and media.endswith(b"+json")):
        accepted = " or ".join(kind.decode() for kind in sorted(route.content_types))
        shown = media.decode("latin-1")[:100]
        raise RequestError(f"unsupported content type {shown!r}; send {accepted}", slug="unsupported-media-type")


_encode_response = msgspec.msgpack.Encoder().encode
_decode_msgpack = msgspec.msgpack.Decoder(Response).decode


def _decode_response(stored: bytes) -> Response:
    """Decode a stored response. Earlier releases stored native replies as bare JSON."""
    return Response(stored) if stored[:1] == b"{" else _decode_msgpack(stored)
