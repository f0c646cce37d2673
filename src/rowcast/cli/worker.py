"""`rowcast worker`: run a queue worker until a signal arrives."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from rowcast.app import logs, worker
from rowcast.cli import output, server
from rowcast.runtime.signals import exit_on_stop

if TYPE_CHECKING:
    from rowcast.serving.worker_models import WorkerModels
    from rowcast.settings import Settings


def run(settings: Settings, *, as_json: bool) -> int:
    """Score the rows that servers send through the queue. Raise configuration errors before taking a message."""
    exit_on_stop()
    server.require_key(settings)
    logs.configure_logging(settings)
    with closing(server.bind(settings.host, settings.worker_port)) as listener:
        listener.listen(server.BACKLOG)
        host, port = settings.host, listener.getsockname()[1]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

        def announce(source: WorkerModels) -> None:
            names = [f"{model.name}@{model.version}" for model in source.deployment.models()]
            if as_json:
                output.print_json({"address": address, "models": names})
            else:
                output.say(f"scoring with {', '.join(names)}; health and metrics on {address}")

        worker.run_worker(settings, listener, announce)
    return 0
