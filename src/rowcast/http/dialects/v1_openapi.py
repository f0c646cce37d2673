"""The OpenAPI operations of KServe's V1 protocol."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowcast.http.dialects.openapi_operations import (
    CELLS,
    LABEL,
    PREDICTION_ROUTE,
    body,
    get,
    object_with,
    operation,
    success,
)
from rowcast.http.json_schemas import FLAG, TEXT, Json, array, closed

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface

TAG = "v1"


def paths(deployment: Deployment[ModelInterface]) -> dict[str, Json]:
    """Return the operations by path."""
    status = closed(version=TEXT, state=TEXT, status=closed(error_code=TEXT, error_message=TEXT))
    model_status = closed(name=TEXT, ready=FLAG, model_version_status=array(status))
    operations = {
        **get(TAG, "/v1/models", "The names of all models", closed(models=array(TEXT))),
        **get(
            TAG,
            "/v1/models/{name}",
            "Whether the model is ready",
            model_status,
            problems=("model-not-found",),
            can_be_unready=True,
        ),
    }
    for name in sorted({model.name for model in deployment.models()} & set(deployment.live)):
        operations[f"/v1/models/{name}:predict"] = {"post": _predict(name, deployment.live[name])}
    return operations


def _predict(name: str, model: ModelInterface) -> Json:
    instances = array({"anyOf": [model.schema.json_schema(), CELLS]}, minItems=1)
    columns = object_with(**dict.fromkeys(model.schema.names(), CELLS))
    signature = {"enum": ["serving_default", "predict"]}
    request = {
        "anyOf": [
            object_with(("instances",), instances=instances, signature_name=signature),
            object_with(("inputs",), inputs=columns, signature_name=signature),
        ]
    }
    predictions = array(LABEL)
    description = operation(
        TAG,
        f"/v1/models/{name}:predict",
        f"Predict with {name}; also available under /versions/N and /labels/L",
        success({"anyOf": [closed(predictions=predictions), closed(outputs=predictions)]}),
        problems=PREDICTION_ROUTE,
    )
    description["requestBody"] = body(request, required=True, example={"instances": [model.example()]})
    return description
