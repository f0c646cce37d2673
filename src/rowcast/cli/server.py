"""`rowcast serve` and the indexer beside it."""

from __future__ import annotations

import resource
import select
import shlex
import signal
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from rowcast.app import indexer as app_history
from rowcast.app import logs as app_logs
from rowcast.app import server as app_server
from rowcast.cli import first_model, output
from rowcast.errors import RowcastError, SettingsError
from rowcast.registry import import_model

if TYPE_CHECKING:
    from pathlib import Path

    from rowcast.serving.live_models import Deployment
    from rowcast.settings import Settings

BACKLOG = 2048


def run(settings: Settings, *, train_if_missing: Path | None, target: str | None, as_json: bool) -> int:
    """Serve until told to stop; every mistake is said before the first request could arrive."""
    _refuse_open_doors(settings)
    app_logs.configure_logging(settings)
    with closing(_bind(settings)) as listener:
        if settings.workers > 1 or train_if_missing is not None:
            _take_up(settings)
        if train_if_missing is not None:
            first_model.ensure(settings, train_if_missing, target)
        elif target is not None:
            raise SettingsError("--target is for --train-if-missing; say which table to train on")
        listener.listen(BACKLOG)  # who connects early waits for the models instead of being refused
        if settings.workers == 1:
            return _serve(settings, listener, as_json=as_json)
        return _supervise(settings, listener, as_json=as_json)


def _take_up(settings: Settings) -> None:
    for drop in import_model.take_up(settings):
        if drop.error:
            output.say(f"{drop.file} is not served: {drop.error}")


def _supervise(settings: Settings, listener: socket.socket, *, as_json: bool) -> int:
    from rowcast.runtime.supervisor import Indexer, Supervisor

    board = app_server.board(settings)

    def work(number: int, parent: int, first: bool) -> int:
        try:
            place = app_server.Place(board, number)
            return _serve(settings, listener, place, parent, announce=first, as_json=as_json)
        except RowcastError as error:
            output.say(f"error: {' '.join(error.message.split())}")
            return 2

    indexer = Indexer(
        app_history.indexer_command(), settings.for_child(), lambda: app_history.indexer_is_running(settings)
    )
    try:
        return Supervisor(board, work, listener.close, indexer, settings.drain_seconds).run()
    finally:
        board.remove()


def _serve(
    settings: Settings,
    listener: socket.socket,
    place: app_server.Place | None = None,
    parent: int | None = None,
    *,
    announce: bool = True,
    as_json: bool,
) -> int:
    import uvicorn

    from rowcast.runtime.drain import DrainingServer

    server = app_server.server(settings, place)
    protocol = app_server.protocol(settings)

    def begin_drain() -> None:
        protocol.door.closing = True
        server.drain()

    config = uvicorn.Config(
        server.app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        root_path=settings.root_path,
        backlog=BACKLOG,
    )
    _raise_file_limit(settings.max_connections)
    if announce:
        _announce(settings, server.deployment, listener, as_json=as_json)
    # Being told to stop is no failure, not even before the server listens to signals.
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: None)
    running = DrainingServer(config, begin_drain=begin_drain, drain_seconds=settings.drain_seconds, parent=parent)
    running.run(sockets=[listener])
    return 0


def index(settings: Settings) -> None:
    """Be the indexer while standard input stays open."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app_logs.configure_logging(settings)
    import structlog

    log = structlog.get_logger("rowcast.indexer")

    def told_to_end(seconds: float) -> bool:
        readable, _, _ = select.select([sys.stdin], [], [], seconds)
        return bool(readable)

    app_history.index_history(settings, told_to_end, lambda reason: log.error("history is behind", reason=reason))


def _raise_file_limit(connections: int) -> None:
    """Each connection is an open file; most systems give a process 1024 until it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + 512
    if soft < wanted and soft != resource.RLIM_INFINITY:
        allowed = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))


def _refuse_open_doors(settings: Settings) -> None:
    if not settings.listens_locally and not settings.insecure and not app_server.has_key(settings):
        raise SettingsError(
            f"setting 'host' is {settings.host!r}, open to other machines, and there is no API key: make one with "
            "`rowcast keys create NAME`, listen on 127.0.0.1, or say --insecure"
        )


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    return listener


def _announce(settings: Settings, deployment: Deployment, listener: socket.socket, *, as_json: bool) -> None:
    port = listener.getsockname()[1]
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"http://{host}:{port}{settings.root_path}"
    names = [f"{model.name}@{model.version}" for model in deployment.models()]
    if as_json:
        output.print_json({"address": address, "models": names, "default": deployment.default})
        return
    output.say(f"serving {', '.join(names)} on {address} (API: {address}/docs)")
    if deployment.default:
        row = msgspec.json.encode(deployment.get(None).sample()).decode()
        output.say(f"try:\n  curl -s {address}/predict -H 'content-type: application/json' -d {shlex.quote(row)}")
