"""HTTP/1.1: uvicorn's httptools protocol with additional limits and a quick path for plain prediction requests.

This module limits what uvicorn does not limit: the time within which a request must arrive, the lifetime of an idle
connection, the number of connections, and the size of a request head. All connections are checked once a second,
whereas uvicorn sets and cancels a timer for every request.

A plain prediction request needs no ASGI scope, task or future: the protocol passes it to `QuickPath`, which sends the
reply through a callback. `bench/serve.py` measures the time saved. Under any other ASGI server, every request takes the
general path. `tests/runtime/test_http_protocol.py` fails if the parts of uvicorn used here change.
"""

from __future__ import annotations

import asyncio
import math
import urllib.parse
from contextvars import Context
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from rowcast.errors import BodyError, Overloaded, RequestError, RowcastError
from rowcast.http import problems
from rowcast.http.quick_path import QuickPath
from rowcast.http.routes import LONG_BODY, Headers
from rowcast.runtime.connections import SWEEP_SECONDS, ConnectionLimits, ConnectionPool
from rowcast.runtime.cycles import Cycle, CycleOwner, QuickCycle
from rowcast.runtime.known_heads import KnownHead
from rowcast.runtime.request_heads import check_head, remove_upgrade

MAX_QUICK_BODY = HIGH_WATER_LIMIT
"""Requests with larger bodies take the general path, which authenticates the caller before it buffers the body."""
LONG_BODY_SECONDS = 3600.0
"""The time limit for uploading a table."""


class Connection(CycleOwner):
    """One connection. It expires at the time `due`; every request and response extends this deadline."""

    # `protocol_class` sets `pool` and `quick_path`.
    quick_path: QuickPath | None
    cycle: Any  # a Cycle, a QuickCycle or None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.due = math.inf
        self.idle = True
        self.is_lost = False
        self._in_head = False
        self._head_bytes = 0
        self._long_body_until = 0.0
        """The deadline for a body that may take longer than `receive_seconds` to arrive; 0 for other bodies."""
        self._host: bytes | None = None
        """The Host header of the latest request that has passed `check_head`."""
        self._was_alone = False
        self._is_refused = False
        """Whether a request has been refused. If so, nothing after it is parsed."""
        self._head_without_upgrade = b""
        """The head of a request that offers to upgrade the connection. It is parsed again without the offer."""
        self._limits = self.pool.limits
        self._busy_poll, self._known_heads = self.pool.busy_poll, self.pool.known_heads
        self._time = self.loop.time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept the connection, or refuse it if there are too many connections."""
        super().connection_made(transport)
        self.due = self._time() + self._limits.idle_seconds
        if not self.pool.add(self):
            self._refuse(Overloaded("the server is overloaded: too many connections; retry after 1 s"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Clean up after either side has closed the connection."""
        self.pool.remove(self)
        self.is_lost = True
        super().connection_lost(exc)

    def expire(self) -> None:
        """Close an expired connection; if a request is incomplete, send an error response first."""
        if self.transport.is_closing():
            self.transport.abort()
        elif self.idle or self.flow.write_paused:
            self.transport.close()
        elif not self._owes_responses():
            self._refuse(BodyError("the request took too long to arrive", slug="request-timeout"))
        self.due = self._time() + SWEEP_SECONDS

    def data_received(self, data: bytes) -> None:
        """Parse data from the client; refuse a request if it is invalid or its head is too large. Hot path."""
        if self._is_refused:
            return
        is_new, cycle = self.idle, self.cycle
        if is_new:
            head = self._known_heads.find(data)
            if head is not None and self._answer_known(head, data):
                return
        starts_in_head = is_new or self._in_head
        try:
            self.parser.feed_data(data)
            if is_new and type(self.cycle) is QuickCycle and self.cycle is not cycle and not self.cycle.more_body:
                self._known_heads.add(data, self.url, self.cycle.headers, len(self.cycle.body))
        except httptools.HttpParserUpgrade as upgrade:
            self._parse_after_upgrade(data, upgrade.args[0])
        except httptools.HttpParserError as error:
            self._refuse_invalid(error)
        # Do not count data that also contains the end of an earlier request.
        if self._in_head and starts_in_head and self.cycle is cycle:
            self._head_bytes += len(data)
            limit = self._limits.max_head_bytes
            if self._head_bytes > limit and not self.transport.is_closing():
                self._refuse(BodyError(f"the request head is larger than {limit} bytes", slug="head-too-large"))

    def _answer_known(self, head: KnownHead, data: bytes) -> bool:
        """Answer a complete request on the quick path without parsing its head again; return False if the request must
        be parsed. Hot path."""
        if self.quick_path is None or self.flow.write_paused or self.transport.is_closing():
            return False
        route = self.quick_path.find(head.path, b"POST", head.headers)
        if route is None:
            return False
        if self._busy_poll.is_waiting:
            self._busy_poll.succeed()
        before = self.cycle
        cycle = self.cycle = QuickCycle(self, route, head.headers)
        cycle.body = data[len(data) - head.body_bytes :]
        cycle.more_body = self.idle = False
        self.due = math.inf
        if self._answer_quickly(cycle, head.query):
            return True
        self.cycle, self.idle = before, True
        return False

    def _parse_after_upgrade(self, data: bytes, offset: int) -> None:
        """Parse data whose head, which ends at `offset`, offers to upgrade the connection.

        The parser treats everything after such a head, even the request's body, as data in the new protocol. Therefore,
        a new parser parses the head again without the offer.
        """
        rest = memoryview(data)
        try:
            while not self.transport.is_closing():
                rest = rest[offset:]
                head, self._head_without_upgrade = self._head_without_upgrade, b""
                self.parser = httptools.HttpRequestParser(self)
                self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
                self.parser.feed_data(head)
                try:
                    self.parser.feed_data(rest)
                except httptools.HttpParserUpgrade as upgrade:
                    offset = upgrade.args[0]
                else:
                    return
        except httptools.HttpParserError as error:
            self._refuse_invalid(error)

    def _refuse_invalid(self, error: httptools.HttpParserError) -> None:
        """Refuse a request that cannot be parsed or whose head has been rejected by a parser callback."""
        reason = error.__context__
        if not isinstance(reason, RequestError):
            reason = RequestError("the received bytes are not a valid HTTP/1.1 request")
        self._refuse(reason)

    def _owes_responses(self) -> bool:
        """Return whether any complete request has not been fully answered yet."""
        cycle = self.cycle
        return bool(self.pipeline) or (cycle is not None and not cycle.response_complete and not cycle.more_body)

    def _refuse(self, error: RowcastError) -> None:
        """Send an error response after the responses to earlier requests, and close the connection.

        If the current request was answered before it had arrived completely, only close the connection.
        """
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        cycle = self.cycle
        has_response = False
        owes_responses = self._owes_responses()
        if cycle is not None and cycle.more_body:
            # The current request is incomplete. Do not answer it twice, or after it was refused.
            has_response = cycle.response_started
            if owes_responses:
                self.pipeline.popleft()
            cycle.disconnected = True
            cycle.message_event.set()
        status, body, headers = problems.answer(error, "none")
        headers.append((b"content-length", b"%d" % len(body)))
        if owes_responses:
            self._refuse_in_turn(status, headers, body)
            return
        if not has_response:
            lines = [problems.STATUS_LINES[status], *(b"%b: %b\r\n" % header for header in headers)]
            self.transport.write(b"".join(lines) + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _refuse_in_turn(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an error response after the responses to pipelined requests, and stop reading."""

        async def answer(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        self.flow.pause_reading()
        self.cycle = Cycle(self, {"method": "POST"}, expects_continue=False, keep_alive=False)
        self.cycle.more_body = self.cycle.access_log = False
        self.pipeline.appendleft((self.cycle, answer))

    # The parser calls the next five public methods in this order.
    def on_message_begin(self) -> None:
        """Prepare for a new request."""
        if self._busy_poll.is_waiting:
            self._busy_poll.succeed()
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head, self._head_bytes = True, 0
        self.idle = False
        self.due = self._time() + self._limits.receive_seconds
        self._long_body_until = 0.0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Add one header; drop the trailers of a chunked body."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Begin to answer the request, or queue it if an earlier request has not been fully answered yet."""
        self._in_head = False
        if self.pool.is_closing and self.transport.is_closing():
            return  # the client will send this request again on another connection
        parser = self.parser
        before = self.cycle
        is_busy = before is not None and not before.response_complete
        if self.quick_path is not None and not is_busy and not self.flow.write_paused:
            quick = self._quick_cycle(parser)
            if quick is not None:
                self.cycle = quick
                return
        method, version = parser.get_method(), parser.get_http_version()
        self._host = check_head(method, version, self.headers)
        if parser.should_upgrade():
            self._head_without_upgrade = remove_upgrade(method, self.url, version, self.headers)
            return
        cycle = self._general_cycle(parser)
        self.cycle = cycle
        if is_busy:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def _quick_cycle(self, parser: Any) -> QuickCycle | None:
        """Return a cycle for the quick path, or None if the request head requires the general path. Hot path."""
        path = self.url.partition(b"?")[0]
        assert self.quick_path is not None
        headers = dict(self.headers)
        host = headers.get(b"host")
        if host is None or host != self._host or len(headers) < len(self.headers):
            self._host = check_head(parser.get_method(), parser.get_http_version(), self.headers)
        route = self.quick_path.find(path.decode("latin-1"), parser.get_method(), headers)
        if route is None or parser.get_http_version() != "1.1" or not parser.should_keep_alive():
            return None
        length = headers.get(b"content-length", b"")
        if not length.isdigit() or int(length) > MAX_QUICK_BODY:
            return None
        return QuickCycle(self, route, headers)

    def _general_cycle(self, parser: Any) -> Cycle:
        """Return a cycle with an ASGI scope."""
        version = parser.get_http_version()
        raw_path, _, query = self.url.partition(b"?")
        if raw_path[:1] != b"/":
            parsed = httptools.parse_url(self.url)
            raw_path, query = parsed.path or b"/", parsed.query or b""
        path = raw_path.decode("latin-1")
        root = self.root_path
        self.scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme or "http",
            "root_path": root,
            "headers": self.headers,
            "state": self.app_state.copy(),
            "method": parser.get_method().decode("ascii"),
            "path": root + (urllib.parse.unquote(path) if "%" in path else path),
            "raw_path": root.encode("ascii") + raw_path,
            "query_string": query,
            "extensions": {LONG_BODY: {"allow": self._allow_long_body}},
        }
        keep_alive = version != "1.0" and parser.should_keep_alive() and not self.pool.is_closing
        return Cycle(self, self.scope, expects_continue=self.expect_100_continue, keep_alive=keep_alive)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        # Use a separate context, so that the log lines of this request do not contain the ids of another request.
        task = self.loop.create_task(self._run(cycle, app), context=Context())
        self.tasks.add(task)

    async def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn uses a done callback instead, which costs another event-loop iteration per request.
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(asyncio.current_task())

    def _allow_long_body(self) -> None:
        """Give the client `receive_seconds` for each chunk of the body, and `LONG_BODY_SECONDS` for the whole body."""
        self._long_body_until = self._time() + LONG_BODY_SECONDS

    def on_body(self, body: bytes) -> None:
        """Append a chunk of the body."""
        cycle = self.cycle
        if type(cycle) is QuickCycle:
            cycle.body = cycle.body + body if cycle.body else body
            return
        if not cycle.response_complete:
            cycle.body += body
            if self._long_body_until:
                self.due = min(self._time() + self._limits.receive_seconds, self._long_body_until)
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """Answer a complete request. Hot path."""
        if self._head_without_upgrade:
            return  # only the head is complete: see `_parse_after_upgrade`
        cycle = self.cycle
        cycle.more_body = False
        if cycle.response_complete:  # refused before it was complete
            self._rest()
            return
        self.due = math.inf
        if type(cycle) is not QuickCycle:
            cycle.message_event.set()
        elif not self._answer_quickly(cycle, self.url.partition(b"?")[2]):
            general = self._general_cycle(self.parser)
            general.body += cycle.body
            general.more_body = False
            general.message_event.set()
            self.cycle = general
            self._start_asgi_task(general, self.app)

    def _answer_quickly(self, cycle: QuickCycle, query: bytes) -> bool:
        """Answer a complete request on the quick path; return False if it needs the general path. Hot path."""
        assert self.quick_path is not None
        is_alone = self.pool.is_only_sender(self, self._time())
        if is_alone is not self._was_alone:
            self._was_alone = is_alone
            # If no other client is sending requests, send each response at once instead of at the end of the event-loop
            # iteration. Otherwise, clients would send their next requests too early to share a batch.
            self.transport.set_write_buffer_limits(0 if is_alone else None)
        if not self.quick_path.answer(
            cycle.route, cycle.headers, query, cycle.body, self.client, cycle.send, is_alone=is_alone
        ):
            return False
        if is_alone and cycle.response_complete:
            self._busy_poll.begin(self.loop)
        return True

    def pause_writing(self) -> None:
        """Start the time limit for the client to read its response."""
        super().pause_writing()
        self.due = self._time() + self._limits.receive_seconds

    def resume_writing(self) -> None:
        """Restart the time limit, because the client is reading again."""
        super().resume_writing()
        self.due = self._time() + self._limits.receive_seconds

    def on_response_complete(self) -> None:
        """Answer the next pipelined request, or wait for another request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.due = self._time() + self._limits.receive_seconds  # let the client read the rest of the response
        elif self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())  # reading resumes after the final response
        else:
            if self.flow.read_paused:
                self.flow.resume_reading()
            self._rest()

    def _rest(self) -> None:
        """Wait for the next request, unless part of its head has already arrived."""
        if not self._in_head:
            self.idle = not self.cycle.more_body  # a request may have been refused before it was complete
            self.due = self._time() + self._limits.idle_seconds


def protocol_class(limits: ConnectionLimits, quick_path: QuickPath | None) -> type[Connection]:
    """Return the class that uvicorn instantiates for every connection."""
    return type("LimitedConnection", (Connection,), {"pool": ConnectionPool(limits), "quick_path": quick_path})
