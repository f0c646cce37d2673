"""The cold routes: what is asked a few times a minute, on FastAPI without middleware."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse
from starlette.exceptions import HTTPException
from starlette.staticfiles import StaticFiles

from rowcast.access.callers import Caller
from rowcast.adapters.files.worker_state import WorkerStatus
from rowcast.errors import MethodNotAllowed, ModelNotFound, NotFound, RequestError, RowcastError
from rowcast.history.entry_filter import Selection, parse_selection, visible_to
from rowcast.history.export import FORMATS
from rowcast.history.service import History
from rowcast.http import openapi, problems
from rowcast.http.authentication import model_for
from rowcast.runtime.worker import Member
from rowcast.serving.live_models import Deployment, LiveModel
from rowcast.version import VERSION

STATIC = Path(__file__).parent / "static"
# Swagger UI and ReDoc write style attributes and draw icons from data URLs.
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

Page = Annotated[int, Query(ge=1, le=1000, description="Entries a page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="`next` of the page before.")]
Wire = Annotated[bool, Query(description="`false`: a row in the native form.")]
Format = Annotated[str, Query(description="`jsonl` or `csv`.")]
EXPORTED = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
CHOICES = ("model", "version", "label", "entity", "since", "until")


@dataclass(frozen=True)
class Chosen:
    """The filters of history, as a query string says them."""

    model: Annotated[str | None, Query(max_length=64)] = None
    version: Annotated[int | None, Query(ge=1, le=2**31)] = None
    label: Annotated[str | None, Query(max_length=500)] = None
    entity: Annotated[str | None, Query(max_length=128)] = None
    since: Annotated[str | None, Query(max_length=40, description="RFC 3339 or a date; included.")] = None
    until: Annotated[str | None, Query(max_length=40, description="RFC 3339 or a date; not included.")] = None

    def selection(self, caller: Caller) -> Selection:
        """What is selected, of what the caller may see."""
        visible = _visible(caller)
        chosen = parse_selection(tenant=visible.tenant, **asdict(self))
        return msgspec.structs.replace(chosen, models=visible.models)


def _refuse_unknown(request: Request, known: Sequence[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise RequestError(f"there is no option {name[:40]!r}; known are {', '.join(known)}", slug="bad-option")


def _visible(caller: Caller) -> Selection:
    """Return the selection of entries that a caller may read."""
    return visible_to(tenant=None if caller.sees_all_tenants else caller.tenant, models=caller.models)


class Json(Response):
    """A JSON answer made by msgspec."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode anything msgspec knows."""
        return msgspec.json.encode(content)


class Health:
    """What the health routes ask; a check says what is wrong, or nothing."""

    def __init__(self, checks: Mapping[str, Callable[[], str | None]]) -> None:
        self._checks = checks
        self.ready = False

    def report(self) -> dict[str, str]:
        """Every check with `ok` or what is wrong."""
        return {name: check() or "ok" for name, check in self._checks.items()}


def cold_app(
    deployment: Deployment, history: History, health: Health, member: Member, metrics: Callable[[], bytes]
) -> FastAPI:
    """Everything but predictions."""
    app = FastAPI(title="Rowcast", version=VERSION, docs_url=None, redoc_url=None, openapi_url=None)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    _explain_errors(app)
    _model_routes(app, deployment, member)
    _history_routes(app, history)
    _health_routes(app, deployment, health, member, metrics)
    _pages(app, deployment)
    return app


def _model_routes(app: FastAPI, deployment: Deployment, member: Member) -> None:
    @app.get("/models", tags=["models"], summary="Every model that is served")
    def models(request: Request) -> Response:
        known = deployment.of(caller(request).models).models()
        return Json({"models": [describe(model, deployment) for model in known]})

    @app.get("/models/info", tags=["models"], summary="The default model: schema, metrics, parity")
    def default_model(request: Request) -> Response:
        model = model_for(caller(request), deployment, None)
        return Json(describe(model, deployment) | legacy_facts(model))

    @app.get("/models/{name}", tags=["models"], summary="One model: schema, metrics, parity")
    def one_model(name: str, request: Request) -> Response:
        model = model_for(caller(request), deployment, name)
        etag = f'"{model.digest}"'
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {etag, "*"}:
            return Response(status_code=304, headers={"etag": etag})
        return Json(describe(model, deployment), headers={"etag": etag})

    @app.post("/models/reload", tags=["models"], summary="Follow the registry now; each worker's state")
    async def reload() -> Response:
        found = await member.reload()
        return Json(found, status_code={"ok": 200, "failed": 409, "pending": 503}[found.status])

    @app.post("/models/{name}/predict", include_in_schema=False)
    @app.post("/models/{name}/predict/batch", include_in_schema=False)
    def not_served(name: str, request: Request) -> Response:
        # Raises: the models that are served are answered before this app is asked.
        deployment.get(name, caller(request).models)
        raise NotFound("there is nothing at this address; see /docs")

    @app.get("/sample", tags=["models"], summary="A row that the default model takes")
    def sample(request: Request, wire: Wire = True) -> Response:
        model = model_for(caller(request), deployment, None)
        return Json(model.sample() if wire else model.example())


def _history_routes(app: FastAPI, history: History) -> None:
    @app.get("/predictions", tags=["history"], summary="Predictions, newest first")
    def predictions(
        request: Request, chosen: Annotated[Chosen, Depends()], limit: Page = 50, cursor: Cursor = None
    ) -> Response:
        _refuse_unknown(request, [*CHOICES, "limit", "cursor"])
        return Json(history.page(limit, chosen.selection(caller(request)), cursor))

    @app.get("/predictions/export", tags=["history"], summary="Predictions as a file, newest first")
    def export(request: Request, chosen: Annotated[Chosen, Depends()], format: Format = "jsonl") -> Response:  # noqa: A002
        _refuse_unknown(request, [*CHOICES, "format"])
        if format not in FORMATS:
            hint = "; Parquet is written by `rowcast history export`" if format == "parquet" else ""
            raise RequestError(f"format: {format[:40]!r} is not one of {', '.join(FORMATS)}{hint}", slug="bad-option")
        name = f"predictions.{format}"
        headers = {"content-disposition": f'attachment; filename="{name}"'}
        pieces = FORMATS[format](history.select(chosen.selection(caller(request))))
        return StreamingResponse(pieces, headers=headers, media_type=EXPORTED[format])

    @app.get("/predictions/{prediction_id}", tags=["history"], summary="One prediction with its evidence")
    def prediction(prediction_id: str, request: Request) -> Response:
        found = history.get(prediction_id.lower(), _visible(caller(request)))
        if found is None:
            raise NotFound(f"there is no prediction {prediction_id[:64]!r} in history")
        return Json(found)


def _health_routes(
    app: FastAPI, deployment: Deployment, health: Health, member: Member, metrics: Callable[[], bytes]
) -> None:
    @app.get("/health", tags=["health"], summary="Every part and every worker, with what is wrong")
    def everything(request: Request) -> Response:
        who = caller(request)
        workers = [_seen(worker, who) for worker in member.workers()]
        ill = [f"worker {found.worker} is {found.state}" for found in workers if found.state != "ready"]
        checks = {**health.report(), "workers": "; ".join(ill) or "ok"}
        models = [f"{model.name}@{model.version}" for model in deployment.of(who.models).models()]
        ready = health.ready and bool(deployment.live)
        fine = ready and all(state == "ok" for state in checks.values())
        body = {
            "status": "ok" if fine else "degraded",
            "ready": ready,
            "models": models,
            "checks": checks,
            "workers": workers,
        }
        return Json(body, status_code=200 if fine else 503)

    @app.get("/health/live", tags=["health"], summary="The process answers")
    async def live() -> Response:
        return Json({"live": True})

    @app.get("/health/ready", tags=["health"], summary="At least one model is loaded and proven")
    async def ready() -> Response:
        fine = health.ready and bool(deployment.models())
        return Json({"ready": fine}, status_code=200 if fine else 503)

    @app.get("/metrics", tags=["health"], summary="Prometheus metrics")
    def prometheus() -> Response:
        return Response(metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _pages(app: FastAPI, deployment: Deployment) -> None:
    @app.get("/", include_in_schema=False)
    async def root(request: Request) -> Response:
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs", headers={"vary": "Accept"})
        said = _root_of_default(deployment)
        if said is not None:
            return Response(said, media_type="application/json", headers={"vary": "Accept"})
        models = [model.name for model in deployment.of(caller(request).models).models()]
        # KServe's V1 client reads `status`.
        found = {"name": "rowcast", "version": VERSION, "status": "alive", "models": models}
        return Json(found, headers={"vary": "Accept"})

    @app.get("/openapi.json", include_in_schema=False)
    def openapi_document(request: Request) -> Response:
        known = deployment.of(caller(request).models)
        return Json(openapi.document(app, known, request.scope.get("root_path", "")))

    @app.get("/docs", include_in_schema=False)
    async def swagger() -> Response:
        return HTMLResponse(SWAGGER, headers={"content-security-policy": DOCS_POLICY})

    @app.get("/redoc", include_in_schema=False)
    async def redoc() -> Response:
        return HTMLResponse(REDOC, headers={"content-security-policy": DOCS_POLICY})


def _seen(worker: WorkerStatus, who: Caller) -> WorkerStatus:
    """A worker without what it says of models that the caller may not use."""
    if not who.models:
        return worker
    models = tuple(loaded for loaded in worker.models if who.may_use(loaded.model))
    error = "a change of the registry cannot be followed" if worker.reload_error else ""
    return msgspec.structs.replace(worker, models=models, reload_error=error)


def _root_of_default(deployment: Deployment) -> bytes | None:
    """What the default model's wire template answers at `/`: whoever wrote it meant it for everybody."""
    try:
        model = deployment.get(None)
    except ModelNotFound:
        return None
    return model.wire.root if model.wire is not None else None


def caller(request: Request) -> Caller:
    """Who asks; the edge has let him in."""
    found: Caller = request.scope["state"]["caller"]
    return found


def describe(model: LiveModel, deployment: Deployment) -> dict[str, Any]:
    """A model as `/models/{name}` shows it."""
    manifest = model.manifest
    decision = manifest.decision
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
    """What `/models/info` says besides, in the words of `model_metadata.json`, for clients that read those."""
    decision = model.manifest.decision
    return {
        "model_name": model.name,
        "model_type": "regression" if decision.task == "regression" else "classification",
        "input_shape": [None, len(model.schema.columns)],
        "output_classes": len(decision.classes),
        "features": model.schema.names(),
        "class_names": decision.names(),
    }


def _explain_errors(app: FastAPI) -> None:
    def answer(error: Exception, request: Request) -> Response:
        status, body, headers = problems.answer(error, request.scope["state"]["request_id"])
        request.scope["state"]["problem"] = problems.slug(error)
        return Response(body, status, headers={name.decode(): value.decode() for name, value in headers})

    @app.exception_handler(RowcastError)
    async def known(request: Request, error: RowcastError) -> Response:
        return answer(error, request)

    @app.exception_handler(HTTPException)
    async def routing(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:
            return answer(MethodNotAllowed((error.headers or {}).get("Allow", "GET")), request)
        return answer(NotFound("there is nothing at this address; see /docs"), request)

    @app.exception_handler(RequestValidationError)
    async def options(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(RequestError(f"{where}: {first['msg']}", slug="bad-option"), request)
