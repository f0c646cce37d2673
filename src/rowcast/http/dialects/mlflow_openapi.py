"""The OpenAPI operations of MLflow's scoring protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowcast.http.dialects.mlflow import METHODS
from rowcast.http.dialects.openapi_operations import (
    CELL,
    CELLS,
    LABEL,
    PREDICTION_ROUTE,
    body,
    object_with,
    operation,
    success,
)
from rowcast.http.json_schemas import TEXT, Json, array, closed

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface

TAG = "mlflow"
ERROR = closed(error_code=TEXT, message=TEXT)


def paths(deployment: Deployment[ModelInterface]) -> dict[str, Json]:
    """Return the operations by path."""
    blank = success(TEXT, "A blank line", media_type="text/plain")
    ping = operation(TAG, "/ping", "Whether the server is ready", blank, is_public=True)
    ping["responses"]["503"] = success(TEXT, "Not ready", media_type="text/plain")
    version = success(TEXT, media_type="text/plain")
    return {
        "/ping": {"get": ping},
        "/version": {"get": operation(TAG, "/version", "The server version", version, is_public=True)},
        "/invocations": {"post": _invocations(deployment)},
    }


def _invocations(deployment: Deployment[ModelInterface]) -> Json:
    predictions = array({"anyOf": [LABEL, array({"type": "number"})]})
    description = operation(
        TAG,
        "/invocations",
        "Predict with the default model",
        success(closed(predictions=predictions)),
        problems=PREDICTION_ROUTE,
        error=ERROR,
    )
    default = deployment.live.get(deployment.default) if deployment.default else None
    example = {"dataframe_records": [default.example()]} if default else None
    description["requestBody"] = body(_request_schema(), required=True, example=example)
    description["requestBody"]["content"]["text/csv"] = {"schema": TEXT}
    return description


def _request_schema() -> Json:
    record = {"type": "object", "additionalProperties": CELL}
    rows = array({"anyOf": [record, CELLS]})
    columns = {"type": "object", "additionalProperties": CELLS}
    layouts = {
        "dataframe_split": object_with(("data",), columns=array(TEXT), index=array(CELL), data=array(CELLS)),
        "dataframe_records": array(record),
        "instances": rows,
        "inputs": {"anyOf": [rows, columns]},
    }
    params = object_with(predict_method={"enum": list(METHODS)})
    return {"anyOf": [object_with((layout,), **{layout: schema}, params=params) for layout, schema in layouts.items()]}
