"""The hot path: a faster version of the edge's pipeline for plain single-row requests.

It performs the same steps as `Edge`, except for steps that plain requests never need. It is faster because it creates
no ASGI scope, task or future (`bench/serve.py`). Only Rowcast's own HTTP protocol class calls it; on other ASGI
servers, every request takes the general path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from rowcast.access.context import RequestContext
from rowcast.access.quotas import Meter
from rowcast.events import Listener, RequestAnswered
from rowcast.http import problems
from rowcast.http.authentication import Authenticator, require
from rowcast.http.bodies import RequestIds
from rowcast.http.failures import Failures
from rowcast.http.routes import API_HEADERS, JSON, Request, RequestRules, Route, Router, strip_prefix
from rowcast.serving.quota import charge

UNUSUAL_HEADERS = frozenset(
    (b"origin", b"traceparent", b"content-encoding", b"x-request-timeout", b"idempotency-key", b"expect", b"upgrade")
)
"""The headers that only the general path supports."""
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
    + b"".join(b"%b: %b\r\n" % header for header in API_HEADERS)
    + b"content-length: %d\r\nx-request-id: %b\r\n"
)

log = structlog.get_logger("rowcast.http")

SendResponse = Callable[[bytes, bytes], None]
"""Sends a response, given its head (status line and header lines) and its body. Never raises an exception."""


class QuickPath:
    """Answers plain prediction requests and leaves all other requests to the general path."""

    def __init__(
        self,
        router: Router,
        authenticator: Authenticator,
        listen: Listener,
        rules: RequestRules,
        request_ids: RequestIds,
    ) -> None:
        self._router = router
        self._admit = authenticator.admit
        self._listen = listen
        self._rules = rules
        self._root_path = rules.root_path
        self._max_body = rules.max_body
        self._wait_seconds = rules.wait_seconds
        self._request_id = request_ids.id_of
        self._failures = Failures(listen, rules.wait_seconds)

    def find(self, path: str, method: bytes, headers: Mapping[bytes, bytes]) -> Route | None:
        """Return the route of a plain prediction request; return None for any other request.

        Hot path.
        """
        root = self._root_path
        # `strip_prefix` expects an ASGI path, which starts with the root path.
        route = self._router.hot.get(strip_prefix(root + path, root) if root else path)
        if route is None or route.quick is None or method != b"POST":
            return None
        if not UNUSUAL_HEADERS.isdisjoint(headers) or headers.get(b"content-type", JSON) != JSON:
            return None
        return route

    def answer(
        self,
        route: Route,
        headers: dict[bytes, bytes],
        query: bytes,
        body: bytes,
        client: tuple[str, int] | None,
        send: SendResponse,
        *,
        is_alone: bool = False,
    ) -> bool:
        """Answer a plain prediction request by calling `send`, now or in a later event-loop iteration.

        Hot path. Return False if the general path must handle the request; in that case, nothing has been sent or
        charged. If `is_alone` is true, no other client is sending requests, so the row is scored
        immediately.
        """
        quick = route.quick
        if quick is None or len(body) > self._max_body or not quick.accepts(query, body):
            return False
        answer = QuickAnswer(self, route, time.perf_counter(), self._request_id(headers), send)
        try:
            options = route.read_options(query)
            caller = self._admit(headers, client)
            require(caller, route.scope)
            if caller.meter is not None:
                if not caller.meter.is_immediate:
                    return False
                answer.meter = caller.meter
                charge(caller, 1, answer.started)
            context = RequestContext(
                route.dialect, answer.request_id, caller, options.entity, answer.started + self._wait_seconds
            )
            answer.request = Request(route.pattern, headers, body, context, options, is_alone=is_alone)
            quick.submit(answer.request, answer)
        except Exception as error:
            answer.set_exception(error)
        return True

    def finish(self, answer: QuickAnswer, reply: bytes) -> None:
        """Send a reply. Hot path."""
        now = time.perf_counter()
        head = HEAD % (len(reply), answer.request_id.encode())
        if answer.meter is not None:
            head += answer.meter.headers(answer.started)
        if answer.request is not None and answer.request.response_headers:
            head += b"".join([b"%b: %b\r\n" % header for header in answer.request.response_headers])
        answer.send(head, reply)
        self._listen(RequestAnswered(answer.route.pattern, "POST", 200, now - answer.started))

    def fail(self, answer: QuickAnswer, error: Exception) -> None:
        """Send a problem response."""
        status, body, headers = self._failures.answer(
            error, {"request_id": answer.request_id}, None, known_path=answer.route.pattern, has_own_deadline=False
        )
        headers += [(b"content-length", b"%d" % len(body)), (b"x-request-id", answer.request_id.encode())]
        head = b"".join([problems.STATUS_LINES[status], *[b"%b: %b\r\n" % header for header in headers]])
        if answer.meter is not None:
            head += answer.meter.headers(answer.started)
        answer.send(head, body)
        self._listen(RequestAnswered(answer.route.pattern, "POST", status, time.perf_counter() - answer.started))


class QuickAnswer:
    """Replaces a future: receives the reply to a plain request and sends it."""

    __slots__ = ("_is_done", "_quick_path", "meter", "request", "request_id", "route", "send", "started")

    def __init__(
        self, quick_path: QuickPath, route: Route, started: float, request_id: str, send: SendResponse
    ) -> None:
        self._quick_path = quick_path
        self.route = route
        self.started = started
        self.request_id = request_id
        self.send = send
        self.meter: Meter | None = None
        self.request: Request | None = None
        self._is_done = False

    def done(self) -> bool:
        """Return whether the response has been sent."""
        return self._is_done

    def set_result(self, reply: Any, /) -> None:
        """Send the reply. Hot path."""
        self._is_done = True
        try:
            self._quick_path.finish(self, reply)
        except Exception as error:  # a failure must not affect other requests in the batch
            self.set_exception(error)

    def set_exception(self, error: Exception, /) -> None:
        """Send a problem response; never raise an exception."""
        self._is_done = True
        try:
            self._quick_path.fail(self, error)
        except Exception:
            log.exception("cannot answer a request", request_id=self.request_id)
