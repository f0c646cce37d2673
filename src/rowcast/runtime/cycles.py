"""The requests of a connection: each cycle is one request with its response."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from rowcast.http.routes import Route
from rowcast.runtime.connections import ConnectionPool


class CycleOwner(HttpToolsProtocol):
    """The part of a connection that its cycles use."""

    pool: ConnectionPool
    is_lost: bool
    """Whether the transport is closed. Writing to a closed transport raises an exception."""


class BodyEvent:
    """Replaces asyncio.Event. It has only the methods that uvicorn uses, and takes less time to create."""

    __slots__ = ("_is_set", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None

    def set(self) -> None:
        """Wake the waiting task."""
        self._is_set = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def clear(self) -> None:
        """Clear the event."""
        self._is_set = False

    async def wait(self) -> None:
        """Wait until the event is set."""
        if not self._is_set:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter


class Cycle(RequestResponseCycle):
    """One request on the general path."""

    delivered = False
    _is_refused = False

    def __init__(self, connection: CycleOwner, scope: Any, *, expects_continue: bool, keep_alive: bool) -> None:
        # Set the attributes that uvicorn's __init__ sets, without calling it: a call with eleven keyword arguments
        # takes a microsecond.
        self._connection = connection
        self.scope = scope
        self.transport = connection.transport
        self.flow = connection.flow
        self.logger = connection.logger
        self.access_logger = connection.access_logger
        self.access_log = connection.access_log
        self.default_headers = connection.server_state.default_headers
        self.message_event = BodyEvent()  # type: ignore[assignment]
        self.on_response = connection.on_response_complete
        self.keep_alive = keep_alive
        self.waiting_for_100_continue = expects_continue
        self.body = bytearray()
        self.more_body = True
        self.response_started = False
        self.response_complete = False
        self.chunked_encoding = None
        self.expected_content_length = 0

    @property
    def disconnected(self) -> bool:
        """Whether no response can be sent, because the connection is lost or the request has already been refused."""
        return self._is_refused or self._connection.is_lost

    @disconnected.setter
    def disconnected(self, value: bool) -> None:
        # When a connection is lost, uvicorn sets this only for the most recent of several pipelined requests.
        self._is_refused = value

    def send(self, message: Any) -> Any:
        """Send an ASGI message. If the final response is sent instead of 100 Continue, close the connection: the client
        may omit the body and send its next request.
        """
        if self.waiting_for_100_continue and self.more_body:
            self.keep_alive = False
        return super().send(message)

    async def receive(self) -> Any:
        """Return the next ASGI message, without waiting if the body is complete."""
        if not (self.more_body or self.delivered or self.disconnected or self.response_complete):
            self.delivered = True
            return {"type": "http.request", "body": bytes(self.body), "more_body": False}
        message = await super().receive()
        self.delivered = not message.get("more_body", False)
        return message


class _NoEvent:
    """Replaces uvicorn's `message_event` on the quick path, where no task waits for the body."""

    def set(self) -> None:
        """Do nothing."""


NO_EVENT = _NoEvent()


class QuickCycle:
    """One request on the quick path, with the attributes that uvicorn and `DrainingServer` use."""

    body = b""
    keep_alive = True
    more_body = True
    response_started = False
    response_complete = False
    disconnected = False
    message_event = NO_EVENT

    def __init__(self, connection: CycleOwner, route: Route, headers: dict[bytes, bytes]) -> None:
        self.connection = connection
        self.route = route
        self.headers = headers

    def send(self, head: bytes, body: bytes) -> None:
        """Write the whole response; `head` ends with the last header. Hot path."""
        connection = self.connection
        if self.response_complete or connection.is_lost:
            return
        self.response_complete = True
        # The date is the only header that the server adds: see `run` in runtime/server.py.
        date = b"".join([b"date: %b\r\n" % value for _, value in connection.server_state.default_headers])
        # If requests are pipelined, close the connection only after the response to the final request.
        if self.keep_alive and (connection.pipeline or not connection.pool.is_closing):
            connection.transport.write(b"".join((head, date, b"\r\n", body)))
        else:
            connection.transport.write(b"".join((head, date, b"connection: close\r\n\r\n", body)))
            connection.transport.close()
        connection.on_response_complete()
