"""Requests one by one, for the access log and for spans; stands before the edge only where one of them is wanted.

What happens during a request finds its `Seen` through a context variable: the edge's event says route and status, the
predictor which model was asked for how many rows. None of it holds a row, a query string or a key.
"""

from __future__ import annotations

import itertools
import os
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

import msgspec
import structlog

from rowcast.events import Event, Listener, RequestAnswered
from rowcast.http import bodies
from rowcast.http.edge import REQUEST_ID
from rowcast.http.routes import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from rowcast.adapters.telemetry.otel import Spans

log = structlog.get_logger("rowcast.access")


class Seen(msgspec.Struct):
    """One request, as much of it as may be told."""

    request_id: str
    method: str
    traceparent: bytes
    """As it came."""
    route: str = "unmatched"
    status: int = 499
    """499: the caller hung up."""
    seconds: float = 0.0
    model: str = ""
    version: int = 0
    rows: int = 0


_now: ContextVar[Seen | None] = ContextVar("seen", default=None)


def note_rows(model: str, version: int, rows: int) -> None:
    """The request at hand asks this model for so many rows."""
    seen = _now.get()
    if seen is not None:
        seen.model, seen.version = model, version
        seen.rows += rows


def hearing(listen: Listener) -> Listener:
    """A listener that also tells the request at hand how it was answered."""

    def heard(event: Event) -> None:
        listen(event)
        seen = _now.get()
        if seen is not None and type(event) is RequestAnswered:
            seen.route, seen.status, seen.seconds = event.route, event.status, event.seconds

    return heard


class Watched:
    """The edge, with somebody looking on."""

    def __init__(self, app: ASGIApp, *, access_log: bool, spans: Spans | None) -> None:
        self._app = app
        self._access_log = access_log
        self._spans = spans
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the edge answer, then tell of it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        request_id = given if REQUEST_ID(given) else f"{self._prefix}-{next(self._numbers):x}".encode()
        if given is not request_id:
            scope = {**scope, "headers": [*scope["headers"], (b"x-request-id", request_id)]}
        seen = Seen(request_id.decode(), scope["method"], headers.get(b"traceparent", b""))
        span = self._spans.begin(seen.method, seen.traceparent, time.time_ns()) if self._spans is not None else None
        token = _now.set(seen)
        try:
            answering = _with_traceparent(send, span.traceparent) if span is not None and seen.traceparent else send
            await self._app(scope, receive, answering)
        finally:
            _now.reset(token)
            if span is not None:
                span.end(seen.method, seen.route, seen.status, (seen.model, seen.version, seen.rows))
            if self._access_log:
                self._tell(seen)

    def _tell(self, seen: Seen) -> None:
        trace = bodies.trace_id(seen.traceparent)
        log.info(
            "request",
            request_id=seen.request_id,
            method=seen.method,
            route=seen.route,
            status=seen.status,
            milliseconds=round(seen.seconds * 1000, 3),
            **({"trace_id": trace} if trace else {}),
            **({"model": seen.model, "version": seen.version, "rows": seen.rows} if seen.rows else {}),
        )


def _with_traceparent(send: Send, ours: bytes) -> Send:
    """The reply names the span that is exported, not one that the edge made up."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [header for header in message["headers"] if header[0] != b"traceparent"]
            message["headers"] = [*others, (b"traceparent", ours)]
        await send(message)

    return sending
