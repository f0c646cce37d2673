"""Run an ASGI app under uvicorn with Rowcast's own protocol class, limits and shutdown."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import uvicorn

from rowcast.http.quick_path import QuickPath
from rowcast.http.routes import ASGIApp
from rowcast.runtime.connections import ConnectionLimits
from rowcast.runtime.drain import DrainingServer
from rowcast.runtime.http_protocol import protocol_class
from rowcast.runtime.signals import handle_stop

BACKLOG = 2048
SPARE_FILES = 512
"""The number of open files that a server needs in addition to one file per connection."""


class HttpServer(msgspec.Struct, frozen=True):
    """An app and the parameters for serving it."""

    app: ASGIApp
    quick_path: QuickPath | None
    limits: ConnectionLimits
    root_path: str
    drain_seconds: float
    on_drain: Callable[[], None]


def run(
    server: HttpServer, listener: socket.socket, on_ready: Callable[[], None], *, parent: int | None = None
) -> None:
    """Serve requests until a signal arrives or the supervisor dies; `parent` is the read end of its pipe.

    Call `on_ready` before the first request. A signal that arrives during this call or later starts a drain.
    """
    protocol = protocol_class(server.limits, server.quick_path)

    def on_drain() -> None:
        protocol.pool.is_closing = True
        server.on_drain()

    options: dict[str, Any] = {"loop": "uvloop", "http": protocol, "ws": "none", "lifespan": "on"}
    # Omit the `server` header, because `date` is the only header that the server adds on the quick path.
    config = uvicorn.Config(
        server.app,
        **options,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        root_path=server.root_path,
        backlog=BACKLOG,
    )
    raise_file_limit(server.limits.max_connections)
    running = DrainingServer(config, on_drain=on_drain, drain_seconds=server.drain_seconds, parent=parent)
    handle_stop(running.handle_exit)
    on_ready()
    running.run(sockets=[listener])


def raise_file_limit(connections: int) -> None:
    """Raise the limit on open files to allow this many connections. On most systems, the default limit is 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if soft < needed and soft != resource.RLIM_INFINITY:
        allowed = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
