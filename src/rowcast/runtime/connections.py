"""The connections of one process, their limits, and a periodic check that closes expired connections."""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

import msgspec

from rowcast.runtime.busy_poll import BusyPoll
from rowcast.runtime.known_heads import KnownHeads

SWEEP_SECONDS = 1.0
ALONE_SECONDS = 0.005
"""A client's requests are not batched if no other connection has sent a request within this time."""
ROOM_SHARE = 16
"""If the connection limit is reached, one in ROOM_SHARE idle connections is closed."""

SPARE_FILES = 512
"""The number of open files that a server needs in addition to one file per connection. If the limit on open files is
low, half of the limit is reserved instead."""


def affordable_connections(file_limit: int) -> int:
    """Return the number of connections that a process can open if its limit on open files has this value."""
    return max(1, file_limit - min(SPARE_FILES, file_limit // 2))


class PooledConnection(Protocol):
    """The part of a connection that the pool uses."""

    loop: asyncio.AbstractEventLoop
    due: float
    """The event-loop time at which the connection expires."""
    idle: bool

    def expire(self) -> None:
        """Close the connection, or abort it if a previous call has already begun to close it."""
        ...


class ConnectionLimits(msgspec.Struct, frozen=True):
    """The limits of one server process."""

    max_connections: int = 20_000
    max_head_bytes: int = 64 * 1024
    receive_seconds: float = 30.0
    """The time, in seconds, within which a client must send a whole request or read a response."""
    idle_seconds: float = 60.0
    """The time, in seconds, within which a client must begin its first or next request."""
    busy_poll_seconds: float = 0.0
    """How long the process polls for a single client's next request before it sleeps."""


class ConnectionPool:
    """All connections of one process."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.busy_poll = BusyPoll(limits.busy_poll_seconds)
        self.known_heads = KnownHeads()
        self.is_closing = False
        """Whether every response tells the client to close the connection."""
        self._open: set[PooledConnection] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._made_room_at = -math.inf
        self._latest: PooledConnection | None = None
        self._latest_since = 0.0

    def is_only_sender(self, connection: PooledConnection, now: float) -> bool:
        """Return whether no other connection has sent a request recently. Hot path."""
        if connection is not self._latest:
            self._latest, self._latest_since = connection, now
        return now - self._latest_since > ALONE_SECONDS

    def add(self, connection: PooledConnection) -> bool:
        """Add a connection and return True, or return False if the limit is reached and no connection can be closed."""
        if len(self._open) >= self.limits.max_connections and not self._make_room(connection.loop.time()):
            return False
        self._open.add(connection)
        if self._sweeping is None:
            self._sweeping = connection.loop.call_later(SWEEP_SECONDS, self._sweep, connection.loop)
        return True

    def remove(self, connection: PooledConnection) -> None:
        """Remove a closed connection."""
        self._open.discard(connection)
        if self._latest is connection:
            self._latest = None

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in [connection for connection in self._open if connection.due < now]:
            connection.expire()
        self._sweeping = loop.call_later(SWEEP_SECONDS, self._sweep, loop) if self._open else None

    def _make_room(self, now: float) -> bool:
        """Close the longest-idle connections, at most ten times a second; return whether any was closed."""
        if now < self._made_room_at + 0.1:
            return False
        self._made_room_at = now
        idle = [connection for connection in self._open if connection.idle]
        idle.sort(key=lambda connection: connection.due)
        for connection in idle[: max(1, len(idle) // ROOM_SHARE)]:
            connection.expire()
            self._open.discard(connection)
        return bool(idle)
