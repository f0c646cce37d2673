"""Composition root of a worker, which scores the rows that servers send through the queue, and runs jobs."""

from __future__ import annotations

import os
import secrets
import socket
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from rowcast.app import models, queueing, serving, telemetry
from rowcast.app.access import served_keys
from rowcast.app.jobs import job_parts
from rowcast.app.routes import authenticator

if TYPE_CHECKING:
    from rowcast.http.authentication import Authenticator
    from rowcast.http.routes import ASGIApp, Lifespan
    from rowcast.runtime.lifecycle import Part
    from rowcast.serving.health import Health
    from rowcast.serving.worker_models import WorkerModels
    from rowcast.settings import Settings


class Worker(NamedTuple):
    """The parts of a worker that has not started yet."""

    app: ASGIApp
    models: WorkerModels
    drain: Callable[[], None]


def run_worker(settings: Settings, listener: socket.socket, announce: Callable[[WorkerModels], None]) -> None:
    """Run in this process until a signal arrives. Call `announce` once every model is loaded."""
    from rowcast.app.processes import connection_limits
    from rowcast.runtime.server import HttpServer, run

    built = build_worker(settings)
    server = HttpServer(
        app=built.app,
        quick_path=None,
        limits=connection_limits(settings),
        root_path=settings.root_path,
        drain_seconds=settings.drain_seconds,
        on_drain=built.drain,
    )
    run(server, listener, lambda: announce(built.models))


def build_worker(settings: Settings) -> Worker:
    """Build a worker: its models, its side of the queue, and the HTTP server for its health and metrics."""
    from rowcast.adapters.files.shared_counters import LocalCounters
    from rowcast.runtime.lifecycle import Closing, Lifecycle
    from rowcast.serving.health import Health
    from rowcast.serving.queue_worker import QueueWorker

    name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    metrics = telemetry.metrics(settings, LocalCounters())
    reading = queueing.reader_parts(settings, name, metrics.listen)
    source = serving.worker_models(settings, models.registry(settings), metrics.listen)
    worker = QueueWorker(
        reading.reader,
        source,
        metrics.listen,
        concurrency=settings.worker_concurrency,
        drain_seconds=settings.drain_seconds,
    )
    metrics.watch_queue(lambda: reading.reader.status)
    health = Health()
    health.register("queue", reading.link.problem, is_required=True)
    health.register("models", source.problem)
    jobs = job_parts(settings, is_worker=True)
    keys = served_keys(settings)
    parts: list[Part] = [Closing(jobs.service.close), jobs.child, reading.link, source, worker, *keys.parts]
    lifecycle = Lifecycle(health, parts, worker.drain)
    access = authenticator(settings, keys.keys, None)
    app = _app(settings, source, health, telemetry.exposition(metrics, tuple), lifecycle, access)
    return Worker(app, source, lifecycle.drain)


def _app(
    settings: Settings,
    source: WorkerModels,
    health: Health,
    exposition: Callable[[], bytes],
    lifespan: Lifespan,
    access: Authenticator,
) -> ASGIApp:
    from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore
    from rowcast.http.bodies import RequestIds
    from rowcast.http.edge import Edge
    from rowcast.http.health_routes import HealthRoutes
    from rowcast.http.idempotency import Idempotency
    from rowcast.http.routes import RequestRules, Router, refuse_unknown_path

    routes = HealthRoutes(source.deployment, health, None, exposition, open_metrics=settings.open_metrics)
    rules = RequestRules(settings.max_body_bytes, settings.max_wait_seconds, settings.root_path)
    idempotency = Idempotency(SqliteIdempotencyStore(settings.repeats_file), 1.0, max_bytes=1)
    router, ids = Router({}, [routes]), RequestIds(secrets.token_hex(6))
    return Edge(router, refuse_unknown_path, lifespan, lambda event: None, access, idempotency, rules, ids)
