"""The OpenAPI operations of the Open Inference Protocol V2."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rowcast.http.dialects import v2_metadata
from rowcast.http.dialects.openapi_operations import (
    CELL,
    CELLS,
    LABEL,
    PREDICTION_ROUTE,
    body,
    get,
    object_with,
    operation,
    success,
)
from rowcast.http.json_schemas import FLAG, TEXT, WHOLE, Json, array, closed
from rowcast.schema.datatypes import BOOL, BYTES, DATATYPES

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface

TAG = "v2"
MODEL_NOT_FOUND = ("model-not-found",)
HEADER_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "The length in bytes of the JSON before the binary tensors; 0 if the body consists only "
    "of the raw data of the model's single input.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}
PARAMETERS: Json = {"type": ["object", "null"], "additionalProperties": {"type": ["string", "number", "boolean"]}}
OCTETS: Json = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
STAGES = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
REPOSITORY_ACTIONS = {
    "load": "Load the current version of the model from the registry and serve it",
    "unload": "Stop serving the model",
}


def paths(deployment: Deployment[ModelInterface]) -> dict[str, Json]:
    """Return the operations by path."""
    operations = {**_server(), **_models(), **_repository()}
    for name in sorted({model.name for model in deployment.models()} & set(deployment.live)):
        operations[f"/v2/models/{name}/infer"] = {"post": _infer(name, deployment.live[name])}
    return operations


def _server() -> dict[str, Json]:
    server = closed(name=TEXT, version=TEXT, extensions=array(TEXT))
    live = closed(live={"const": True})
    ready = closed(live=FLAG, ready=FLAG)
    return {
        **get(TAG, "/v2", "The server's name, version and extensions", server, is_public=True),
        **get(TAG, "/v2/health/live", "Whether the process responds", live, is_public=True),
        **get(TAG, "/v2/health/ready", "Whether the server is ready", ready, is_public=True, can_be_unready=True),
    }


def _models() -> dict[str, Json]:
    tensors = array(closed(name=TEXT, datatype=TEXT, shape=array(WHOLE)))
    metadata = closed(name=TEXT, versions=array(TEXT), platform=TEXT, inputs=tensors, outputs=tensors)
    config_tensors = array(closed(name=TEXT, data_type=TEXT, dims=array(WHOLE)))
    config = closed(
        name=TEXT,
        platform=TEXT,
        backend=TEXT,
        version_policy=closed(specific=closed(versions=array(WHOLE))),
        max_batch_size=WHOLE,
        input=config_tensors,
        output=config_tensors,
    )
    ready = closed(name=TEXT, ready=FLAG)
    statistics = closed(model_stats=array(_model_statistics()))
    base = "/v2/models/{name}"
    return {
        **get(
            TAG,
            base,
            "Inputs and outputs; also available under /versions/{version}",
            metadata,
            problems=MODEL_NOT_FOUND,
        ),
        **get(
            TAG,
            f"{base}/ready",
            "Whether the model is ready",
            ready,
            problems=MODEL_NOT_FOUND,
            can_be_unready=True,
        ),
        **get(TAG, f"{base}/config", "The model configuration in Triton's format", config, problems=MODEL_NOT_FOUND),
        **get(TAG, f"{base}/stats", "Request counts and durations for the model", statistics, problems=MODEL_NOT_FOUND),
        **get(TAG, "/v2/models/stats", "Request counts and durations for every model", statistics),
    }


def _model_statistics() -> Json:
    duration = closed(count=WHOLE, ns=WHOLE)
    return closed(
        name=TEXT,
        version=TEXT,
        last_inference=WHOLE,
        inference_count=WHOLE,
        execution_count=WHOLE,
        inference_stats=closed(**dict.fromkeys(STAGES, duration)),
        batch_stats={"type": "array", "maxItems": 0},
    )


def _repository() -> dict[str, Json]:
    entry = closed(name=TEXT, version=TEXT, state={"enum": ["READY", "UNAVAILABLE"]}, reason=TEXT)
    index = operation(
        TAG,
        "/v2/repository/index",
        "All versions in the registry and whether they are served",
        success(array(entry)),
        problems=("malformed-body",),
    )
    index["requestBody"] = body(object_with(ready=FLAG))
    operations = {"/v2/repository/index": {"post": index}}
    for action, summary in REPOSITORY_ACTIONS.items():
        path = f"/v2/repository/models/{{name}}/{action}"
        problems = ("malformed-body", "model-not-found", "unavailable")
        description = operation(TAG, path, summary, success(closed()), problems=problems)
        description["requestBody"] = body(object_with(parameters=object_with(unload_dependents=FLAG)))
        operations[path] = {"post": description}
    return operations


def _infer(name: str, model: ModelInterface) -> Json:
    row = model.example()
    inputs = [
        {
            "name": tensor["name"],
            "datatype": _example_datatype(row[tensor["name"]], tensor["datatype"]),
            "shape": [1, 1],
            "data": [row[tensor["name"]]],
        }
        for tensor in v2_metadata.inputs(model.schema.columns)
    ]
    description = operation(
        TAG,
        f"/v2/models/{name}/infer",
        f"Predict with {name}; also available under /versions/{{version}}",
        success(_inference_response(model)),
        problems=PREDICTION_ROUTE,
    )
    description["parameters"] = [HEADER_LENGTH]
    description["requestBody"] = body(_inference_request(model), required=True, example={"inputs": inputs})
    description["requestBody"]["content"] |= OCTETS
    description["responses"]["200"]["content"] |= OCTETS
    return description


def _example_datatype(cell: Any, datatype: str) -> str:
    """Return the datatype of an example cell. The example cell of a boolean column can be a string."""
    return BYTES if isinstance(cell, str) else BOOL if isinstance(cell, bool) else datatype


def _inference_request(model: ModelInterface) -> Json:
    tensor = object_with(
        ("name", "datatype", "shape"),
        name={"enum": [*model.schema.names(), *(spec.name for spec in model.encoder.plan)]},
        datatype={"enum": list(DATATYPES)},
        shape=array({"type": "integer", "minimum": 0}, minItems=1, maxItems=2),
        parameters=PARAMETERS,
        data=array({"anyOf": [CELL, CELLS]}),
    )
    output = object_with(("name",), name={"enum": _output_names(model)}, parameters=PARAMETERS)
    return object_with(
        ("inputs",),
        id={"type": ["string", "null"]},
        parameters=PARAMETERS,
        inputs=array(tensor, minItems=1),
        outputs={"type": ["array", "null"], "items": output},
    )


def _inference_response(model: ModelInterface) -> Json:
    output = closed(
        name={"enum": _output_names(model)},
        datatype=TEXT,
        shape=array(WHOLE),
        data=array(LABEL),
    )
    schema = closed(
        model_name={"const": model.name},
        model_version=TEXT,
        id=TEXT,
        parameters=closed(warnings=TEXT),
        outputs=array(output),
    )
    schema["required"] = ["model_name", "model_version", "outputs"]
    return schema


def _output_names(model: ModelInterface) -> list[str]:
    return [*(output.name for output in v2_metadata.outputs(model)), v2_metadata.ID]
