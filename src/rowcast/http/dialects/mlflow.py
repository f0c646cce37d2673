"""The routes of MLflow's scoring protocol, which SageMaker also uses: `/invocations`, `/ping` and `/version`."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.errors import BodyError, RequestError
from rowcast.http.dialects.scoring import (
    DialectScoring,
    check_keys,
    labels,
    only_key,
    probabilities,
    read_object,
    summary,
)
from rowcast.http.problems import Problem
from rowcast.http.routes import JSON, Request, Response, Route
from rowcast.serving.rows import Row
from rowcast.version import VERSION

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface

MLFLOW = "mlflow"
CSV = b"text/csv"
PLAIN = b"text/plain; charset=utf-8"
LAYOUTS = ("dataframe_split", "dataframe_records", "instances", "inputs")
CODES = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    429: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
METHODS = ("predict", "predict_proba")


class MLflowRoutes:
    """The routes of the scoring protocol. They use the default model."""

    def __init__(self, scoring: DialectScoring, ready: Callable[[], bool]) -> None:
        self._scoring = scoring
        self._ready = ready
        form = write_error
        routes = [
            Route(pattern="/ping", method="GET", handler=self._ping, error_form=form, is_public=True, is_probe=True),
            Route(pattern="/version", method="GET", handler=self._version, error_form=form, is_public=True),
            Route(
                pattern="/invocations",
                method="POST",
                handler=self._invoke,
                scope="predict",
                dialect=MLFLOW,
                content_types=frozenset((JSON, CSV)),
                error_form=form,
                is_idempotent=True,
            ),
        ]
        self._routes = {route.pattern: route for route in routes}

    def find(self, path: str) -> Route | None:
        """Return the route for a path."""
        return self._routes.get(path)

    async def _ping(self, request: Request) -> Response:
        return Response(b"\n", 200 if self._ready() else 503, PLAIN)

    async def _version(self, request: Request) -> Response:
        return Response(VERSION.encode(), content_type=PLAIN)

    async def _invoke(self, request: Request) -> Response:
        model = self._scoring.model(request)
        if request.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower() == CSV:
            rows, method = self._read_csv(model, request), "predict"
        else:
            document = read_object(request.body)
            layout = only_key(document, LAYOUTS)
            check_keys(document, (*LAYOUTS, "params"))
            method = _read_method(model, document.get("params"))
            rows = self._read_layout(model, layout, document[layout])
        scored = await self._scoring.score(request, model, rows)
        predictions = labels(scored) if method == "predict" else probabilities(model, scored)
        return Response(msgspec.json.encode({"predictions": predictions}))

    def _read_layout(self, model: ModelInterface, layout: str, rows: Any) -> list[Row]:
        if layout == "dataframe_split":
            return self._read_split(model, rows)
        if layout == "dataframe_records" and not (isinstance(rows, list) and all(isinstance(x, dict) for x in rows)):
            raise BodyError('"dataframe_records" must be a list of objects that map column names to values')
        return self._scoring.read_rows(model, rows)

    def _read_split(self, model: ModelInterface, frame: Any) -> list[Row]:
        if not isinstance(frame, dict) or not isinstance(frame.get("data"), list):
            raise BodyError('"dataframe_split" must be an object: {"columns": [...], "data": [[...], ...]}')
        check_keys(frame, ("columns", "index", "data"))
        names = frame.get("columns", model.schema.names())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BodyError('"columns" must be a list of column names')
        return self._scoring.read_records(model, names, frame["data"])

    def _read_csv(self, model: ModelInterface, request: Request) -> list[Row]:
        try:
            text = request.body.decode("utf-8-sig")
            records = (line for line in csv.reader(io.StringIO(text), strict=True) if line)
            # Read at most one row more than the limit; reading millions of short lines would block the event loop.
            lines = list(islice(records, self._scoring.max_rows + 2))
        except UnicodeDecodeError:
            raise BodyError("the body is not valid UTF-8") from None
        except csv.Error as error:
            raise BodyError(f"the body is not valid CSV: {error}") from None
        if not lines:
            raise BodyError("the body is empty; send a header and at least one row", slug="empty-body")
        if len(lines) - 1 > self._scoring.max_rows:
            raise BodyError(f"too many rows; the limit is {self._scoring.max_rows}", slug="too-many-rows")
        return self._scoring.read_texts(model, [name.strip() for name in lines[0]], lines[1:])


def _read_method(model: ModelInterface, params: Any) -> str:
    """Return the prediction method that the parameters select."""
    if params is None:
        return "predict"
    if not isinstance(params, dict):
        raise BodyError('"params" must be an object')
    check_keys(params, ("predict_method",))
    method: str = params.get("predict_method", "predict")
    if method not in METHODS or (method == "predict_proba" and not model.is_classifier):
        offered = " or ".join(METHODS if model.is_classifier else METHODS[:1])
        raise RequestError(f"parameter 'predict_method' must be {offered}", slug="bad-option")
    return method


def write_error(problem: Problem) -> tuple[int, bytes]:
    """Encode a problem as `{"error_code": …, "message": …}`. Status 422, which MLflow does not use, becomes 400."""
    status = 400 if problem.status == 422 else problem.status
    code = CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return status, msgspec.json.encode({"error_code": code, "message": summary(problem)})
