"""Run an ASGI app under uvicorn with Rowcast's own protocol class, limits and shutdown."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
import uvicorn

from rowcast.http.quick_path import QuickPath
from rowcast.http.routes import ASGIApp
from rowcast.runtime.connections import SPARE_FILES, ConnectionLimits, affordable_connections
from rowcast.runtime.drain import DrainingServer
from rowcast.runtime.http_protocol import protocol_class
from rowcast.runtime.signals import handle_stop

BACKLOG = 2048

log = structlog.get_logger("rowcast.runtime")


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
    """Serve requests until a signal arrives or the supervisor dies.

    `parent` is the read end of a pipe that closes when the supervisor dies. Call `on_ready`
    before the first request. A signal that arrives during that call or later starts a drain.
    """
    protocol = protocol_class(fit_file_limit(server.limits), server.quick_path)

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
    running = DrainingServer(config, on_drain=on_drain, drain_seconds=server.drain_seconds, parent=parent)
    handle_stop(running.handle_exit)
    on_ready()
    running.run(sockets=[listener])


def fit_file_limit(limits: ConnectionLimits) -> ConnectionLimits:
    """Raise the limit on open files to allow all connections; if the system refuses, allow fewer connections.

    On most systems, the default limit is 1024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = limits.max_connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return limits
    granted = needed if hard == resource.RLIM_INFINITY else max(soft, min(needed, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    affordable = min(limits.max_connections, affordable_connections(granted))
    if affordable == limits.max_connections:
        return limits
    log.warning(
        "fewer connections than max_connections are accepted; raise the limit on open files",
        connections=affordable,
        max_connections=limits.max_connections,
        open_files=granted,
    )
    return msgspec.structs.replace(limits, max_connections=affordable)
