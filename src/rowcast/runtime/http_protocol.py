"""HTTP/1.1 under the edge: uvicorn's httptools protocol with bounds of its own, and a short way for whole answers.

What uvicorn leaves open is closed here: how long a request may take to arrive, how long an idle connection stays, how
many connections there are, how large a request's head may be. One sweep a second looks at all of them, where uvicorn
sets and cancels a timer for every request.

The edge can hand over a whole answer at once (ASGI extension `REPLY`): its head was made by the edge, from
parts that were checked, so that uvicorn's two regular expressions a header need not run. Under another ASGI server the
edge does without; `bench/serve.py` measures what this gains.
"""

from __future__ import annotations

import asyncio
import math
import urllib.parse
from typing import Any

import httptools
import msgspec
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rowcast.errors import BodyError, Overloaded, RequestError, RowcastError
from rowcast.http import problems
from rowcast.http.edge import REPLY

SWEEP_SECONDS = 1.0
ROOM_SHARE = 16
"""When there are too many connections, so large a part of the idle ones (one in ...) makes room."""
STATUS_LINES = {status: b"HTTP/1.1 %d %s\r\n" % (status, phrase) for status, phrase in problems.PHRASES.items()}


class Limits(msgspec.Struct, frozen=True):
    """What one server process grants to whoever connects."""

    max_connections: int = 20_000
    max_head_bytes: int = 64 * 1024
    receive_seconds: float = 30.0
    """From a request's first byte to its last, and for an answer to be taken."""
    idle_seconds: float = 60.0
    """Between two requests of a connection, and before the first."""


class Door:
    """All connections of one process."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.closing = False
        """Whether every answer from now on tells its client to come back on another connection."""
        self._open: set[Connection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._last_room = -math.inf

    def enter(self, connection: Connection) -> bool:
        """Whether there is room; idle connections give way."""
        if len(self._open) >= self.limits.max_connections and not self._make_room(connection.loop.time()):
            return False
        self._open.add(connection)
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        return True

    def leave(self, connection: Connection) -> None:
        """It is closed."""
        self._open.discard(connection)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [found for found in self._open if found.due < now]:
            connection.expire()
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._open else None

    def _make_room(self, now: float) -> bool:
        """Close those that have been idle longest; looked for ten times a second at most."""
        if now < self._last_room + 0.1:
            return False
        self._last_room = now
        idle = sorted((found for found in self._open if found.idle), key=lambda found: found.due)
        chosen = idle[: max(1, len(idle) // ROOM_SHARE)]
        for connection in chosen:
            connection.expire()
            self._open.discard(connection)
        return bool(chosen)


class Wake:
    """What uvicorn uses of an asyncio.Event, which takes longer to make than a small request takes to arrive."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Something came, or the end."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """It was taken."""
        self._is_set = False

    async def wait(self) -> None:
        """Until something comes."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    delivered = False

    def __init__(self, connection: Connection, scope: Any, *, expects: bool, keep_alive: bool) -> None:
        # What uvicorn's own __init__ sets; its fourteen arguments by name take a microsecond.
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.access_logger = connection.access_logger
        self.access_log = connection.access_log
        self.default_headers = connection.server_state.default_headers
        self.message_event = Wake()  # type: ignore[assignment]
        self.on_response = connection.on_response_complete
        self.disconnected = False
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0

    async def receive(self) -> Any:
        """The body; at once when it is all there, which is the rule for small ones."""
        if not (self.more_body or self.delivered or self.disconnected or self.response_complete):
            self.delivered = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        message = await super().receive()
        self.delivered = not message.get("more_body", False)
        return message


class Connection(HttpToolsProtocol):
    """One client. `due` is when it is closed unless something happens before."""

    door: Door  # of the class that `protocol` makes

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.due = math.inf
        self.idle = True
        self._in_head = False
        self._head_bytes = 0
        self._active: RequestResponseCycle | None = None
        self._extensions: dict[str, Any] | None = {REPLY: self.reply}
        self._limits = self.door.limits
        self._time = self.loop.time

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Someone connected."""
        super().connection_made(transport)
        self.due = self._time() + self._limits.idle_seconds
        if not self.door.enter(self):
            self._refuse(Overloaded("there are too many connections; try again in a second"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, whoever ended it."""
        self.door.leave(self)
        super().connection_lost(exc)
        self._extensions = None  # it refers to this object

    def expire(self) -> None:
        """Close a connection that has waited long enough; one that is in the middle of a request is told so."""
        if self.transport.is_closing():
            self.transport.abort()
        elif self.idle or self.flow.write_paused:
            self.transport.close()
        else:
            self._refuse(BodyError("the request took too long to arrive", slug="request-timeout"))
        self.due = self._time() + SWEEP_SECONDS

    def data_received(self, data: bytes) -> None:
        """Bytes of a request; a head that does not end is refused."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes and not self.transport.is_closing():
                most = self._limits.max_head_bytes
                self._refuse(BodyError(f"the head of the request is larger than {most} bytes", slug="head-too-large"))

    def send_400_response(self, msg: str) -> None:
        """What came is not HTTP."""
        self._refuse(RequestError("what came is not an HTTP/1.1 request"))

    def _refuse(self, error: RowcastError) -> None:
        """Say why, and hang up."""
        status, body, headers = problems.answer(error, "none")
        lines = [STATUS_LINES[status], *(b"%s: %s\r\n" % header for header in headers)]
        lines.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.transport.write(b"".join(lines) + body)
        self.transport.close()

    # The parser calls these, in this order.
    def on_message_begin(self) -> None:
        """The first byte of a request."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._in_head, self._head_bytes = True, 0
        self.idle = False
        self.due = self._time() + self._limits.receive_seconds

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; trailers of a body in pieces are dropped."""
        if self._in_head:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: the request goes to the app, after those before it."""
        self._in_head = False
        parser = self.parser
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
            "extensions": self._extensions,  # type: ignore[typeddict-item]
        }
        before: RequestResponseCycle | None = self.cycle
        keep_alive = version != "1.0" and parser.should_keep_alive() and not self.door.closing
        self.cycle = Cycle(self, self.scope, expects=self.expect_100_continue, keep_alive=keep_alive)
        if before is not None and not before.response_complete:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))
        else:
            self._start_asgi_task(self.cycle, self.app)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._active = cycle
        task = self.loop.create_task(self._run(cycle, app))
        self.tasks.add(task)

    async def _run(self, cycle: RequestResponseCycle, app: Any) -> None:
        # uvicorn adds a callback for this, which is one more turn of the loop for every request.
        try:
            await cycle.run_asgi(app)
        finally:
            self.tasks.discard(asyncio.current_task())

    def on_body(self, body: bytes) -> None:
        """Some of the body."""
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """The last byte of a request: from now on it is our turn."""
        cycle = self.cycle
        cycle.more_body = False
        if cycle.response_complete:  # refused before it was all there
            self._rest()
        else:
            self.due = math.inf
            cycle.message_event.set()

    def pause_writing(self) -> None:
        """The client does not take what it asked for."""
        super().pause_writing()
        self.due = self._time() + self._limits.receive_seconds

    def resume_writing(self) -> None:
        """It does again."""
        super().resume_writing()
        self.due = self._time() + self._limits.receive_seconds

    def reply(self, head: bytes, body: bytes) -> bool:
        """A whole answer, `head` ending in its last header; False when it must go through `send`. HOT."""
        cycle = self._active
        if cycle is None or cycle.response_started or self.flow.write_paused:
            return False
        cycle.response_started = cycle.response_complete = True
        if not cycle.disconnected:
            # Of all headers the server adds, the date is the only one: see _serve in cli/server.py.
            date = b"".join([b"date: %s\r\n" % value for _, value in cycle.default_headers])
            end = b"\r\n" if cycle.keep_alive else b"connection: close\r\n\r\n"
            self.transport.write(b"".join((head, date, end, body)))
            if not cycle.keep_alive:
                self.transport.close()
            self.on_response_complete()
        return True

    def on_response_complete(self) -> None:
        """An answer was sent: the next request in line, or rest."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._rest()

    def _rest(self) -> None:
        self.idle = not self.cycle.more_body  # a request may have been refused before it was all there
        self.due = self._time() + self._limits.idle_seconds


def protocol(limits: Limits) -> type[Connection]:
    """The class that uvicorn makes an object of for every connection."""
    return type("LimitedConnection", (Connection,), {"door": Door(limits)})
