"""The composition root of a server process: settings in, every part out, in the order in which they depend."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app import imports, models, routes, serving, telemetry
from rowcast.app.history import history
from rowcast.app.indexer import indexer_command, indexer_is_running

if TYPE_CHECKING:
    from rowcast.http.edge import Edge
    from rowcast.http.routes import ASGIApp
    from rowcast.runtime.lifecycle import Application, Part
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.fleet import WorkerState
    from rowcast.serving.live_models import LiveModel
    from rowcast.settings import Settings


class Server(NamedTuple):
    """A server process before its first request."""

    app: ASGIApp
    edge: Edge | None
    """For the quick path; None when every request is logged or traced."""
    deployment: Deployment[LiveModel]
    drain: Callable[[], None]


class Place(NamedTuple):
    """A worker's place among the workers of one supervisor, which also keeps the indexer running."""

    state: WorkerState
    worker: int


def worker_state(settings: Settings) -> WorkerState:
    """Return what the workers of one server share; made once for each server."""
    from rowcast.adapters.files.worker_state import ServerFolder

    return ServerFolder(settings.run_folder, settings.workers)


def application(settings: Callable[[], Settings]) -> Application:
    """Return the public ASGI app; nothing is read or opened before it starts."""
    from rowcast.runtime.lifecycle import Application

    return Application(lambda: build_server(settings()).app)


def build_server(settings: Settings, place: Place | None = None) -> Server:
    """Build a server process. Without a place it is the only process of its server and starts an indexer itself."""
    from rowcast.adapters.files.journal_reader import FolderJournalReader
    from rowcast.adapters.files.shared_counters import LocalCounters
    from rowcast.adapters.telemetry.prometheus import Metrics
    from rowcast.http.dialects.native import NativeRoutes
    from rowcast.http.request_log import RequestLog
    from rowcast.runtime.journal_monitor import MEBIBYTE, JournalMonitor
    from rowcast.runtime.lifecycle import Closing, IndexerChild, Lifecycle, Reporting
    from rowcast.runtime.worker import WorkerProcess, log_import_errors
    from rowcast.serving.health import Health

    registry, health, number = models.registry(settings), Health(), place.worker if place else 0
    with ExitStack() as undo:
        state = place.state if place else worker_state(settings)
        parts: list[Part] = []
        if place is None:
            undo.callback(state.remove)
            parts.append(Closing(state.remove))
            log_import_errors(imports.import_models_folder(settings))  # a supervisor has done it for its workers
        slot = state.slot(number)
        undo.callback(slot.close)
        counters = state.counters(number) if place else LocalCounters()
        journals = FolderJournalReader(settings.journal_folder)
        metrics = Metrics(counters, journals.backlog, old_names=settings.metrics_aliases)
        live = serving.live_parts(settings, registry, state, metrics.listen)
        service, batcher, journal = serving.prediction_parts(settings, live.deployment, metrics.listen)
        undo.callback(journal.close)
        native = NativeRoutes(service)
        process = WorkerProcess(
            state,
            slot,
            live,
            generation=registry.generation,
            import_models=lambda: imports.import_models_folder(settings, retry_failed=True),
            queue=batcher.queue,
            on_change=native.refresh,
        )
        monitor = JournalMonitor(journal, batcher.refuse, serving.free_bytes(settings), settings.min_free_mb * MEBIBYTE)
        health.register("history", serving.store_check(settings))
        health.register("disk", monitor.disk_problem)

        def exposition() -> bytes:
            return metrics.exposition(process.workers())

        tracer, pusher = telemetry.tracer(settings), telemetry.pusher(settings, exposition, state.workers, number)
        parts += [Reporting(part.start, part.stop) for part in (tracer, pusher) if part is not None]
        parts.append(process)
        if place is None:
            command = indexer_command()
            parts.append(IndexerChild(command, settings.for_child(), lambda: indexer_is_running(settings)))
        parts += [Closing(journal.close), monitor]
        lifecycle = Lifecycle(health, parts, process.drain)
        http = routes.HttpParts(
            service, native, process, history(settings), health, counters, exposition, metrics.listen
        )
        edge = routes.edge(settings, http, lifecycle)
        undo.pop_all()
    if not settings.access_log and tracer is None:
        return Server(edge, edge, live.deployment, lifecycle.drain)
    app = RequestLog(edge, access_log=settings.access_log, tracer=tracer)
    return Server(app, None, live.deployment, lifecycle.drain)
