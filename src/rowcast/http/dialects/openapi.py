"""The other dialects in the OpenAPI document: closed requests and replies, each dialect's own refusals."""

from __future__ import annotations

from typing import Any

from rowcast.http.dialects import mlflow, v2_infer
from rowcast.http.problems import STATUS, TITLES
from rowcast.http.response_schemas import FLAG, TEXT, WHOLE, closed
from rowcast.schema.tensors import BOOL, BYTES, TYPES
from rowcast.serving.deployment import Deployment
from rowcast.serving.live_models import LiveModel

Json = dict[str, Any]

TAGS = {
    "v2": "Open Inference Protocol V2: KServe, Triton, MLServer.",
    "v1": "KServe V1 and TensorFlow Serving.",
    "mlflow": "MLflow's scoring server, and SageMaker's routes.",
}
PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}
ERROR = closed(error=TEXT)
MLFLOW_ERROR = closed(error_code=TEXT, message=TEXT)
ANYTIME = ("request-timeout", "body-too-large", "unsupported-media-type", "over-quota", "head-too-large", "overloaded")
ASKED = ("malformed-body", "model-not-found", "repeat-in-flight", "not-supported", "too-late", "unsupported-encoding")
NAME = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": "^[a-z0-9._-]{1,64}$"}}
LABEL: Json = {"type": ["string", "number", "boolean"]}
CELL: Json = {"type": ["string", "number", "boolean", "null"]}
CELLS: Json = {"type": "array", "items": CELL}
OPEN = ("/v2", "/v2/health/live", "/v2/health/ready", "/ping", "/version")
PACKED = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "Bytes of JSON before binary tensors; 0 for the raw bytes of a model's only input.",
    "schema": {"type": "string", "pattern": "^[0-9]{1,9}$"},
}


def paths(deployment: Deployment[LiveModel]) -> dict[str, Json]:
    """Every route of the other dialects, by its path."""
    found = {**_server(), **_models(), **_repository()}
    for name in {model.name for model in deployment.models()} & set(deployment.live):
        model = deployment.live[name]
        found[f"/v2/models/{name}/infer"] = {"post": _infer(name, model)}
        found[f"/v1/models/{name}:predict"] = {"post": _predict(name, model)}
    found["/invocations"] = {"post": _invocations(deployment)}
    return found


def _operation(
    tag: str, path: str, summary: str, replies: Json, slugs: tuple[str, ...] = (), error: Json = ERROR
) -> Json:
    operation: Json = {
        "tags": [tag],
        "summary": summary,
        "operationId": path.strip("/").replace("/", "_").replace("{name}", "one").replace(":", "_"),
        "responses": {**_refusals((*slugs, *ANYTIME), error), **replies},
    }
    if "{name}" in path:
        operation["parameters"] = [NAME]
    if path not in OPEN:
        operation["security"] = [{}, {"key": []}, {"bearer": []}]
        operation["responses"] |= _refusals(("unauthorized", "forbidden"), error)
    return operation


def _refusals(slugs: tuple[str, ...], error: Json) -> Json:
    """Refusals in the dialect's form; as problem details where Accept asks for them."""
    content = {"application/json": {"schema": error}, "application/problem+json": PROBLEM}
    return {str(STATUS[slug]): {"description": TITLES[slug], "content": content} for slug in slugs}


def _ok(schema: Json, description: str = "As the protocol has it", *, kind: str = "application/json") -> Json:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _get(tag: str, path: str, summary: str, schema: Json, *slugs: str, **more: Json) -> dict[str, Json]:
    return {path: {"get": _operation(tag, path, summary, {"200": _ok(schema), **more}, ("bad-option", *slugs))}}


def _server() -> dict[str, Json]:
    names = {"type": "array", "items": TEXT}
    ready = closed(live=FLAG, ready=FLAG)
    unready = {"503": _ok({"anyOf": [ready, ERROR]}, "No model is loaded and proven")}
    version = _operation("mlflow", "/version", "This server's version", {"200": _ok(TEXT, kind="text/plain")})
    ping = _operation("mlflow", "/ping", "Ready to be asked", {"200": _ok(TEXT, "A blank line", kind="text/plain")})
    ping["responses"]["503"] = {
        "description": "No model is loaded and proven",
        "content": ping["responses"]["200"]["content"],
    }
    return {
        **_get("v2", "/v2", "This server", closed(name=TEXT, version=TEXT, extensions=names)),
        **_get("v2", "/v2/health/live", "The process answers", closed(live={"const": True})),
        **_get("v2", "/v2/health/ready", "A model is loaded and proven", ready, **unready),
        **_get("v1", "/v1/models", "The names of all models", closed(models=names)),
        "/ping": {"get": ping},
        "/version": {"get": version},
    }


def _models() -> dict[str, Json]:
    shape = {"type": "array", "items": WHOLE}
    tensors = {"type": "array", "items": closed(name=TEXT, datatype=TEXT, shape=shape)}
    metadata = closed(
        name=TEXT, versions={"type": "array", "items": TEXT}, platform=TEXT, inputs=tensors, outputs=tensors
    )
    config_tensors = {"type": "array", "items": closed(name=TEXT, data_type=TEXT, dims=shape)}
    config = closed(
        name=TEXT,
        platform=TEXT,
        backend=TEXT,
        version_policy=closed(specific=closed(versions={"type": "array", "items": WHOLE})),
        max_batch_size=WHOLE,
        input=config_tensors,
        output=config_tensors,
    )
    ready = closed(name=TEXT, ready=FLAG)
    status = closed(version=TEXT, state=TEXT, status=closed(error_code=TEXT, error_message=TEXT))
    one = closed(name=TEXT, ready=FLAG, model_version_status={"type": "array", "items": status})
    stats = closed(model_stats={"type": "array", "items": _stats()})
    missing = "model-not-found"
    base = "/v2/models/{name}"
    return {
        **_get("v2", base, "Inputs and outputs; also below /versions/{version}", metadata, missing),
        **_get("v2", f"{base}/ready", "Ready to be asked", ready, missing, **_unready(ready)),
        **_get("v2", f"{base}/config", "Triton's configuration of the model", config, missing),
        **_get("v2", f"{base}/stats", "How often and how long it was asked", stats, missing),
        **_get("v2", "/v2/models/stats", "The same of every model", stats),
        **_get("v1", "/v1/models/{name}", "Ready to be asked", one, missing, **_unready(one)),
    }


def _unready(schema: Json) -> Json:
    return {"503": _ok({"anyOf": [schema, ERROR]}, "Not ready")}


def _stats() -> Json:
    spent = closed(count=WHOLE, ns=WHOLE)
    kinds = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    return closed(
        name=TEXT,
        version=TEXT,
        last_inference=WHOLE,
        inference_count=WHOLE,
        execution_count=WHOLE,
        inference_stats=closed(**dict.fromkeys(kinds, spent)),
        batch_stats={"type": "array", "maxItems": 0},
    )


def _repository() -> dict[str, Json]:
    shelved = closed(name=TEXT, version=TEXT, state={"enum": ["READY", "UNAVAILABLE"]}, reason=TEXT)
    index = _operation("v2", "/v2/repository/index", "What is served, or could be", {}, ("malformed-body",))
    index["responses"]["200"] = _ok({"type": "array", "items": shelved})
    index["requestBody"] = _body({"type": "object", "properties": {"ready": FLAG}, "additionalProperties": False})
    found = {"/v2/repository/index": {"post": index}}
    told = {"load": "Serve the model again, as the registry has it now", "unload": "Serve the model no more"}
    for verb, summary in told.items():
        path = f"/v2/repository/models/{{name}}/{verb}"
        slugs = ("malformed-body", "model-not-found", "unavailable")
        operation = _operation("v2", path, summary, {"200": _ok(closed())}, slugs)
        parameters = {"type": "object", "properties": {"unload_dependents": FLAG}, "additionalProperties": False}
        operation["requestBody"] = _body(
            {"type": "object", "properties": {"parameters": parameters}, "additionalProperties": False}
        )
        found[path] = {"post": operation}
    return found


def _body(schema: Json, *, required: bool = False, example: Any = None) -> Json:
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    return {"required": required, "content": {"application/json": content}}


def _infer(name: str, model: LiveModel) -> Json:
    columns = {one["name"]: one["datatype"] for one in v2_infer.inputs(model.schema.columns)}
    row = model.example()
    inputs = [
        {"name": column, "datatype": _datatype(row[column], kind), "shape": [1, 1], "data": [row[column]]}
        for column, kind in columns.items()
    ]
    parameters: Json = {
        "type": ["object", "null"],
        "additionalProperties": {"type": ["string", "number", "boolean"]},
    }
    tensor = {
        "type": "object",
        "properties": {
            "name": {"enum": [*columns, *(spec.name for spec in model.encoder.plan)]},
            "datatype": {"enum": [*TYPES, BYTES]},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1, "maxItems": 2},
            "parameters": parameters,
            "data": {"type": "array", "items": {"anyOf": [CELL, CELLS]}},
        },
        "required": ["name", "datatype", "shape"],
        "additionalProperties": False,
    }
    wanted = {
        "type": "object",
        "properties": {
            "name": {"enum": [*_output_names(model), v2_infer.ID]},
            "parameters": parameters,
        },
        "required": ["name"],
        "additionalProperties": False,
    }
    request = {
        "type": "object",
        "properties": {
            "id": {"type": ["string", "null"]},
            "parameters": parameters,
            "inputs": {"type": "array", "items": tensor, "minItems": 1},
            "outputs": {"type": ["array", "null"], "items": wanted},
        },
        "required": ["inputs"],
        "additionalProperties": False,
    }
    path = f"/v2/models/{name}/infer"
    operation = _operation("v2", path, f"Predict with {name}; also below /versions/{{version}}", {}, ASKED)
    operation["parameters"] = [PACKED]
    operation["requestBody"] = _body(request, required=True, example={"inputs": inputs})
    octets = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    operation["requestBody"]["content"] |= octets
    operation["responses"]["200"] = _ok(_inferred(model))
    operation["responses"]["200"]["content"] |= octets
    return operation


def _datatype(cell: Any, kind: str) -> str:
    """How the example of a column is sent: a boolean may be a word."""
    return BYTES if isinstance(cell, str) else BOOL if isinstance(cell, bool) else kind


def _output_names(model: LiveModel) -> list[str]:
    return [output.name for output in v2_infer.outputs(model)]


def _inferred(model: LiveModel) -> Json:
    names = [*_output_names(model), v2_infer.ID]
    output = closed(
        name={"enum": names},
        datatype=TEXT,
        shape={"type": "array", "items": WHOLE},
        data={"type": "array", "items": LABEL},
    )
    schema = closed(
        model_name={"const": model.name},
        model_version=TEXT,
        id=TEXT,
        parameters=closed(warnings=TEXT),
        outputs={"type": "array", "items": output},
    )
    schema["required"] = ["model_name", "model_version", "outputs"]
    return schema


def _predict(name: str, model: LiveModel) -> Json:
    path = f"/v1/models/{name}:predict"
    row = model.schema.json_schema()
    instances = {"type": "array", "items": {"anyOf": [row, CELLS]}, "minItems": 1}
    signature = {"signature_name": {"enum": ["serving_default", "predict"]}}

    def layout(key: str, schema: Json) -> Json:
        return {
            "type": "object",
            "properties": {key: schema, **signature},
            "required": [key],
            "additionalProperties": False,
        }

    request = {"anyOf": [layout("instances", instances), layout("inputs", _columns(model))]}
    labels = {"type": "array", "items": LABEL}
    operation = _operation("v1", path, f"Predict with {name}; also below /versions/N and /labels/L", {}, ASKED)
    operation["requestBody"] = _body(request, required=True, example={"instances": [model.example()]})
    operation["responses"]["200"] = _ok({"anyOf": [closed(predictions=labels), closed(outputs=labels)]})
    return operation


def _columns(model: LiveModel) -> Json:
    return {
        "type": "object",
        "properties": dict.fromkeys(model.schema.names(), CELLS),
        "additionalProperties": False,
    }


def _invocations(deployment: Deployment[LiveModel]) -> Json:
    params = {
        "type": "object",
        "properties": {"predict_method": {"enum": list(mlflow.METHODS)}},
        "additionalProperties": False,
    }
    rows: Json = {"type": "array", "items": {"anyOf": [{"type": "object", "additionalProperties": CELL}, CELLS]}}
    split: Json = {
        "type": "object",
        "properties": {
            "columns": {"type": "array", "items": TEXT},
            "index": {"type": "array", "items": CELL},
            "data": {"type": "array", "items": CELLS},
        },
        "required": ["data"],
        "additionalProperties": False,
    }
    columns = {"type": "object", "additionalProperties": CELLS}
    schemas = {
        "dataframe_split": split,
        "dataframe_records": {"type": "array", "items": {"type": "object", "additionalProperties": CELL}},
        "instances": rows,
        "inputs": {"anyOf": [rows, columns]},
    }
    request = {
        "anyOf": [
            {
                "type": "object",
                "properties": {key: schema, "params": params},
                "required": [key],
                "additionalProperties": False,
            }
            for key, schema in schemas.items()
        ]
    }
    default = deployment.live.get(deployment.default) if deployment.default else None
    example = {"dataframe_records": [default.example()]} if default else None
    summary = "Predict with the default model"
    operation = _operation("mlflow", "/invocations", summary, {}, ASKED, MLFLOW_ERROR)
    operation["requestBody"] = _body(request, required=True, example=example)
    operation["requestBody"]["content"]["text/csv"] = {"schema": TEXT}
    answers = {"type": "array", "items": {"anyOf": [LABEL, {"type": "array", "items": {"type": "number"}}]}}
    operation["responses"]["200"] = _ok(closed(predictions=answers))
    return operation
