"""MLflow's scoring server: `/invocations` and what stands beside it, as SageMaker asks it too."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from rowcast.errors import BodyError, RequestError
from rowcast.http.dialects.scoring import (
    Scoring,
    document,
    exactly_one,
    no_query,
    only,
    predictions,
    sentence,
    spread,
)
from rowcast.http.problems import Problem
from rowcast.http.routes import JSON, Door, Reply, Request
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from rowcast.version import VERSION

SOURCE = "mlflow"
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


class MLflow:
    """The doors of a scoring server; they mean the default model."""

    def __init__(self, scoring: Scoring, ready: Callable[[], bool]) -> None:
        self._scoring = scoring
        self._ready = ready
        self._doors = {
            "/ping": Door("/ping", "GET", self._ping, form, open=True),
            "/version": Door("/version", "GET", self._version, form, open=True),
            "/invocations": Door(
                "/invocations", "POST", self._invoke, form, "predict", content_types=frozenset((JSON, CSV))
            ),
        }

    def door(self, path: str) -> Door | None:
        """What answers this path."""
        return self._doors.get(path)

    async def _ping(self, request: Request) -> Reply:
        return Reply(b"\n", 200 if self._ready() else 503, PLAIN)

    async def _version(self, request: Request) -> Reply:
        return Reply(VERSION.encode(), content_type=PLAIN)

    async def _invoke(self, request: Request) -> Reply:
        no_query(request)
        model = self._scoring.model(request)
        if request.headers.get(b"content-type", JSON).partition(b";")[0].strip().lower() == CSV:
            rows, method = self._table(model, request), "predict"
        else:
            asked = document(request.body)
            layout = exactly_one(asked, LAYOUTS)
            only(asked, (*LAYOUTS, "params"))
            method = _method(model, asked.get("params"))
            rows = self._rows(model, layout, asked[layout])
        answers = await self._scoring.score(request, model, rows, SOURCE)
        found = predictions(answers) if method == "predict" else spread(model, answers)
        return Reply(msgspec.json.encode({"predictions": found}))

    def _rows(self, model: LiveModel, layout: str, found: Any) -> list[Row]:
        if layout == "dataframe_split":
            return self._split(model, found)
        if layout == "dataframe_records" and not (isinstance(found, list) and all(isinstance(x, dict) for x in found)):
            raise BodyError("dataframe_records must be a list of objects, column name to value")
        return self._scoring.laid_out(model, found)

    def _split(self, model: LiveModel, found: Any) -> list[Row]:
        if not isinstance(found, dict) or not isinstance(found.get("data"), list):
            raise BodyError('dataframe_split must be an object: {"columns": [...], "data": [[...], ...]}')
        only(found, ("columns", "index", "data"))
        names = found.get("columns", model.schema.names())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BodyError("`columns` must be a list of names")
        return self._scoring.records(model, names, found["data"])

    def _table(self, model: LiveModel, request: Request) -> list[Row]:
        try:
            text = request.body.decode("utf-8-sig")
            read = (line for line in csv.reader(io.StringIO(text), strict=True) if line)
            # One more than may be: millions of short lines would stop all others meanwhile.
            lines = list(islice(read, self._scoring.max_rows + 2))
        except UnicodeDecodeError:
            raise BodyError("the body is not UTF-8") from None
        except csv.Error as error:
            raise BodyError(f"the body is not CSV: {error}") from None
        if not lines:
            raise BodyError("the body is empty; send a header and rows", slug="empty-body")
        if len(lines) - 1 > self._scoring.max_rows:
            raise BodyError(f"more than {self._scoring.max_rows} rows in one request", slug="too-many-rows")
        return self._scoring.texts(model, [name.strip() for name in lines[0]], lines[1:])


def _method(model: LiveModel, params: Any) -> str:
    """Which method of the model the parameters name."""
    if params is None:
        return "predict"
    if not isinstance(params, dict):
        raise BodyError("`params` must be an object")
    only(params, ("predict_method",))
    method: str = params.get("predict_method", "predict")
    if method not in METHODS or (method == "predict_proba" and not model.classifies):
        offered = " or ".join(METHODS if model.classifies else METHODS[:1])
        raise RequestError(f"the parameter predict_method must be {offered}", slug="bad-option")
    return method


def form(problem: Problem) -> tuple[int, bytes]:
    """`{"error_code": …, "message": …}`; MLflow knows 400 where we know 422."""
    status = 400 if problem.status == 422 else problem.status
    code = CODES.get(status, "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR")
    return status, msgspec.json.encode({"error_code": code, "message": sentence(problem)})
