"""A uvicorn server that drops no requests when it shuts down."""

from __future__ import annotations

import array
import asyncio
import fcntl
import signal
import socket
import termios
from collections.abc import Callable
from types import FrameType

import structlog
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

IDLE_SECONDS = 0.5
"""How long an idle connection stays open during a drain. A client that sends its next request within this time gets
a response with `connection: close` instead of a connection error."""
POLL_SECONDS = 0.01

log = structlog.get_logger("rowcast.runtime")


class DrainingServer(uvicorn.Server):
    """On the first signal, stops accepting connections, answers received requests and exits within `drain_seconds`.

    On a second signal, exits immediately. A hangup does not count as a second signal, because a closing terminal and
    systemd can send it in addition to another signal. `parent` is the read end of a pipe that closes when the
    supervisor dies.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        on_drain: Callable[[], None],
        drain_seconds: float,
        parent: int | None = None,
    ) -> None:
        super().__init__(config)
        self._on_drain = on_drain
        self._drain_seconds = drain_seconds
        self._parent = parent

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin the drain on the first signal; exit immediately on the second signal."""
        self.force_exit = self.force_exit or (self.should_exit and sig != signal.SIGHUP)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen for connections; if there is a supervisor, watch for its death."""
        await super().startup(sockets)
        if self._parent is not None:
            asyncio.get_running_loop().add_reader(self._parent, self._orphaned, self._parent)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting connections, answer all received requests, close the connections and stop the parts."""
        self._on_drain()
        await asyncio.sleep(0)  # serve connections that the kernel has already accepted
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await self._drain()
        await self.lifespan.shutdown()

    async def _drain(self) -> None:
        state, now = self.server_state, asyncio.get_running_loop().time
        end, idle_end = now() + self._drain_seconds, now() + IDLE_SECONDS
        while (state.connections or state.tasks) and not self.force_exit and now() < end:
            for connection in list(state.connections):
                assert isinstance(connection, HttpToolsProtocol)
                if connection.cycle is not None and not connection.cycle.response_complete:
                    connection.cycle.keep_alive = False
                elif now() > idle_end and not _unread_bytes(connection.transport):
                    connection.transport.close()
            await asyncio.sleep(POLL_SECONDS)
        unanswered = sum(map(_is_unanswered, state.connections))
        if unanswered:
            log.warning("the server stopped before all requests were answered", requests=unanswered)
        for task in list(state.tasks):
            task.cancel()
        for connection in list(state.connections):
            assert isinstance(connection, HttpToolsProtocol)
            if connection.flow.write_paused:  # tasks are waiting for a client that is not reading
                connection.transport.abort()
            else:
                connection.transport.close()
        await asyncio.sleep(0)

    def _orphaned(self, parent: int) -> None:
        asyncio.get_running_loop().remove_reader(parent)
        log.warning("the supervisor has died; shutting down this server process")
        self.handle_exit(signal.SIGTERM, None)


def _is_unanswered(connection: object) -> bool:
    """Return whether the client is waiting for a response. Its request may still be unread."""
    cycle = connection.cycle if isinstance(connection, HttpToolsProtocol) else None
    if cycle is not None and not cycle.response_complete:
        return True
    transport = connection.transport if isinstance(connection, HttpToolsProtocol) else None
    return transport is not None and not transport.is_closing() and _unread_bytes(transport) > 0


def _unread_bytes(transport: asyncio.Transport) -> int:
    """Return the number of unread bytes from the client. They would be lost if the connection were closed now."""
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0]
