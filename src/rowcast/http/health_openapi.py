"""The OpenAPI operations of the health routes and the metrics."""

from __future__ import annotations

from typing import Any

from rowcast.http.health_routes import HEALTH, LIVE, METRICS, READY
from rowcast.http.json_schemas import TEXT, Json, reference
from rowcast.http.openapi_parts import COMMON_HEADERS, require_key
from rowcast.serving.health import HealthReport, Liveness, Readiness

REPLIES = (HealthReport, Liveness, Readiness)
"""The reply types. Their schemas are components of the document."""


def paths(*, open_metrics: bool) -> dict[str, Json]:
    """Return the operations by path."""
    report = _operation(
        "report_health_health_get",
        "The state of every component and server process",
        HealthReport,
        unready="A component that the server needs, or a server process, is unhealthy",
    )
    require_key(report)
    live = _operation("report_liveness_health_live_get", "Whether the process responds", Liveness)
    ready = _operation(
        "report_readiness_health_ready_get",
        "Whether the server is ready to serve predictions",
        Readiness,
        unready="No model is loaded, no worker has the default model, or the server is shutting down",
    )
    metrics = _operation("export_metrics_metrics_get", "Prometheus metrics", None)
    if not open_metrics:
        require_key(metrics)
    return {HEALTH: {"get": report}, LIVE: {"get": live}, READY: {"get": ready}, METRICS: {"get": metrics}}


def _operation(name: str, summary: str, reply: Any, *, unready: str = "") -> Json:
    """Return an operation; `reply` is None for a text response, and `unready` describes the 503 response."""
    content = {"text/plain": TEXT} if reply is None else {"application/json": reference(reply.__name__)}
    success = {
        "description": summary,
        "headers": COMMON_HEADERS,
        "content": {media_type: {"schema": schema} for media_type, schema in content.items()},
    }
    responses = {"200": success, **({"503": {**success, "description": unready}} if unready else {})}
    return {"tags": ["health"], "summary": summary, "operationId": name, "responses": responses}
