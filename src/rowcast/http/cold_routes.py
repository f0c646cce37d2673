"""The cold routes, which receive only a few requests per minute. The prediction routes are in `dialects/`, and
the health routes are in `health_routes.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Depends, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse, StreamingResponse

from rowcast.access.callers import Caller
from rowcast.errors import ModelNotFound, NotFound, RequestError
from rowcast.history.entry_filter import Selection, parse_selection, visible_to
from rowcast.history.export import FORMATS
from rowcast.history.records import HistoryPage, Record
from rowcast.http import openapi
from rowcast.http.authentication import model_for
from rowcast.http.cold_app import ColdApp, JsonResponse
from rowcast.http.health_routes import visible_process
from rowcast.serving.fleet import ReloadResult
from rowcast.serving.model_descriptions import DefaultModel, ModelList, ServedModel, describe, describe_default
from rowcast.version import VERSION

if TYPE_CHECKING:
    from rowcast.history.service import History
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.fleet import Fleet
    from rowcast.serving.interface import ModelInterface

# Swagger UI and ReDoc use inline styles and load icons from data URLs.
DOCS_POLICY = (
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
EXPORT_TYPES = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
FILTER_NAMES = ("model", "version", "label", "entity", "since", "until")
RELOAD_CODES = {"ok": 200, "failed": 409, "pending": 503}
RELOAD_STATUSES = {
    409: "A version could not be loaded; the previous version stays in service",
    503: "Some server processes have not finished reloading yet",
}

PageSize = Annotated[int, Query(ge=1, le=1000, description="Maximum number of entries per page.")]
Cursor = Annotated[str | None, Query(max_length=200, description="The value of `next` on the previous page.")]
Wire = Annotated[bool, Query(description="`false` returns a row in the native format.")]
Format = Annotated[str, Query(description="`jsonl` or `csv`.")]


@dataclass(frozen=True)
class Filters:
    """The history filters as query parameters."""

    model: Annotated[str | None, Query(max_length=64)] = None
    version: Annotated[int | None, Query(ge=1, le=2**31)] = None
    label: Annotated[str | None, Query(max_length=500)] = None
    entity: Annotated[str | None, Query(max_length=128)] = None
    since: Annotated[
        str | None, Query(max_length=40, description="RFC 3339 timestamp, date or age (`7d`); inclusive.")
    ] = None
    until: Annotated[
        str | None, Query(max_length=40, description="RFC 3339 timestamp, date or age (`7d`); exclusive.")
    ] = None

    def selection(self, caller: Caller) -> Selection:
        """Return the selection, restricted to the entries that the caller can access."""
        visible = _visible_entries(caller)
        selection = parse_selection(tenant=visible.tenant, **asdict(self))
        return msgspec.structs.replace(selection, models=visible.models)


class ServerInfo(msgspec.Struct, frozen=True):
    """The reply to `GET /`. KServe's V1 client reads `status`."""

    name: str
    version: str
    status: str
    models: list[str]


def add_cold_routes(
    cold: ColdApp,
    deployment: Deployment[ModelInterface],
    history: History,
    fleet: Fleet,
    *,
    open_metrics: bool,
) -> None:
    """Add every route except the prediction routes, the health routes and the job routes."""
    _add_model_routes(cold, deployment)
    _add_reload_route(cold, fleet)
    _add_history_routes(cold, history)
    _add_root(cold, deployment)
    _add_documentation(cold, deployment, open_metrics=open_metrics)


def _add_model_routes(cold: ColdApp, deployment: Deployment[ModelInterface]) -> None:
    @cold.route("GET", "/models", response=ModelList, tags=["models"], summary="All served models")
    def list_models(request: Request) -> ModelList:
        visible = deployment.restricted_to(caller(request).models).models()
        return ModelList([describe(model, is_default=deployment.is_default(model)) for model in visible])

    @cold.route(
        "GET",
        "/models/info",
        response=DefaultModel,
        problems=("model-not-found",),
        tags=["models"],
        summary="The default model's schema, metrics and parity check",
    )
    def describe_default_model(request: Request) -> DefaultModel:
        model = model_for(caller(request), deployment, None)
        return describe_default(model, is_default=deployment.is_default(model))

    @cold.route(
        "GET",
        "/models/{name}",
        response=ServedModel,
        problems=("model-not-found",),
        tags=["models"],
        summary="A served model's schema, metrics and parity check",
        responses={304: {"description": "Not modified, because `If-None-Match` contains the current ETag"}},
    )
    def describe_model(name: str, request: Request) -> Response:
        model = model_for(caller(request), deployment, name)
        etag = f'"{model.digest}"'
        known = {tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")}
        if known & {etag, "*"}:
            return Response(status_code=304, headers={"etag": etag})
        return JsonResponse(describe(model, is_default=deployment.is_default(model)), headers={"etag": etag})

    @cold.route("POST", "/models/{name}/predict", "predict")
    @cold.route("POST", "/models/{name}/predict/batch", "predict")
    def refuse_unknown_model(name: str, request: Request) -> Response:
        # Live models have their own routes, so this call raises ModelNotFound or Forbidden.
        model_for(caller(request), deployment, name)
        raise NotFound("unknown path; see /docs")

    @cold.route(
        "GET",
        "/sample",
        response=dict[str, Any],
        problems=("model-not-found",),
        tags=["models"],
        summary="An example body for `/predict`",
    )
    def sample(request: Request, wire: Wire = True) -> Any:
        model = model_for(caller(request), deployment, None)
        return model.sample() if wire else model.example()


def _add_reload_route(cold: ColdApp, fleet: Fleet) -> None:
    @cold.route(
        "POST",
        "/models/reload",
        "admin",
        response=ReloadResult,
        other_statuses=RELOAD_STATUSES,
        tags=["models"],
        summary="Reload the models in all server processes and return the state of each process",
    )
    async def reload(request: Request) -> Response:
        result = await fleet.reload()
        result = _visible_result(result, caller(request))
        return JsonResponse(result, status_code=RELOAD_CODES[result.status])


def _add_history_routes(cold: ColdApp, history: History) -> None:
    @cold.route(
        "GET",
        "/predictions",
        "read",
        response=HistoryPage,
        problems=("unavailable",),
        tags=["history"],
        summary="Recorded predictions, newest first",
    )
    def list_predictions(
        request: Request, filters: Annotated[Filters, Depends()], limit: PageSize = 50, cursor: Cursor = None
    ) -> HistoryPage:
        _refuse_unknown_options(request, [*FILTER_NAMES, "limit", "cursor"])
        return history.page(limit, filters.selection(caller(request)), cursor)

    @cold.route(
        "GET",
        "/predictions/export",
        "read",
        response=str,
        media_types=("application/x-ndjson", "text/csv"),
        problems=("unavailable",),
        tags=["history"],
        summary="Export recorded predictions, newest first",
    )
    def export(request: Request, filters: Annotated[Filters, Depends()], format: Format = "jsonl") -> Response:  # noqa: A002
        _refuse_unknown_options(request, [*FILTER_NAMES, "format"])
        if format not in FORMATS:
            hint = "; `rowcast history export` writes Parquet" if format == "parquet" else ""
            raise RequestError(
                f"unknown format {format[:40]!r}; expected {' or '.join(FORMATS)}{hint}", slug="bad-option"
            )
        headers = {"content-disposition": f'attachment; filename="predictions.{format}"'}
        pieces = FORMATS[format](history.select(filters.selection(caller(request))))
        return StreamingResponse(pieces, headers=headers, media_type=EXPORT_TYPES[format])

    @cold.route(
        "GET",
        "/predictions/{prediction_id}",
        "read",
        response=Record,
        problems=("not-found", "unavailable"),
        tags=["history"],
        summary="One recorded prediction with its row and model version",
    )
    def show_prediction(prediction_id: str, request: Request) -> Record:
        record = history.get(prediction_id.lower(), _visible_entries(caller(request)))
        if record is None:
            later = "; if another server made it within the last second, retry in 1 s" if history.is_shared else ""
            raise NotFound(f"unknown prediction {prediction_id[:64]!r}{later}")
        return record


def _add_root(cold: ColdApp, deployment: Deployment[ModelInterface]) -> None:
    @cold.route("GET", "/", is_public=True)
    async def root(request: Request) -> Response:
        headers = {"vary": "Accept"}
        if "text/html" in request.headers.get("accept", ""):
            return RedirectResponse("docs", headers=headers)
        reply = _root_reply(deployment)
        if reply is not None:
            return Response(reply, media_type="application/json", headers=headers)
        models = [model.name for model in deployment.restricted_to(caller(request).models).models()]
        return JsonResponse(ServerInfo("rowcast", VERSION, "alive", models), headers=headers)


def _add_documentation(cold: ColdApp, deployment: Deployment[ModelInterface], *, open_metrics: bool) -> None:
    @cold.route("GET", "/openapi.json", is_public=True)
    def openapi_document(request: Request) -> dict[str, Any]:
        visible = deployment.restricted_to(caller(request).models)
        return openapi.document(cold, visible, request.scope.get("root_path", ""), open_metrics=open_metrics)

    @cold.route("GET", "/docs", is_public=True)
    def swagger() -> Response:
        return HTMLResponse(_docs_page("swagger.html"), headers={"content-security-policy": DOCS_POLICY})

    @cold.route("GET", "/redoc", is_public=True)
    def redoc() -> Response:
        return HTMLResponse(_docs_page("redoc.html"), headers={"content-security-policy": DOCS_POLICY})


@functools.cache
def _docs_page(template: str) -> str:
    # imported here because most servers never render these pages
    from rowcast.templates import render

    return render("rowcast.http", template)


def caller(request: Request) -> Caller:
    """Return the caller that the edge has authenticated."""
    authenticated: Caller = request.scope["state"]["caller"]
    return authenticated


def _visible_entries(caller: Caller) -> Selection:
    """Return the selection of all entries that the caller can access."""
    return visible_to(tenant=None if caller.sees_all_tenants else caller.tenant, models=caller.models)


def _refuse_unknown_options(request: Request, known: Sequence[str]) -> None:
    for name in request.query_params:
        if name not in known:
            raise RequestError(f"unknown option {name[:40]!r}; known options: {', '.join(known)}", slug="bad-option")


def _visible_result(result: ReloadResult, who: Caller) -> ReloadResult:
    """Return the result of a reload, omitting the models and the imported files that the caller cannot use."""
    if not who.models:
        return result
    imports = [file for file in result.imports if file.model and who.may_use(file.model)]
    return ReloadResult(result.status, [visible_process(process, who) for process in result.processes], imports)


def _root_reply(deployment: Deployment[ModelInterface]) -> bytes | None:
    """Return the reply to `GET /` that the default model's wire template defines, or None if it defines none."""
    try:
        model = deployment.get(None)
    except ModelNotFound:
        return None
    return model.wire.root if model.wire is not None else None
