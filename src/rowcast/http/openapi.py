"""The API described: FastAPI's own account of the cold routes, and each live model's request and reply."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from rowcast.http import response_schemas as replies
from rowcast.http.dialects import openapi as describe
from rowcast.http.problems import STATUS, TITLES
from rowcast.schema.encoding import NO_WARNINGS
from rowcast.schema.prediction import encode_replies
from rowcast.schema.schema import REQUIRED
from rowcast.serving.deployment import Deployment
from rowcast.serving.live_models import LiveModel
from rowcast.wire.codec import WireCodec
from rowcast.wire.json_schema import PROBABILITY
from rowcast.wire.reply import NativeReplies

PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string", "enum": [f"urn:rowcast:error:{slug}" for slug in [*STATUS, "internal"]]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["column", "code", "message"],
                "properties": {
                    "column": {"type": "string"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                    "got": {},
                    "row": {"type": "integer"},
                },
                "additionalProperties": False,
            },
        },
    },
    "additionalProperties": False,
}
# The slug is the example that the pages show.
REFUSALS = {
    "400": ("malformed-body", "The body or an option is malformed"),
    "404": ("model-not-found", "The model is not served any more"),
    "408": ("request-timeout", "The request took too long to arrive"),
    "409": ("repeat-in-flight", "The first request with this Idempotency-Key is not answered yet"),
    "413": ("body-too-large", "The body is too large"),
    "415": ("unsupported-media-type", "The body is not JSON, or packed in a way that is not known"),
    "422": (
        "invalid-row",
        "A row does not fit the model; every error of every row is listed. Or `repeat-differs`: see Idempotency-Key",
    ),
    "429": ("over-quota", "The quota of the key is used up"),
    "431": ("head-too-large", "The head of the request is too large"),
    "503": ("overloaded", "Overloaded or not able to record; try again"),
    "504": ("too-late", "The time of X-Request-Timeout is up; not scored"),
}
WHOLE_TEXT = {"type": "string", "pattern": "^[0-9]+$"}
SAID: dict[str, Any] = {
    "Retry-After": {"description": "Seconds after which it may be tried again.", "schema": WHOLE_TEXT},
    "WWW-Authenticate": {"description": "How to send a key.", "schema": {"type": "string"}},
    "X-Cache": {"description": "Where a cache is on: `hit` or `miss`.", "schema": {"enum": ["hit", "miss"]}},
    "X-Wire-Warning": {
        "description": "Where a wire template filled or ignored something: how many cells and names.",
        "schema": {"type": "string", "pattern": "^filled=[0-9]+, ignored=[0-9]+$"},
    },
    "Idempotency-Replayed": {
        "description": "Where an Idempotency-Key was sent: whether this is the reply to an earlier request.",
        "schema": {"enum": ["true", "false"]},
    },
}
SAID_WITH = {401: ("WWW-Authenticate",), 409: ("Retry-After",), 429: ("Retry-After",), 503: ("Retry-After",)}
HEADERS: dict[str, Any] = {
    "X-Request-ID": {
        "description": "The request's id, yours or a new one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "RateLimit-Policy": {"description": "The key's quota.", "schema": {"type": "string"}},
    "RateLimit": {"description": "Rows left, and seconds until the quota is whole.", "schema": {"type": "string"}},
    "traceparent": {"description": "Our part of the trace that came.", "schema": {"type": "string"}},
}
SECURITY: dict[str, Any] = {
    "key": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "Made by `rowcast keys create`."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same key."},
}
TAGS = {
    "predictions": "One row, or `rows`, in and predictions out, each kept before it is sent.",
    "models": "What is served, and what it takes.",
    "history": "What was answered.",
    "health": "For load balancers and Prometheus.",
}
OPTIONS = [
    {
        "name": "partial",
        "in": "query",
        "description": "Answer the good rows of a batch and put `errors` in the place of the others.",
        "schema": {"type": "boolean", "default": False},
    },
    {
        "name": "cache",
        "in": "query",
        "description": "Take part in the cache, where one is set up.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "wire",
        "in": "query",
        "description": "`false`: request and reply are native, though the model has a wire template of its own.",
        "schema": {"type": "boolean", "default": True},
    },
    {
        "name": "entity",
        "in": "query",
        "description": "Your own reference, such as an application number; kept in history.",
        "schema": {"type": "string", "maxLength": 128},
    },
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and request again get the first reply; for a day.",
        "schema": {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"},
    },
    {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "Seconds that you will wait; what has not been scored by then is not.",
        "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,2}(\\.[0-9]{1,9})?$"},
    },
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Your own id of this request; it is in the reply, in history and in logs.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
]


WARNINGS: dict[str, Any] = {
    "type": "array",
    "items": replies.closed(**{word: {"type": "string"} for word in ("column", "code", "message")}),
}
REFUSED: dict[str, Any] = {
    "type": "object",
    "properties": {"errors": PROBLEM["properties"]["errors"]},
    "required": ["errors"],
    "additionalProperties": False,
}
"""In the place of a prediction, with `partial=true`."""

NO_MODELS = "No models here: none is served yet, or a key is needed to see them. Press Authorize to give one."


def document(app: FastAPI, deployment: Deployment[LiveModel], root_path: str = "") -> dict[str, Any]:
    """The whole OpenAPI document, for whoever reaches it behind `root_path`."""
    servers = [{"url": root_path}] if root_path else None
    tags: list[dict[str, Any]] = [
        {"name": name, "description": text} for name, text in {**TAGS, **describe.TAGS}.items()
    ]
    hint = None if deployment.live else NO_MODELS
    made = get_openapi(
        title=app.title, version=app.version, description=hint, routes=app.routes, servers=servers, tags=tags
    )
    paths = made.setdefault("paths", {})
    schemas: dict[str, Any] = {"Problem": PROBLEM, **replies.components()}
    made["components"] = {"schemas": schemas, "securitySchemes": SECURITY}
    for path, item in paths.items():
        for operation in item.values():
            _mend_responses(path, operation)
    for address, model in deployment.live.items():
        schemas[f"{_component(address)}.row"] = model.schema.json_schema()
        schemas[f"{_component(address)}.prediction"] = prediction_schema(model)
        for batch, tail in ((False, ""), (True, "/batch")):
            if deployment.default == address:
                paths[f"/predict{tail}"] = {"post": _operation(address, model, default=True, batch=batch)}
            paths[f"/models/{address}/predict{tail}"] = {"post": _operation(address, model, batch=batch)}
    paths |= describe.paths(deployment)
    return made


def _mend_responses(path: str, operation: dict[str, Any]) -> None:
    """What a cold route really answers: FastAPI knows neither our errors nor what a plain response holds."""
    responses = operation["responses"]
    responses.pop("422", None)  # FastAPI's own error; a wrong option gets our 400
    fine = {"description": operation["summary"], "headers": HEADERS, "content": replies.reply(path)}
    responses["200"] = fine
    places = {parameter["in"] for parameter in operation.get("parameters", [])}
    if "query" in places:
        responses["400"] = _refusal("bad-option", "An option is wrong")
    if path in ("/models/info", "/sample"):
        responses["404"] = _refusal("model-not-found", "Several models are served and none is the default")
    elif "path" in places:
        slug = "model-not-found" if path.startswith("/models") else "not-found"
        responses["404"] = _refusal(slug, TITLES[slug])
    if path == "/models/{name}":
        responses["304"] = {"description": "Not changed: `If-None-Match` named its ETag"}
    if path in ("/health", "/health/ready"):
        responses["503"] = {**fine, "description": "The same, when not all is well"}
    if path == "/models/reload":
        responses["409"] = {**fine, "description": "The same, when a version cannot be served and the old one stays"}
        responses["503"] = {**fine, "description": "The same, when a worker has not followed in time"}
    if path.startswith("/predictions"):
        responses["503"] = _refusal("unavailable", "The store does not answer")
        responses["429"] = _refusal("over-quota", "The quota of the key is used up")
    if path not in replies.OPEN_ROUTES:
        _need_key(operation)


def _need_key(operation: dict[str, Any]) -> None:
    """A key is needed, where the server has keys; `{}` is a server that has none."""
    operation["security"] = [{}, {"key": []}, {"bearer": []}]
    operation["responses"]["401"] = _refusal("unauthorized", "A good key is needed")
    operation["responses"]["403"] = _refusal("forbidden", "The key, or the origin of the page, is not for this")


def _refusal(slug: str, description: str) -> dict[str, Any]:
    """A refusal as a response, with an example of its own."""
    example: dict[str, Any] = {
        "type": f"urn:rowcast:error:{slug}",
        "title": TITLES[slug],
        "status": STATUS[slug],
        "detail": "A sentence that says what is wrong and what would be right.",
        "instance": "urn:rowcast:request:0c9a8f21d7e3-1f",
    }
    if slug == "invalid-row":
        example["errors"] = [{"column": "income", "code": "missing", "message": REQUIRED}]
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    headers = {**HEADERS, **{name: SAID[name] for name in SAID_WITH.get(STATUS[slug], ())}}
    return {"description": description, "headers": headers, "content": {"application/problem+json": content}}


def prediction_schema(model: LiveModel) -> dict[str, Any]:
    """One prediction of this model as JSON Schema."""
    decision = model.manifest.decision
    properties: dict[str, Any] = {
        "id": {"type": "string", "format": "uuid"},
        "model": {"const": model.name},
        "version": {"type": "integer"},
        "prediction": {"type": "number"} if decision.task == "regression" else {"enum": list(decision.classes)},
    }
    if model.has_probabilities:
        probability = PROBABILITY
        properties["probability"] = probability
        if decision.task == "binary":
            properties["score"] = probability
        names = decision.names()
        properties["probabilities"] = {
            "type": "object",
            "properties": dict.fromkeys(names, probability),
            "required": names,
            "additionalProperties": False,
        }
    required = list(properties)
    example = _example(model)
    properties["warnings"] = WARNINGS
    properties["cached"] = {"type": "boolean"}
    return {
        "type": "object",
        "properties": properties,
        "required": [*required, "warnings", "cached"],
        "additionalProperties": False,
        "examples": [example],
    }


def _example(model: LiveModel) -> dict[str, Any]:
    """The reply to the golden row."""
    found: dict[str, Any] = msgspec.json.decode(_example_reply(model))
    return found


def _example_reply(model: LiveModel) -> bytes:
    assert model.golden is not None  # a model without one is not served
    ids, scores = ["01890a5d-ac96-774b-8bce-b302099a8057"], [model.golden.score]
    (reply,) = encode_replies(model.name, model.version, ids=ids, scores=scores, warnings=[NO_WARNINGS], cached=[False])
    return reply


class _Form(NamedTuple):
    """A way to ask a model: JSON Schema and an example of what comes and of what goes."""

    title: str
    request: dict[str, Any]
    reply: dict[str, Any]
    asked: Any
    answered: Any


def _component(address: str) -> str:
    """The name of a model among the components, where `@` may not stand."""
    return address.replace("@", ".")


def _forms(address: str, model: LiveModel, *, batch: bool) -> list[_Form]:
    """The forms that an address takes; the first is the usual one."""
    row = {"$ref": f"#/components/schemas/{_component(address)}.row"}
    prediction = {"$ref": f"#/components/schemas/{_component(address)}.prediction"}
    rows = replies.closed(rows={"type": "array", "items": row, "minItems": 1})
    answered = replies.closed(
        model={"const": model.name},
        version=replies.WHOLE,
        predictions={"type": "array", "items": {"anyOf": [prediction, REFUSED]}},
    )
    assert model.golden is not None
    example, reply = model.golden.row, _example(model)
    many = {"model": model.name, "version": model.version, "predictions": [reply]}
    native = [_Form("batch", rows, answered, {"rows": [example]}, many)]
    if not batch:
        native.insert(0, _Form("row", row, prediction, example, reply))
    if model.wire is None:
        return native
    named = [form._replace(title=f"native-{form.title}") for form in native]
    return [_wire_form(model, model.wire, prediction, example, batch=batch), *named]


def _wire_form(
    model: LiveModel, wire: WireCodec, prediction: dict[str, Any], example: dict[str, Any], *, batch: bool
) -> _Form:
    requests = wire.request_schemas(model.schema.json_schema())
    shapes = wire.reply_schemas(prediction, WARNINGS)
    told = NativeReplies([_example_reply(model)], 0.001)
    if batch:
        said = msgspec.json.decode(wire.render_batch([told], 0.001))
        return _Form("wire-batch", requests[1], shapes[1], wire.batch_example(example), said)
    return _Form("wire", requests[0], shapes[0], wire.example(example), msgspec.json.decode(wire.render(told)))


def _operation(address: str, model: LiveModel, *, default: bool = False, batch: bool = False) -> dict[str, Any]:
    forms = _forms(address, model, batch=batch)
    responses: dict[str, Any] = {
        "200": {
            "description": "Predictions, each already kept in history",
            "headers": {
                **HEADERS,
                **{name: SAID[name] for name in ("X-Cache", "Idempotency-Replayed", "X-Wire-Warning")},
            },
            "content": _json([form.reply for form in forms], {form.title: form.answered for form in forms}),
        }
    }
    responses.update({status: _refusal(slug, description) for status, (slug, description) in REFUSALS.items()})
    target = model.manifest.training.target
    name = "predict" if default else f"predict_{_component(address)}"
    operation: dict[str, Any] = {
        "tags": ["predictions"],
        "summary": f"Predict {target} with {address}"
        + (", several requests in one" if batch else "")
        + (" (the default model)" if default else ""),
        "operationId": f"{name}_batch" if batch else name,
        "parameters": OPTIONS,
        "requestBody": {
            "required": True,
            "content": _json([form.request for form in forms], {form.title: form.asked for form in forms}),
        },
        "responses": responses,
    }
    if model.wire is not None:
        operation["description"] = "In the form of the model's wire template; with `wire=false` in the native one."
    _need_key(operation)
    return operation


def _json(shapes: list[dict[str, Any]], examples: dict[str, Any]) -> dict[str, Any]:
    """A body of one of these shapes."""
    schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
    named = {title: {"value": value} for title, value in examples.items()}
    return {"application/json": {"schema": schema, "examples": named}}
