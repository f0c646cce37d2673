"""The outermost ASGI callable: request id, bounds, headers, errors and events for every route, written once.

Hot routes are answered here from a table; everything else goes to the cold app (FastAPI, whose router and middleware
would cost each prediction about 70 µs).
"""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import msgspec
import structlog

from rowcast.domain.events import Answered, Listener
from rowcast.errors import BodyError, MethodNotAllowed, RequestError, RowcastError
from rowcast.web import problems

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
Lifespan = Callable[[Receive, Send], Awaitable[None]]

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
NOSNIFF = (b"x-content-type-options", b"nosniff")
JSON = b"application/json"
JSON_ONLY: Headers = [(b"content-type", JSON)]

log = structlog.get_logger("rowcast.web")


class Request(msgspec.Struct, frozen=True):
    """A request with its body read, inside all bounds."""

    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    request_id: str


class HotRoute(msgspec.Struct, frozen=True):
    """A route that is answered with JSON and without the cold app; `name` is its pattern, for metrics."""

    name: str
    method: str
    answer: Callable[[Request], Awaitable[bytes]]


class ClientGone(Exception):
    """The caller hung up before it had sent everything."""


class Edge:
    """Everything that is true of every request."""

    def __init__(
        self,
        hot: Mapping[str, HotRoute],
        cold: ASGIApp,
        lifespan: Lifespan,
        listen: Listener,
        *,
        max_body: int,
        root_path: str,
        request_id_prefix: str,
    ) -> None:
        self._hot = hot
        self._cold = cold
        self._lifespan = lifespan
        self._listen = listen
        self._max_body = max_body
        self._root_path = root_path
        self._request_id_prefix = request_id_prefix
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, or run the lifespan."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1000})
            return
        started = time.perf_counter()
        path: str = scope["path"]
        if root := scope.get("root_path") or self._root_path:
            path = _below(path, root)
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = (
            given.decode()
            if given is not None and REQUEST_ID(given)
            else f"{self._request_id_prefix}-{next(self._numbers):x}"
        )
        route = self._hot.get(path)
        if route is None:
            await self._forward(scope, receive, send, path, headers, request_id, started)
            return
        try:
            if scope["method"] != route.method:
                raise MethodNotAllowed(route.method)
            if headers.get(b"content-type", JSON) != JSON:
                _expect_json(headers[b"content-type"])
            message = await receive()
            body = message.get("body", b"")
            if message.get("more_body") or len(body) > self._max_body or message["type"] != "http.request":
                body = await self._rest_of_body(message, receive, headers)
            reply = await route.answer(Request(path, scope["query_string"], headers, body, request_id))
            status, extra = 200, JSON_ONLY
        except ClientGone:
            return
        except Exception as error:
            status, reply, extra = self._explain(error, request_id, path)
        length = (b"content-length", b"%d" % len(reply))
        # uvicorn checks each header with two regular expressions: three headers a reply, no more
        sent = [*extra, length, (b"x-request-id", request_id.encode())]
        await send({"type": "http.response.start", "status": status, "headers": sent})
        await send({"type": "http.response.body", "body": reply})
        self._listen(Answered(route.name, route.method, status, time.perf_counter() - started))

    async def _forward(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: str,
        headers: dict[bytes, bytes],
        request_id: str,
        started: float,
    ) -> None:
        """Let the cold app answer, inside the same bounds and with the same headers."""
        status = 500
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), NOSNIFF]
            await send(message)

        # A copy: the server looks at its own scope to know that a HEAD gets no body.
        root = scope.get("root_path") or self._root_path
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        state = {**scope.get("state", {}), "request_id": request_id}
        scope = {**scope, "state": state, "root_path": root, "path": root + path, "method": method}
        try:
            body: bytes | None = await self._rest_of_body(await receive(), receive, headers)

            async def replay_body() -> Message:
                nonlocal body
                if body is None:
                    return await receive()
                whole, body = body, None
                return {"type": "http.request", "body": whole, "more_body": False}

            await self._cold(scope, replay_body, send_with_headers)
        except ClientGone:
            return
        except Exception as error:
            if begun:
                raise
            status, reply, extra = self._explain(error, request_id, path)
            extra.append((b"content-length", b"%d" % len(reply)))
            await send_with_headers({"type": "http.response.start", "status": status, "headers": extra})
            await send_with_headers({"type": "http.response.body", "body": reply})
        route = getattr(scope.get("route"), "path", "unmatched")
        self._listen(Answered(route, scope["method"], status, time.perf_counter() - started))

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

    def _explain(self, error: Exception, request_id: str, path: str) -> tuple[int, bytes, Headers]:
        answer = problems.answer(error, request_id)
        if not isinstance(error, RowcastError) or answer[0] == 500:
            log.error("request failed", request_id=request_id, path=path, exc_info=error)
        return answer


def _below(path: str, root: str) -> str:
    """The path without the prefix, which the server puts before it, and a proxy that takes nothing away once more."""
    for _ in range(2):
        if path.startswith(root + "/") or path == root:
            path = path[len(root) :] or "/"
    return path


def _expect_json(declared: bytes) -> None:
    """Some content type that is JSON; RequestError says what it was."""
    media = declared.partition(b";")[0].strip().lower()
    if media != JSON and not media.endswith(b"+json"):
        shown = media.decode("latin-1")[:100]
        raise RequestError(f"the content type is {shown!r}; send application/json", slug="unsupported-media-type")
