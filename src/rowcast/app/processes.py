"""Runs a server in this process, or in several processes under a supervisor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rowcast.app import indexer, server
from rowcast.app.server_processes import Place, server_state

if TYPE_CHECKING:
    import socket

    from rowcast.runtime.connections import ConnectionLimits
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface
    from rowcast.settings import Settings

    Announce = Callable[[Deployment[ModelInterface]], None]
    Work = Callable[[Place, int, bool], int]


def serve(
    settings: Settings,
    listener: socket.socket,
    announce: Announce | None,
    *,
    place: Place | None = None,
    parent: int | None = None,
) -> None:
    """Serve in this process until a signal arrives. Call `announce` once every model is loaded. A signal that
    arrives during that call or later starts a drain.
    """
    from rowcast.runtime.server import HttpServer, run

    built = server.build_server(settings, place)
    http_server = HttpServer(
        app=built.app,
        quick_path=built.quick_path,
        limits=connection_limits(settings),
        root_path=settings.root_path,
        drain_seconds=settings.drain_seconds,
        on_drain=built.drain,
    )

    def on_ready() -> None:
        if announce is not None:
            announce(built.deployment)

    run(http_server, listener, on_ready, parent=parent)


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return the connection limits of a process."""
    from rowcast.runtime.connections import ConnectionLimits

    return ConnectionLimits(
        max_connections=settings.max_connections,
        receive_seconds=settings.receive_seconds,
        idle_seconds=settings.idle_seconds,
        busy_poll_seconds=settings.busy_poll_us / 1e6,
    )


def supervise(settings: Settings, listener: socket.socket, work: Work) -> int:
    """Run `work` in every server process until a signal arrives; return the exit status."""
    from rowcast.runtime.supervisor import IndexerPlan, Supervisor

    state = server_state(settings)

    def is_running() -> bool:
        return indexer.indexer_is_running(settings)

    def run_process(number: int, parent: int, is_first: bool) -> int:
        return work(Place(state, number), parent, is_first)

    plan = IndexerPlan(indexer.indexer_command(), settings.for_child(), is_running)
    try:
        return Supervisor(state, run_process, listener.close, plan, settings.drain_seconds).run()
    finally:
        state.remove()
