"""The request log and tracing. `RequestLog` wraps the edge only if logging or tracing is enabled.

The log and the spans never contain rows, query strings or API keys.
"""

from __future__ import annotations

import itertools
import os
import time
from typing import Any, Protocol

import structlog

from rowcast.http import bodies
from rowcast.http.routes import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger("rowcast.access")

CLIENT_CLOSED = 499
"""The status that is logged if the client closes the connection before it receives a response."""


class Span(Protocol):
    """The tracing span of one request."""

    traceparent: bytes
    """The value of the `traceparent` header, which identifies the span."""

    def end(self, logged: LoggedRequest) -> None:
        """Record the result of the request and end the span."""
        ...


class Tracer(Protocol):
    """Starts spans and exports them to a collector."""

    def begin(self, method: str, traceparent: bytes, started: int) -> Span:
        """Start a child of the span that the client's `traceparent` identifies.

        `started` is in nanoseconds since the Unix epoch.
        """
        ...

    def stop(self) -> None:
        """Export the remaining spans."""
        ...


class LoggedRequest:
    """The log entry for one request. The edge fills in the result."""

    def __init__(self, request_id: str, method: str, traceparent: bytes) -> None:
        self.request_id = request_id
        self.method = method
        self.traceparent = traceparent
        self.route = "unmatched"
        self.status = CLIENT_CLOSED
        self.seconds = 0.0
        self.model = ""
        self.version = 0
        self.rows = 0

    def use(self, model: str, version: int, rows: int) -> None:
        """Record the model and the number of rows that it scored."""
        self.model, self.version, self.rows = model, version, rows

    def finish(self, route: str, status: int, seconds: float) -> None:
        """Record the result."""
        self.route, self.status, self.seconds = route, status, seconds

    def write(self) -> None:
        """Write one log line."""
        trace = bodies.trace_id(self.traceparent)
        log.info(
            "request",
            request_id=self.request_id,
            method=self.method,
            route=self.route,
            status=self.status,
            milliseconds=round(self.seconds * 1000, 3),
            **({"trace_id": trace} if trace else {}),
            **({"model": self.model, "version": self.version, "rows": self.rows} if self.rows else {}),
        )


class RequestLog:
    """Logs and traces every request to an application."""

    def __init__(self, app: ASGIApp, *, access_log: bool, tracer: Tracer | None) -> None:
        self._app = app
        self._access_log = access_log
        self._tracer = tracer
        self._prefix = os.urandom(6).hex()
        self._numbers = itertools.count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application, then log the request and end its span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        sent = headers.get(b"x-request-id", b"")
        request_id = sent if bodies.REQUEST_ID(sent) else f"{self._prefix}-{next(self._numbers):x}".encode()
        logged = LoggedRequest(request_id.decode(), scope["method"], headers.get(b"traceparent", b""))
        state: dict[str, Any] = {**scope.get("state", {}), "logged_request": logged}
        scope = {**scope, "state": state}
        if sent is not request_id:
            scope["headers"] = [*scope["headers"], (b"x-request-id", request_id)]
        span = None
        if self._tracer is not None:
            span = self._tracer.begin(logged.method, logged.traceparent, time.time_ns())
        try:
            with_span = _with_traceparent(send, span.traceparent) if span is not None and logged.traceparent else send
            await self._app(scope, receive, with_span)
        finally:
            if span is not None:
                span.end(logged)
            if self._access_log:
                logged.write()


def _with_traceparent(send: Send, traceparent: bytes) -> Send:
    """Send the `traceparent` of the exported span instead of the one that the edge generated."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            others = [header for header in message["headers"] if header[0] != b"traceparent"]
            message["headers"] = [*others, (b"traceparent", traceparent)]
        await send(message)

    return sending
