"""The API described: FastAPI's own account of the cold routes, and each live model's request and reply."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from rowcast.serving.deployment import Deployment, LiveModel
from rowcast.web.problems import STATUS

PROBLEM = {
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
REFUSALS = {
    "400": "The body or an option is malformed",
    "413": "The body is too large",
    "415": "The body is not JSON",
    "422": "A row does not fit the model; every error of every row is listed",
    "503": "Overloaded or not able to record; try again",
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
        "name": "entity",
        "in": "query",
        "description": "Your own reference, such as an application number; kept in history.",
        "schema": {"type": "string", "maxLength": 128},
    },
]


def document(app: FastAPI, deployment: Deployment, root_path: str = "") -> dict[str, Any]:
    """The whole OpenAPI document, for whoever reaches it behind `root_path`."""
    servers = [{"url": root_path}] if root_path else None
    made = get_openapi(title=app.title, version=app.version, routes=app.routes, servers=servers)
    paths = made.setdefault("paths", {})
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM
    for model in deployment.models():
        schemas[f"{model.name}.row"] = model.schema.json_schema()
        schemas[f"{model.name}.prediction"] = prediction_schema(model)
        paths[f"/models/{model.name}/predict"] = {"post": _operation(model)}
        if deployment.default == model.name:
            paths["/predict"] = {"post": _operation(model, default=True)}
    return made


def prediction_schema(model: LiveModel) -> dict[str, Any]:
    """One prediction of this model as JSON Schema."""
    decision = model.manifest.decision
    properties: dict[str, Any] = {
        "id": {"type": "string", "format": "uuid"},
        "model": {"const": model.name},
        "version": {"type": "integer"},
        "prediction": {"type": "number"} if decision.task == "regression" else {"enum": list(decision.classes)},
    }
    if decision.task != "regression":
        probability = {"type": "number", "minimum": 0, "maximum": 1.0000002}  # float32 softmax sums to 1 within an ulp
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
    warning = {"type": "object", "properties": {key: {"type": "string"} for key in ("column", "code", "message")}}
    properties["warnings"] = {"type": "array", "items": warning}
    properties["cached"] = {"type": "boolean"}
    return {
        "type": "object",
        "properties": properties,
        "required": [*required, "warnings", "cached"],
        "additionalProperties": False,
    }


def _operation(model: LiveModel, *, default: bool = False) -> dict[str, Any]:
    row = {"$ref": f"#/components/schemas/{model.name}.row"}
    prediction = {"$ref": f"#/components/schemas/{model.name}.prediction"}
    batch = {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": row, "minItems": 1}},
        "required": ["rows"],
        "additionalProperties": False,
    }
    answered = {
        "type": "object",
        "properties": {
            "model": {"const": model.name},
            "version": {"type": "integer"},
            "predictions": {"type": "array", "items": prediction},
        },
        "required": ["model", "version", "predictions"],
        "additionalProperties": False,
    }
    example = model.example()
    target = model.manifest.training.target
    responses: dict[str, Any] = {
        "200": {
            "description": "Predictions, each already kept in history",
            "content": {"application/json": {"schema": {"anyOf": [prediction, answered]}}},
        }
    }
    for status, description in REFUSALS.items():
        content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
        responses[status] = {"description": description, "content": content}
    return {
        "tags": ["predictions"],
        "summary": f"Predict {target} with {model.name}" + (" (the default model)" if default else ""),
        "operationId": "predict" if default else f"predict_{model.name}",
        "parameters": OPTIONS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [row, batch]},
                    "examples": {"row": {"value": example}, "batch": {"value": {"rows": [example]}}},
                }
            },
        },
        "responses": responses,
    }
