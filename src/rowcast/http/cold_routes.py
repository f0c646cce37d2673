"""The cold routes: what is requested a few times a minute. Predictions have routes of their own in `dialects/`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
from fastapi import Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from rowcast.access.callers import Caller
from rowcast.errors import ModelNotFound, NotFound, RequestError
from rowcast.history.entry_filter import Selection, parse_selection, visible_to
from rowcast.history.export import FORMATS
from rowcast.history.service import History
from rowcast.http import openapi
from rowcast.http.authentication import model_for, require_everything
from rowcast.http.cold_app import ColdApp
from rowcast.serving.deployment import Deployment
from rowcast.serving.fleet import Fleet, WorkerStatus
from rowcast.serving.health import Health
from rowcast.serving.live_models import LiveModel
from rowcast.version import VERSION

# Swagger UI and ReDoc use style attributes and icons from data URLs.
DOCS_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Rowcast API</title>
<link rel="icon" href="static/icon.svg">
{head}
</head>
<body style="margin:0">
<noscript>This page draws the API from openapi.json and needs JavaScript.</noscript>
{body}
</body>
</html>
"""
SWAGGER = PAGE.format(
    head='<link rel="stylesheet" href="static/vendor/swagger-ui/swagger-ui.css">',
    body='<div id="swagger-ui"></div>\n'
    '<script src="static/vendor/swagger-ui/swagger-ui-bundle.js"></script>\n'
    '<script src="static/swagger-init.js" data-openapi="openapi.json"></script>',
)
REDOC = PAGE.format(
    head="",
    body='<div id="redoc"></div>\n'
    '<script src="static/vendor/redoc/redoc.standalone.js"></script>\n'
    '<script src="static/redoc-init.js" data-openapi="openapi.json"></script>',
)

PageSize = Annotated[int, Query(ge=1, le=1000, description="Entries on one page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the previous page.")]
Wire = Annotated[bool, Query(description="`false`: a row in the native form.")]
Format = Annotated[str, Query(description="`jsonl` or `csv`.")]
EXPORT_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
FILTER_NAMES = ("model", "version", "label", "entity", "since", "until")


@dataclass(frozen=True)
class Filters:
    """The filters of history, as query parameters."""

    model: Annotated[str | None, Query(max_length=64)] = None
    version: Annotated[int | None, Query(ge=1, le=2**31)] = None
    label: Annotated[str | None, Query(max_length=500)] = None
    entity: Annotated[str | None, Query(max_length=128)] = None
    since: Annotated[str | None, Query(max_length=40, description="RFC 3339 or a date; included.")] = None
    until: Annotated[str | None, Query(max_length=40, description="RFC 3339 or a date; not included.")] = None

    def selection(self, caller: Caller) -> Selection:
        """Return what is selected of what the caller may see."""
        visible = _visible_entries(caller)
        chosen = parse_selection(tenant=visible.tenant, **asdict(self))
        return msgspec.structs.replace(chosen, models=visible.models)


def _visible_entries(caller: Caller) -> Selection:
    """Return which entries the caller may see."""
    return visible_to(tenant=None if caller.sees_all_tenants else caller.tenant, models=caller.models)


def _refuse_unknown(request: Request, known: Sequence[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise RequestError(f"unknown option {name[:40]!r}; known options: {', '.join(known)}", slug="bad-option")


class Json(Response):
    """A JSON response encoded by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode anything that msgspec supports."""
        return msgspec.json.encode(content)


def add_cold_routes(
    cold: ColdApp,
    deployment: Deployment[LiveModel],
    history: History,
    health: Health,
    fleet: Fleet,
    metrics: Callable[[], bytes],
    *,
    open_metrics: bool,
) -> None:
    """Add every route but those for predictions."""
    _add_model_routes(cold, deployment, fleet)
    _add_history_routes(cold, history)
    _add_health_routes(cold, deployment, health, fleet)
    _add_metrics_route(cold, metrics, is_public=open_metrics)
    _add_root(cold, deployment)
    _add_documentation(cold, deployment)


def _add_model_routes(cold: ColdApp, deployment: Deployment[LiveModel], fleet: Fleet) -> None:
    @cold.route("GET", "/models", tags=["models"], summary="Every model that is served")
    def models(request: Request) -> Response:
        visible = deployment.restricted_to(caller(request).models).models()
        return Json({"models": [describe(model, deployment) for model in visible]})

    @cold.route("GET", "/models/info", tags=["models"], summary="The default model: schema, metrics, parity")
    def default_model(request: Request) -> Response:
        model = model_for(caller(request), deployment, None)
        return Json(describe(model, deployment) | legacy_facts(model))

    @cold.route("GET", "/models/{name}", tags=["models"], summary="One model: schema, metrics, parity")
    def one_model(name: str, request: Request) -> Response:
        model = model_for(caller(request), deployment, name)
        etag = f'"{model.digest}"'
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {etag, "*"}:
            return Response(status_code=304, headers={"etag": etag})
        return Json(describe(model, deployment), headers={"etag": etag})

    @cold.route(
        "POST", "/models/reload", "admin", tags=["models"], summary="Follow the registry now; each worker's state"
    )
    async def reload() -> Response:
        result = await fleet.reload()
        return Json(result, status_code={"ok": 200, "failed": 409, "pending": 503}[result.status])

    @cold.route("POST", "/models/{name}/predict", "predict", include_in_schema=False)
    @cold.route("POST", "/models/{name}/predict/batch", "predict", include_in_schema=False)
    def unknown_model(name: str, request: Request) -> Response:
        # Live models have routes of their own, so this raises ModelNotFound or Forbidden.
        model_for(caller(request), deployment, name)
        raise NotFound("nothing exists at this address; see /docs")

    @cold.route("GET", "/sample", tags=["models"], summary="A row that the default model accepts")
    def sample(request: Request, wire: Wire = True) -> Response:
        model = model_for(caller(request), deployment, None)
        return Json(model.sample() if wire else model.example())


def _add_history_routes(cold: ColdApp, history: History) -> None:
    @cold.route("GET", "/predictions", "read", tags=["history"], summary="Predictions, newest first")
    def predictions(
        request: Request, filters: Annotated[Filters, Depends()], limit: PageSize = 50, cursor: Cursor = None
    ) -> Response:
        _refuse_unknown(request, [*FILTER_NAMES, "limit", "cursor"])
        return Json(history.page(limit, filters.selection(caller(request)), cursor))

    @cold.route("GET", "/predictions/export", "read", tags=["history"], summary="Predictions as a file, newest first")
    def export(request: Request, filters: Annotated[Filters, Depends()], format: Format = "jsonl") -> Response:  # noqa: A002
        _refuse_unknown(request, [*FILTER_NAMES, "format"])
        if format not in FORMATS:
            hint = "; `rowcast history export` writes Parquet" if format == "parquet" else ""
            raise RequestError(f"format: {format[:40]!r} is not one of {', '.join(FORMATS)}{hint}", slug="bad-option")
        headers = {"content-disposition": f'attachment; filename="predictions.{format}"'}
        pieces = FORMATS[format](history.select(filters.selection(caller(request))))
        return StreamingResponse(pieces, headers=headers, media_type=EXPORT_TYPES[format])

    @cold.route(
        "GET", "/predictions/{prediction_id}", "read", tags=["history"], summary="One prediction with its evidence"
    )
    def prediction(prediction_id: str, request: Request) -> Response:
        record = history.get(prediction_id.lower(), _visible_entries(caller(request)))
        if record is None:
            raise NotFound(f"history has no prediction {prediction_id[:64]!r}")
        return Json(record)


def _add_health_routes(cold: ColdApp, deployment: Deployment[LiveModel], health: Health, fleet: Fleet) -> None:
    @cold.route("GET", "/health", tags=["health"], summary="Every part and every worker, with what is wrong")
    def everything(request: Request) -> Response:
        who = caller(request)
        workers = [_visible(worker, who) for worker in fleet.workers()]
        unready = [f"worker {worker.worker} is {worker.state}" for worker in workers if worker.state != "ready"]
        checks = {**health.report(), "workers": "; ".join(unready) or "ok"}
        models = [f"{model.name}@{model.version}" for model in deployment.restricted_to(who.models).models()]
        ready = health.is_ready and bool(deployment.live)
        is_fine = ready and all(state == "ok" for state in checks.values())
        body = {
            "status": "ok" if is_fine else "degraded",
            "ready": ready,
            "models": models,
            "checks": checks,
            "workers": workers,
        }
        return Json(body, status_code=200 if is_fine else 503)

    @cold.route("GET", "/health/live", is_public=True, tags=["health"], summary="The process answers")
    async def live() -> Response:
        return Json({"live": True})

    @cold.route("GET", "/health/ready", is_public=True, tags=["health"], summary="At least one model is loaded")
    async def ready() -> Response:
        is_ready = health.is_ready and bool(deployment.models())
        return Json({"ready": is_ready}, status_code=200 if is_ready else 503)


def _add_metrics_route(cold: ColdApp, metrics: Callable[[], bytes], *, is_public: bool) -> None:
    @cold.route("GET", "/metrics", is_public=is_public, tags=["health"], summary="Prometheus metrics")
    def prometheus(request: Request) -> Response:
        if not is_public:
            require_everything(caller(request))
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_root(cold: ColdApp, deployment: Deployment[LiveModel]) -> None:
    @cold.route("GET", "/", is_public=True, include_in_schema=False)
    async def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs", headers={"vary": "Accept"})
        reply = _root_reply(deployment)
        if reply is not None:
            return Response(reply, media_type="application/json", headers={"vary": "Accept"})
        models = [model.name for model in deployment.restricted_to(caller(request).models).models()]
        # KServe's V1 client reads `status`.
        body = {"name": "rowcast", "version": VERSION, "status": "alive", "models": models}
        return Json(body, headers={"vary": "Accept"})


def _add_documentation(cold: ColdApp, deployment: Deployment[LiveModel]) -> None:
    @cold.route("GET", "/openapi.json", is_public=True, include_in_schema=False)
    def openapi_document(request: Request) -> Response:
        visible = deployment.restricted_to(caller(request).models)
        return Json(openapi.document(cold.api, visible, request.scope.get("root_path", "")))

    @cold.route("GET", "/docs", is_public=True, include_in_schema=False)
    async def swagger() -> Response:
        return HTMLResponse(SWAGGER, headers={"content-security-policy": DOCS_POLICY})

    @cold.route("GET", "/redoc", is_public=True, include_in_schema=False)
    async def redoc() -> Response:
        return HTMLResponse(REDOC, headers={"content-security-policy": DOCS_POLICY})


def _visible(worker: WorkerStatus, who: Caller) -> WorkerStatus:
    """Return a worker without the models that the caller may not use."""
    if not who.models:
        return worker
    models = tuple(loaded for loaded in worker.models if who.may_use(loaded.model))
    error = "a change of the registry could not be followed" if worker.reload_error else ""
    return msgspec.structs.replace(worker, models=models, reload_error=error)


def _root_reply(deployment: Deployment[LiveModel]) -> bytes | None:
    """Return the reply to `/` of the default model's wire template, which is public."""
    try:
        model = deployment.get(None)
    except ModelNotFound:
        return None
    return model.wire.root if model.wire is not None else None


def caller(request: Request) -> Caller:
    """Return the caller, whom the edge has authenticated."""
    authenticated: Caller = request.scope["state"]["caller"]
    return authenticated


def describe(model: LiveModel, deployment: Deployment[LiveModel]) -> dict[str, Any]:
    """Return a model as `/models/{name}` shows it."""
    manifest = model.manifest
    decision = model.decision
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "default": deployment.is_default(model),
        "task": decision.task,
        "classes": decision.classes,
        "positive": decision.classes[decision.positive] if decision.task == "binary" else None,
        "threshold": decision.threshold if decision.task == "binary" else None,
        "target": manifest.training.target,
        "created": manifest.created,
        "metric": manifest.metric,
        "score": manifest.score,
        "holdout": manifest.holdout,
        "parity": manifest.parity,
        "columns": manifest.schema.columns,
        "schema": manifest.schema.json_schema(),
    }


def legacy_facts(model: LiveModel) -> dict[str, Any]:
    """Return further fields of `/models/info`, named as in `model_metadata.json`, for clients of that format."""
    decision = model.decision
    return {
        "model_name": model.name,
        "model_type": "regression" if decision.task == "regression" else "classification",
        "input_shape": [None, len(model.schema.columns)],
        "output_classes": len(decision.classes),
        "features": model.schema.names(),
        "class_names": decision.names(),
    }
