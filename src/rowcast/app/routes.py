"""The HTTP parts of a server process: the routes of all dialects, with the edge and the quick path in front of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rowcast.access.ports import KeyReader
    from rowcast.access.shared_quotas import SharedQuotas
    from rowcast.app.sharing import SharedParts
    from rowcast.events import Listener
    from rowcast.history.service import History
    from rowcast.http.authentication import Authenticator
    from rowcast.http.cold_app import ColdApp
    from rowcast.http.dialects.native import NativeRoutes
    from rowcast.http.quick_path import QuickPath
    from rowcast.http.request_log import Tracer
    from rowcast.http.routes import ASGIApp, Dialect, Lifespan
    from rowcast.jobs.service import JobService
    from rowcast.runtime.server_process import ServerProcess
    from rowcast.serving.fleet import Counters
    from rowcast.serving.health import Health
    from rowcast.serving.service import PredictionService
    from rowcast.settings import Settings


class HttpParts(NamedTuple):
    """The server parts that the routes use."""

    service: PredictionService
    native: NativeRoutes
    process: ServerProcess
    history: History
    health: Health
    counters: Counters
    metrics: Callable[[], bytes]
    listen: Listener
    shared: SharedParts


class HttpApp(NamedTuple):
    """The outermost ASGI callable, and the quick path, which bypasses ASGI."""

    app: ASGIApp
    quick_path: QuickPath | None
    """The quick path, or None if the server logs or traces requests."""


def authenticator(settings: Settings, keys: KeyReader, quotas: SharedQuotas | None) -> Authenticator:
    """Return an authenticator for these keys, with the access rules from the settings."""
    from rowcast.access.addresses import parse_hosts, parse_networks
    from rowcast.access.quotas import parse_quota
    from rowcast.http.authentication import AccessRules, Authenticator

    rules = AccessRules(
        api_key=settings.api_key.get_secret_value() if settings.api_key else "",
        quota=parse_quota(settings.quota) if settings.quota else None,
        predict_quota=parse_quota(settings.quota_predict) if settings.quota_predict else None,
        processes=settings.workers,
        local_only=settings.listens_locally,
        insecure=settings.insecure,
        origins=frozenset(settings.cors_origins),
        hosts=parse_hosts(settings.allowed_hosts),
        proxies=parse_networks(settings.trusted_proxies),
        shared=quotas,
    )
    return Authenticator(keys, rules)


def http_app(
    settings: Settings, parts: HttpParts, lifespan: Lifespan, tracer: Tracer | None, *, jobs: JobService
) -> HttpApp:
    """Return the edge with all routes behind it, and the quick path."""
    from rowcast.app.access import idempotency_store
    from rowcast.http.bodies import RequestIds
    from rowcast.http.edge import Edge
    from rowcast.http.health_routes import HealthRoutes
    from rowcast.http.idempotency import Idempotency
    from rowcast.http.late_app import LateColdApp
    from rowcast.http.quick_path import QuickPath
    from rowcast.http.request_log import RequestLog
    from rowcast.http.routes import RequestRules, Router

    health = HealthRoutes(
        parts.service.deployment, parts.health, parts.process, parts.metrics, open_metrics=settings.open_metrics
    )
    router = Router(parts.native.routes, [health, *_dialects(parts)])
    rules = RequestRules(settings.max_body_bytes, settings.max_wait_seconds, settings.root_path)
    access, ids = authenticator(settings, parts.shared.keys, parts.shared.quotas), RequestIds(secrets.token_hex(6))
    replies, threads = idempotency_store(settings)
    idempotency = Idempotency(
        replies, settings.idempotency_seconds, max_bytes=settings.idempotency_mb * 1024 * 1024, threads=threads
    )
    cold = LateColdApp(router, partial(_cold_app, settings, parts, jobs), settings.root_path)
    if settings.queue is None:  # a thread that builds it later would delay the models, which run on the event loop
        cold.build()
    edge = cold.guard(Edge(router, cold, lifespan, parts.listen, access, idempotency, rules, ids))
    if settings.access_log or tracer is not None:
        return HttpApp(RequestLog(edge, access_log=settings.access_log, tracer=tracer), None)
    return HttpApp(edge, QuickPath(router, access, parts.listen, rules, ids))


def _cold_app(settings: Settings, parts: HttpParts, jobs: JobService) -> ColdApp:
    """Return the app for the pages, the history and the jobs. Only this app needs FastAPI."""
    from rowcast.http.cold_app import ColdApp
    from rowcast.http.cold_routes import add_cold_routes
    from rowcast.http.job_routes import add_job_routes

    deployment = parts.service.deployment
    cold = ColdApp()
    add_cold_routes(cold, deployment, parts.history, parts.process, open_metrics=settings.open_metrics)
    add_job_routes(
        cold,
        jobs,
        deployment,
        max_json_bytes=settings.max_body_bytes,
        is_draining=lambda: not parts.health.is_ready,
    )
    return cold


def _dialects(parts: HttpParts) -> list[Dialect]:
    from rowcast.http.dialects.mlflow import MLflowRoutes
    from rowcast.http.dialects.scoring import DialectScoring
    from rowcast.http.dialects.v1 import V1Routes
    from rowcast.http.dialects.v2 import V2Routes
    from rowcast.http.dialects.v2_repository import Repository
    from rowcast.http.dialects.v2_statistics import ModelStatistics

    deployment, process = parts.service.deployment, parts.process

    def is_ready() -> bool:
        return parts.health.is_ready and bool(deployment.models()) and not parts.health.unready_reason()

    scoring = DialectScoring(parts.service)
    repository = Repository(process.published, process, deployment)
    return [
        V2Routes(scoring, is_ready, repository, ModelStatistics(parts.counters)),
        MLflowRoutes(scoring, is_ready),
        V1Routes(scoring, is_ready),
    ]
