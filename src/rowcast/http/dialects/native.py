"""The native dialect: predictions for one row, or for the rows in `{"rows": [...]}`.

Each route is created when its model goes live and is bound to that model, so the hot path does not look up the model.
`wire.py` handles models with a wire template.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from rowcast.errors import NoAnswer, RequestError
from rowcast.http.authentication import allow_model, model_for
from rowcast.http.dialects.wire import WireHandler
from rowcast.http.routes import Handler, QueryOptions, QuickHandler, Request, Response, Route
from rowcast.serving.ports import Answer
from rowcast.serving.requests import PendingRequest
from rowcast.serving.rows import RejectedRow, Row, is_rows_object, read_rows

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface
    from rowcast.serving.service import PredictionService

NATIVE = "native"
WIRE = "wire"
ENTITY = re.compile(r"[\x20-\x7e]{1,128}").fullmatch

_encode = msgspec.json.Encoder().encode


class NativeRoutes:
    """The routes `POST /predict` and `POST /models/{name}/predict`, and the same routes with `/batch` appended."""

    def __init__(self, service: PredictionService) -> None:
        self._service = service
        self.routes: dict[str, Route] = {}
        """The routes by path. `refresh` changes the dictionary in place, because the router keeps a reference to it."""
        self.refresh()

    def refresh(self) -> None:
        """Update the routes to match the live models. Call this on the event loop whenever the models change."""
        deployment = self._service.deployment
        # /predict returns 404 if the configured default model has been unloaded.
        addresses = deployment.addresses()
        default = deployment.get(None) if deployment.default in addresses else None
        routes = self._routes_for("/predict", "/predict", None, default)
        for address in addresses:
            path = f"/models/{address}/predict"
            routes |= self._routes_for(path, "/models/{name}/predict", address, deployment.get(address))
        for path in self.routes.keys() - routes.keys():
            del self.routes[path]
        self.routes.update(routes)

    def _routes_for(
        self, path: str, pattern: str, address: str | None, model: ModelInterface | None
    ) -> dict[str, Route]:
        quick = None if model is None else self._quick(model)
        handler = partial(self._predict, address)
        batch_handler = partial(self._predict_batch, address)
        dialect = WIRE if model is not None and model.wire is not None else NATIVE
        return {
            path: _route(pattern, dialect, handler, quick),
            f"{path}/batch": _route(f"{pattern}/batch", dialect, batch_handler, None),
        }

    def _quick(self, model: ModelInterface) -> QuickHandler | None:
        if self._service.has_cache:
            return None
        if model.wire is None:
            return QuickNative(model, self._service)
        return WireHandler(model, model.wire, self._service).quick()

    async def _predict(self, address: str | None, request: Request) -> Response:
        return await self._answer(address, request, is_batch=False)

    async def _predict_batch(self, address: str | None, request: Request) -> Response:
        return await self._answer(address, request, is_batch=True)

    async def _answer(self, address: str | None, request: Request, *, is_batch: bool) -> Response:
        model = model_for(request.context.caller, self._service.deployment, address)
        if model.wire is not None and request.options.use_wire:
            handler = WireHandler(model, model.wire, self._service)
            return await (handler.predict_batch if is_batch else handler.predict)(request)
        if request.context.dialect != NATIVE:  # `wire=false` has disabled the model's template
            request.context = msgspec.structs.replace(request.context, dialect=NATIVE)
        body = request.body
        if is_batch or (b'"rows"' in body and is_rows_object(body)):
            return await self._answer_rows(model, request)
        row = Row(model.encoder.read(body), body)
        predictions = await self._service.predict(
            model, [row], request.context, use_cache=request.options.use_cache, is_single=True
        )
        request.used(model, 1, predictions.cache_hit)
        return Response(predictions.replies[0])

    async def _answer_rows(self, model: ModelInterface, request: Request) -> Response:
        options = request.options
        rows = read_rows(model, request.body, max_rows=self._service.max_rows, partial=options.partial)
        charged = len(rows)
        try:
            replies = await self._score(model, rows, request, charged)
        except NoAnswer as error:
            rows = _with_rejected(rows, error)
            if not options.partial:
                raise NoAnswer([place for place, row in enumerate(rows) if isinstance(row, RejectedRow)]) from None
            replies = await self._score(model, rows, request, 0)
        remaining = iter(replies)
        predictions = [
            msgspec.Raw(_encode({"errors": row.problems}) if isinstance(row, RejectedRow) else next(remaining))
            for row in rows
        ]
        return Response(_encode({"model": model.name, "version": model.version, "predictions": predictions}))

    async def _score(
        self, model: ModelInterface, rows: Sequence[Row | RejectedRow], request: Request, charged: int
    ) -> list[bytes]:
        valid = [row for row in rows if isinstance(row, Row)]
        predictions = await self._service.predict(
            model, valid, request.context, charged_rows=charged, use_cache=request.options.use_cache
        )
        request.used(model, len(valid), predictions.cache_hit)
        return predictions.replies


class QuickNative:
    """The hot path of one model, for single-row requests without options that change the reply."""

    def __init__(self, model: ModelInterface, service: PredictionService) -> None:
        self._model = model
        self._read = model.encoder.read
        self._submit = service.submit

    def accepts(self, query: bytes, body: bytes) -> bool:
        """Return whether this is a single-row request without special options."""
        return b'"rows"' not in body and (not query or is_plain(query))

    def submit(self, request: Request, answer: Answer) -> None:
        """Submit the row for scoring. Hot path."""
        context, model, body = request.context, self._model, request.body
        if context.caller.models:
            allow_model(context.caller, model.name)
        row = Row(self._read(body), body)
        self._submit(PendingRequest(model, (row,), context, answer, True), is_alone=request.is_alone)


def _route(pattern: str, dialect: str, handler: Handler, quick: QuickHandler | None) -> Route:
    return Route(
        pattern=pattern,
        method="POST",
        handler=handler,
        scope="predict",
        dialect=dialect,
        is_idempotent=True,
        read_options=read_options,
        quick=quick,
    )


def _with_rejected(rows: Sequence[Row | RejectedRow], error: NoAnswer) -> list[Row | RejectedRow]:
    """Reject the rows that the model cannot score. The row numbers in `error` are positions among the valid rows."""
    places = [place for place, row in enumerate(rows) if isinstance(row, Row)]
    unanswered = {places[row] for row in error.rows}
    return [
        RejectedRow([msgspec.structs.replace(error.problems[0], row=place)]) if place in unanswered else row
        for place, row in enumerate(rows)
    ]


def is_plain(query: bytes) -> bool:
    """Return whether the query string is valid and has only options that the hot path supports."""
    try:
        options = read_options(query)
    except RequestError:
        return False
    return options.use_wire and not options.partial


@lru_cache(maxsize=1024)  # parsing takes 2 µs, and the same query strings recur
def read_options(query: bytes) -> QueryOptions:
    """Parse the query string; raise RequestError for an unknown option or an invalid value."""
    if not query:
        return QueryOptions()
    try:
        options = dict(parse_qsl(query.decode(), keep_blank_values=True, strict_parsing=True))
    except ValueError:
        raise RequestError("the query string is malformed", slug="bad-option") from None
    for name, value in options.items():
        if name not in ("partial", "cache", "entity", "wire"):
            known = "partial=true, cache=false, entity=…, wire=false"
            raise RequestError(f"unknown option {name[:40]!r}; known options: {known}", slug="bad-option")
        if name != "entity" and value not in ("true", "false"):
            raise RequestError(f"option {name!r} must be true or false", slug="bad-option")
        if name == "entity" and not ENTITY(value):
            raise RequestError("option 'entity' must be 1 to 128 printable ASCII characters", slug="bad-option")
    return QueryOptions(
        options.get("partial") == "true",
        options.get("cache") != "false",
        options.get("wire") != "false",
        options.get("entity", ""),
    )
