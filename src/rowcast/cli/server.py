"""`rowcast serve`, and its child processes: the hidden commands `rowcast indexer` and `rowcast job-runner`."""

from __future__ import annotations

import select
import shlex
import signal
import socket
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import msgspec

from rowcast.app import access, imports, indexer, jobs, logs, processes
from rowcast.cli import first_model, output
from rowcast.errors import RowcastError, SettingsError
from rowcast.runtime.signals import exit_on_stop

if TYPE_CHECKING:
    from pathlib import Path

    from rowcast.app.server_processes import Place
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface
    from rowcast.settings import Settings

BACKLOG = 2048


def run(settings: Settings, *, train_if_missing: Path | None, target: str | None, as_json: bool) -> int:
    """Serve requests until a signal arrives. Raise configuration errors before accepting the first connection."""
    exit_on_stop()
    require_key(settings)
    logs.configure_logging(settings)
    with closing(bind(settings.host, settings.port)) as listener:
        if settings.workers > 1 or train_if_missing is not None:
            _import_models(settings)
        if train_if_missing is not None:
            first_model.ensure(settings, train_if_missing, target)
        elif target is not None:
            raise SettingsError("--target requires --train-if-missing")
        listener.listen(BACKLOG)  # while the models are loading, queue connections instead of refusing them
        if settings.workers == 1:
            return _serve(settings, listener, as_json=as_json)
        return _supervise(settings, listener, as_json=as_json)


def _import_models(settings: Settings) -> None:
    for result in imports.import_models_folder(settings):
        if result.error:
            output.say(f"cannot serve {result.file}: {result.error}")


def _serve(settings: Settings, listener: socket.socket, *, as_json: bool) -> int:
    processes.serve(settings, listener, lambda live: _announce(settings, live, listener, as_json=as_json))
    return 0


def _supervise(settings: Settings, listener: socket.socket, *, as_json: bool) -> int:
    def work(place: Place, parent: int, is_first: bool) -> int:
        def announce(live: Deployment[ModelInterface]) -> None:
            if is_first:
                _announce(settings, live, listener, as_json=as_json)

        try:
            processes.serve(settings, listener, announce, place=place, parent=parent)
        except RowcastError as error:
            output.say(f"error: {' '.join(error.message.split())}")
            return 2
        return 0

    return processes.supervise(settings, listener, work)


def index(settings: Settings) -> None:
    """Run the indexer until standard input closes."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.configure_logging(settings)
    import structlog

    log = structlog.get_logger("rowcast.indexer")
    indexer.index_history(settings, _wait_for_end, lambda reason: log.error("history is behind", reason=reason))


def run_jobs(settings: Settings) -> None:
    """Run jobs until standard input closes or no jobs are left."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    logs.configure_logging(settings)
    jobs.run_jobs(settings, _wait_for_end)


def _wait_for_end(seconds: float) -> bool:
    """Wait up to this long for standard input to close; return whether it has closed."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable)


def require_key(settings: Settings) -> None:
    """Raise SettingsError if clients on other machines could connect without a key."""
    if not settings.listens_locally and not settings.insecure and not access.has_key(settings):
        raise SettingsError(
            f"host {settings.host!r} accepts connections from other machines, but there is no API key; create a key "
            "with `rowcast keys create NAME`, listen on 127.0.0.1, or pass --insecure"
        )


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to this address but not listening yet; raise SettingsError if binding fails."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise SettingsError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listener


def _announce(
    settings: Settings, deployment: Deployment[ModelInterface], listener: socket.socket, *, as_json: bool
) -> None:
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
