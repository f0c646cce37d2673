"""The health routes and the metrics, which load balancers and Prometheus request frequently.

These routes do not need FastAPI. A worker therefore never loads it, and a server with a queue loads it only when
another cold route is requested.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from rowcast.access.callers import Caller
from rowcast.http.authentication import require_everything
from rowcast.http.routes import Handler, Request, Response, Route, any_options
from rowcast.serving.fleet import ProcessStatus
from rowcast.serving.health import Health, HealthReport, Liveness, Readiness

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.fleet import Fleet
    from rowcast.serving.interface import ModelInterface

HEALTH, LIVE, READY, METRICS = "/health", "/health/live", "/health/ready", "/metrics"
METRICS_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

_encode = msgspec.json.Encoder().encode


class HealthRoutes:
    """The routes `/health`, `/health/live`, `/health/ready` and `/metrics`."""

    def __init__(
        self,
        deployment: Deployment[ModelInterface],
        health: Health,
        fleet: Fleet | None,
        metrics: Callable[[], bytes],
        *,
        open_metrics: bool,
    ) -> None:
        self._deployment = deployment
        self._health = health
        self._fleet = fleet
        self._metrics = metrics
        self._open_metrics = open_metrics
        self._routes = {
            HEALTH: _get(HEALTH, self._report),
            LIVE: _get(LIVE, self._live, is_probe=True),
            READY: _get(READY, self._ready, is_probe=True),
            METRICS: _get(METRICS, self._export_metrics, is_public=open_metrics),
        }

    def find(self, path: str) -> Route | None:
        """Return the route for a path."""
        return self._routes.get(path)

    async def _report(self, request: Request) -> Response:
        # The checks can wait for a disk or a database.
        report, is_working = await asyncio.to_thread(self._check, request.context.caller)
        return Response(_encode(report), 200 if is_working else 503)

    def _check(self, who: Caller) -> tuple[HealthReport, bool]:
        """Return the report, and whether the server can answer all requests."""
        health, deployment = self._health, self._deployment
        processes = () if self._fleet is None else self._fleet.processes()
        visible = tuple(visible_process(process, who) for process in processes)
        unready = [f"process {process.process} is {process.state}" for process in visible if process.state != "ready"]
        checks = {**health.report(), "processes": "; ".join(unready) or "ok"}
        models = tuple(f"{model.name}@{model.version}" for model in deployment.restricted_to(who.models).models())
        is_ready = health.is_ready and bool(deployment.live) and not health.unready_reason()
        problems = [name for name, state in checks.items() if state != "ok"]
        report = HealthReport("ok" if is_ready and not problems else "degraded", is_ready, models, checks, visible)
        return report, is_ready and all(map(health.can_do_without, problems))

    async def _live(self, request: Request) -> Response:
        return Response(_encode(Liveness()))

    async def _ready(self, request: Request) -> Response:
        reason = self._health.unready_reason()
        is_ready = self._health.is_ready and bool(self._deployment.models()) and not reason
        return Response(_encode(Readiness(is_ready, reason)), 200 if is_ready else 503)

    async def _export_metrics(self, request: Request) -> Response:
        if not self._open_metrics:
            require_everything(request.context.caller)
        return Response(await asyncio.to_thread(self._metrics), content_type=METRICS_TYPE)


def visible_process(process: ProcessStatus, who: Caller) -> ProcessStatus:
    """Return the status of a server process, omitting the models that the caller cannot use."""
    if not who.models:
        return process
    models = tuple(loaded for loaded in process.models if who.may_use(loaded.model))
    error = "the last reload failed" if process.reload_error else ""  # the original message may name other models
    return msgspec.structs.replace(process, models=models, reload_error=error)


def _get(pattern: str, handler: Handler, *, is_probe: bool = False, is_public: bool = False) -> Route:
    return Route(
        pattern=pattern,
        method="GET",
        handler=handler,
        is_public=is_public or is_probe,
        is_probe=is_probe,
        read_options=any_options,
    )
