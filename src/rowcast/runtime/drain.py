"""The HTTP server around the edge: uvicorn, with an end that drops no request."""

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
"""How long a connection that asks nothing is kept while draining: a client that asks steadily is told `connection:
close` with an answer, instead of meeting a closed door with its next request."""
LOOK_SECONDS = 0.01

log = structlog.get_logger("rowcast.runtime")


class DrainingServer(uvicorn.Server):
    """Told to stop, it takes no new connection, answers whatever it received, and ends within `drain_seconds`; told
    twice, at once. `parent` is the reading end of a pipe that closes when the supervisor dies."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        begin_drain: Callable[[], None],
        drain_seconds: float,
        parent: int | None = None,
    ) -> None:
        super().__init__(config)
        self._begin_drain = begin_drain
        self._drain_seconds = drain_seconds
        self._parent = parent

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal ends it in order, the second hastens."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and to notice an orphan's fate."""
        await super().startup(sockets)
        if self._parent is not None:
            asyncio.get_running_loop().add_reader(self._parent, self._orphaned, self._parent)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Not ready, no new connection, every received request answered, connections closed, parts ended."""
        self._begin_drain()
        await asyncio.sleep(0)  # whoever is in the queue already is still let in
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await self._drain()
        await self.lifespan.shutdown()

    async def _drain(self) -> None:
        state, now = self.server_state, asyncio.get_running_loop().time
        end, patience = now() + self._drain_seconds, now() + IDLE_SECONDS
        while (state.connections or state.tasks) and not self.force_exit and now() < end:
            for connection in list(state.connections):
                assert isinstance(connection, HttpToolsProtocol)
                if connection.cycle is not None and not connection.cycle.response_complete:
                    connection.cycle.keep_alive = False
                elif now() > patience and not _unread(connection.transport):
                    connection.transport.close()
            await asyncio.sleep(LOOK_SECONDS)
        if state.tasks:
            log.warning("stopped before every request was answered", requests=len(state.tasks))
        for task in list(state.tasks):
            task.cancel()
        for connection in list(state.connections):
            connection.transport.close()
        await asyncio.sleep(0)

    def _orphaned(self, parent: int) -> None:
        asyncio.get_running_loop().remove_reader(parent)
        log.warning("the supervisor is gone; this worker ends")
        self.handle_exit(signal.SIGTERM, None)


def _unread(transport: asyncio.Transport) -> int:
    """Bytes that the client has sent and that this process has not read yet: closing now would lose its request."""
    found = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, found)
    return found[0]
