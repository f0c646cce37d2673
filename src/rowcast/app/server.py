"""Composition root: builds every part of a server process from the settings."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app import imports, models, queueing, routes, serving, sharing, telemetry
from rowcast.app.history import history
from rowcast.app.indexer import indexer_child
from rowcast.app.jobs import job_parts
from rowcast.app.server_processes import server_state

if TYPE_CHECKING:
    from rowcast.app.server_processes import Place
    from rowcast.http.quick_path import QuickPath
    from rowcast.http.routes import ASGIApp
    from rowcast.runtime.lifecycle import Application, Part
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface
    from rowcast.settings import Settings


class Server(NamedTuple):
    """The parts of a server process before it starts to serve requests."""

    app: ASGIApp
    quick_path: QuickPath | None
    deployment: Deployment[ModelInterface]
    drain: Callable[[], None]


def application(settings: Callable[[], Settings]) -> Application:
    """Return the public ASGI app, which reads no settings and opens no files before it starts."""
    from rowcast.runtime.lifecycle import Application

    return Application(lambda: build_server(settings()).app)


def build_server(settings: Settings, place: Place | None = None) -> Server:
    """Build a server process. If `place` is None, it is the server's only process and keeps the indexer running."""
    from rowcast.adapters.files.shared_counters import LocalCounters
    from rowcast.http.dialects.native import NativeRoutes
    from rowcast.runtime.lifecycle import Closing, Lifecycle
    from rowcast.runtime.server_process import ServerProcess, log_import_errors
    from rowcast.serving.health import Health

    registry, health, number = models.registry(settings), Health(), place.number if place else 0
    with ExitStack() as undo:
        state = place.state if place else server_state(settings)
        parts: list[Part] = []
        if place is None:
            undo.callback(state.remove)
            parts.append(Closing(state.remove))
            # If there are several server processes, `rowcast serve` has already imported the models.
            log_import_errors(imports.import_models_folder(settings))
        slot = state.slot(number)
        undo.callback(slot.close)
        counters = state.counters(number) if place else LocalCounters()
        metrics = telemetry.metrics(settings, counters)
        listen = metrics.listen
        queue = queueing.queue_parts(settings, listen)
        trial = None if queue is None else queue.trial(settings, registry)
        live = serving.live_parts(settings, registry, state, listen, trial)
        shared = sharing.shared_parts(settings, listen)
        scorer = None if queue is None else queue.scorer(live.deployment, health, metrics)
        predicting = serving.prediction_parts(settings, live.deployment, listen, shared.cache, scorer)
        undo.callback(predicting.journal.close)
        native = NativeRoutes(predicting.service)
        process = ServerProcess(
            state,
            slot,
            live,
            generation=registry.generation,
            import_models=lambda: imports.import_models_folder(settings, retry_failed=True),
            queue=predicting.batcher.queue,
            on_change=native.refresh,
        )
        exposition = telemetry.exposition(metrics, process.processes)
        tracer = telemetry.tracer(settings)
        parts += [*telemetry.reporters(settings, tracer, exposition, state, number), *shared.connections]
        parts += [*(queue or ()), process]
        for name, check in shared.checks.items():
            health.register(name, check, is_optional=True)
        if place is None:
            parts.append(indexer_child(settings))
        jobs = job_parts(settings)
        parts += [Closing(jobs.service.close), jobs.child]
        parts += [Closing(predicting.journal.close), serving.journal_monitor(settings, predicting, health)]
        lifecycle = Lifecycle(health, parts, process.drain)
        http = routes.HttpParts(
            predicting.service, native, process, history(settings), health, counters, exposition, listen, shared
        )
        front = routes.http_app(settings, http, lifecycle, tracer, jobs=jobs.service)
        undo.pop_all()
    return Server(front.app, front.quick_path, live.deployment, lifecycle.drain)
