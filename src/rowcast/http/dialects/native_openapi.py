"""The OpenAPI operations of the prediction routes, with each model's requests and replies in every format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.http.json_schemas import FLAG, TEXT, WHOLE, Json, array, closed, reference
from rowcast.http.openapi_parts import (
    COMMON_HEADERS,
    PREDICTION_HEADERS,
    json_content,
    problem_responses,
    require_key,
)
from rowcast.schema.encoding import NO_WARNINGS
from rowcast.schema.prediction import encode_replies
from rowcast.wire.json_schema import PROBABILITY
from rowcast.wire.reply import NativeReplies

if TYPE_CHECKING:
    from rowcast.serving.deployment import Deployment
    from rowcast.serving.interface import ModelInterface
    from rowcast.wire.codec import WireCodec

PROBLEMS = (
    "malformed-body",
    "model-not-found",
    "request-timeout",
    "repeat-in-flight",
    "body-too-large",
    "unsupported-media-type",
    "invalid-row",
    "repeat-differs",
    "over-quota",
    "head-too-large",
    "overloaded",
    "too-late",
)
PARAMETERS: list[Json] = [
    {
        "name": "partial",
        "in": "query",
        "description": "Score the valid rows in a batch and return `errors` for each invalid row.",
        "schema": {"type": "boolean", "default": False},
    },
    {
        "name": "cache",
        "in": "query",
        "description": "`false` bypasses the cache.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "wire",
        "in": "query",
        "description": "`false` uses the native format even if the model has a wire template.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "entity",
        "in": "query",
        "description": "An identifier of your choice, for example an application number; recorded in the history.",
        "schema": {"type": "string", "maxLength": 128},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "If the request is repeated with the same key within one day, the first response is returned.",
        "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    },
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Timeout in seconds; rows that are still queued when it expires are not scored.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,2}(\\.[0-9]{1,9})?$"},
    },
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your own request id; it appears in the response, the history and the logs.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
]
WARNINGS = array(closed(column=TEXT, code=TEXT, message=TEXT))
ROW_ERRORS = closed(errors=array(reference("ValueProblem")))
"""The schema of an invalid row's result if `partial=true`."""
EXAMPLE_ID = "01890a5d-ac96-774b-8bce-b302099a8057"


class _Form(msgspec.Struct, frozen=True, kw_only=True):
    """A request format that a path accepts, described by JSON Schemas and examples of the request and its reply."""

    name: str
    request: Json
    reply: Json
    example: Any
    example_reply: Any


def components(deployment: Deployment[ModelInterface]) -> dict[str, Json]:
    """Return the schemas of every model's rows and predictions."""
    schemas = {}
    for address, model in deployment.live.items():
        schemas[f"{_component(address)}.row"] = model.schema.json_schema()
        schemas[f"{_component(address)}.prediction"] = prediction_schema(model)
    return schemas


def paths(deployment: Deployment[ModelInterface]) -> dict[str, Json]:
    """Return the operations by path."""
    return {path: {"post": operation} for path, operation in _operations(deployment)}


def prediction_schema(model: ModelInterface) -> Json:
    """Return the JSON Schema of a native prediction by this model."""
    decision = model.decision
    properties: Json = {
        "id": {"type": "string", "format": "uuid"},
        "model": {"const": model.name},
        "version": WHOLE,
        "prediction": {"enum": list(decision.classes)} if model.is_classifier else {"type": "number"},
    }
    if model.has_probabilities:
        properties["probability"] = PROBABILITY
        if decision.task == "binary":
            properties["score"] = PROBABILITY
        properties["probabilities"] = closed(**dict.fromkeys(decision.names(), PROBABILITY))
    schema = closed(**properties, warnings=WARNINGS, cached=FLAG)
    return {**schema, "examples": [msgspec.json.decode(_example_reply(model))]}


def _operations(deployment: Deployment[ModelInterface]) -> Iterator[tuple[str, Json]]:
    for address, model in deployment.live.items():
        for suffix in ("", "/batch"):
            forms = _forms(address, model, is_batch=bool(suffix))
            batch = " in a batch" if suffix else ""
            summary = f"Predict {model.manifest.training.target}{batch} with {address}"
            operation_suffix = suffix.replace("/", "_")
            if deployment.default == address:
                operation = _operation(model, forms, f"{summary} (the default model)", f"predict{operation_suffix}")
                yield f"/predict{suffix}", operation
            operation_id = f"predict_{_component(address)}{operation_suffix}"
            yield f"/models/{address}/predict{suffix}", _operation(model, forms, summary, operation_id)


def _operation(model: ModelInterface, forms: list[_Form], summary: str, operation_id: str) -> Json:
    success = {
        "description": "The predictions, which have been recorded in the history",
        "headers": {**COMMON_HEADERS, **PREDICTION_HEADERS},
        "content": json_content([form.reply for form in forms], {form.name: form.example_reply for form in forms}),
    }
    operation: Json = {
        "tags": ["predictions"],
        "summary": summary,
        "operationId": operation_id,
        "parameters": PARAMETERS,
        "requestBody": {
            "required": True,
            "content": json_content([form.request for form in forms], {form.name: form.example for form in forms}),
        },
        "responses": {"200": success, **problem_responses(PROBLEMS)},
    }
    if model.wire is not None:
        operation["description"] = "Uses the model's wire template unless `wire=false` selects the native format."
    require_key(operation)
    return operation


def _forms(address: str, model: ModelInterface, *, is_batch: bool) -> list[_Form]:
    """Return the request formats that a path accepts, starting with the default format."""
    row, prediction = reference(f"{_component(address)}.row"), reference(f"{_component(address)}.prediction")
    example, example_reply = model.golden_example(), msgspec.json.decode(_example_reply(model))
    reply = closed(model={"const": model.name}, version=WHOLE, predictions=array({"anyOf": [prediction, ROW_ERRORS]}))
    forms = [
        _Form(
            name="batch",
            request=closed(rows=array(row, minItems=1)),
            reply=reply,
            example={"rows": [example]},
            example_reply={"model": model.name, "version": model.version, "predictions": [example_reply]},
        )
    ]
    if not is_batch:
        forms.insert(0, _Form(name="row", request=row, reply=prediction, example=example, example_reply=example_reply))
    if model.wire is None:
        return forms
    native = [msgspec.structs.replace(form, name=f"native-{form.name}") for form in forms]
    return [_wire_form(model, model.wire, prediction, example, is_batch=is_batch), *native]


def _wire_form(model: ModelInterface, wire: WireCodec, prediction: Json, example: Json, *, is_batch: bool) -> _Form:
    request, batch_request = wire.request_schemas(model.schema.json_schema())
    reply, batch_reply = wire.reply_schemas(prediction, WARNINGS)
    replies = NativeReplies([_example_reply(model)], 0.001)
    if is_batch:
        return _Form(
            name="wire-batch",
            request=batch_request,
            reply=batch_reply,
            example=wire.batch_example(example),
            example_reply=msgspec.json.decode(wire.render_batch([replies], 0.001)),
        )
    return _Form(
        name="wire",
        request=request,
        reply=reply,
        example=wire.example(example),
        example_reply=msgspec.json.decode(wire.render(replies)),
    )


def _example_reply(model: ModelInterface) -> bytes:
    """Return an example reply, which contains the prediction for the first golden row."""
    assert model.golden is not None
    (reply,) = encode_replies(
        model.name,
        model.version,
        ids=[EXAMPLE_ID],
        scores=[model.golden.score],
        warnings=[NO_WARNINGS],
        cached=[False],
    )
    return reply


def _component(address: str) -> str:
    """Return the model's address without `@`, which component names and operation ids cannot contain."""
    return address.replace("@", ".")
