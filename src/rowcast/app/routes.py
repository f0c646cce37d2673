"""The HTTP parts of a server process: routes of all dialects and the edge in front of them."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from rowcast.events import Listener
    from rowcast.history.service import History
    from rowcast.http.authentication import Authenticator
    from rowcast.http.dialects.native import NativeRoutes
    from rowcast.http.edge import Edge
    from rowcast.http.routes import Dialect, Lifespan
    from rowcast.runtime.worker import WorkerProcess
    from rowcast.serving.fleet import Counters
    from rowcast.serving.health import Health
    from rowcast.serving.service import PredictionService
    from rowcast.settings import Settings


class HttpParts(NamedTuple):
    """What the routes need of the other parts."""

    service: PredictionService
    native: NativeRoutes
    process: WorkerProcess
    history: History
    health: Health
    counters: Counters
    metrics: Callable[[], bytes]
    listen: Listener


def authenticator(settings: Settings) -> Authenticator:
    """Return what identifies callers."""
    from rowcast.access.quotas import parse_quota
    from rowcast.app.access import keys
    from rowcast.http.authentication import AccessRules, Authenticator

    rules = AccessRules(
        api_key=settings.api_key.get_secret_value() if settings.api_key else "",
        quota=parse_quota(settings.quota) if settings.quota else None,
        processes=settings.workers,
        local_only=settings.listens_locally,
        origins=frozenset(settings.cors_origins),
    )
    return Authenticator(keys(settings), rules)


def edge(settings: Settings, parts: HttpParts, lifespan: Lifespan) -> Edge:
    """Return the outermost ASGI callable."""
    from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore
    from rowcast.http.cold_app import ColdApp
    from rowcast.http.cold_routes import add_cold_routes
    from rowcast.http.edge import Edge
    from rowcast.http.idempotency import Idempotency
    from rowcast.http.routes import Router

    cold = ColdApp()
    add_cold_routes(
        cold,
        parts.service.deployment,
        parts.history,
        parts.health,
        parts.process,
        parts.metrics,
        open_metrics=settings.open_metrics,
    )
    return Edge(
        Router(parts.native.routes, _dialects(parts), cold.routes),
        cold.api,
        lifespan,
        parts.listen,
        authenticator(settings),
        Idempotency(SqliteIdempotencyStore(settings.repeats_file), settings.idempotency_seconds),
        max_body=settings.max_body_bytes,
        wait_seconds=settings.max_wait_seconds,
        root_path=settings.root_path,
        request_id_prefix=secrets.token_hex(6),
    )


def _dialects(parts: HttpParts) -> list[Dialect]:
    from rowcast.http.dialects.mlflow import MLflowRoutes
    from rowcast.http.dialects.scoring import DialectScoring
    from rowcast.http.dialects.v1 import V1Routes
    from rowcast.http.dialects.v2 import V2Routes
    from rowcast.http.dialects.v2_repository import Repository
    from rowcast.http.dialects.v2_statistics import ModelStatistics

    deployment, process = parts.service.deployment, parts.process

    def is_ready() -> bool:
        return parts.health.is_ready and bool(deployment.models())

    scoring = DialectScoring(parts.service)
    repository = Repository(process.published, process, deployment)
    return [
        V2Routes(scoring, is_ready, repository, ModelStatistics(parts.counters)),
        MLflowRoutes(scoring, is_ready),
        V1Routes(scoring, is_ready),
    ]
