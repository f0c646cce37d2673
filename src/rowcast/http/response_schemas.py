"""What the cold routes answer, as closed JSON Schemas: what is not written here is not in a reply."""

from __future__ import annotations

from typing import Any

import msgspec

from rowcast.history.records import Record
from rowcast.registry.bundle import Parity
from rowcast.schema.schema import Column
from rowcast.serving.fleet import ReloadResult, WorkerStatus

REFERENCE = "#/components/schemas/{name}"
TEXT: dict[str, Any] = {"type": "string"}
WHOLE: dict[str, Any] = {"type": "integer"}
FLAG: dict[str, Any] = {"type": "boolean"}
OPEN_ROUTES = frozenset({"/health/live", "/health/ready"})


def components() -> dict[str, Any]:
    """The schemas that several replies share."""
    _, found = msgspec.json.schema_components(
        (Record, ReloadResult, WorkerStatus, Column, Parity), ref_template=REFERENCE
    )
    # Encoded by other rules than they are decoded by: raw JSON inside, and defaults that are left out.
    found["Record"]["properties"]["prediction"] = {"type": "object"}
    found["Record"]["properties"]["row"] = {"type": "object"}
    for schema in found.values():
        if "properties" in schema:
            schema["additionalProperties"] = False
    label = {"type": ["string", "number", "boolean", "null"]}
    number = {"type": "number"}
    model: dict[str, Any] = {
        "name": TEXT,
        "version": WHOLE,
        "digest": TEXT,
        "default": FLAG,
        "task": {"enum": ["binary", "multiclass", "regression"]},
        "classes": {"type": "array", "items": label},
        "positive": label,
        "threshold": {"type": ["number", "null"]},
        "target": TEXT,
        "created": TEXT,
        "metric": TEXT,
        "score": number,
        "holdout": {"type": "object"},
        "parity": _reference("Parity"),
        "columns": {"type": "array", "items": _reference("Column")},
        "schema": {"type": "object"},
    }
    found["Model"] = closed(**model)
    found["DefaultModel"] = closed(
        **model,
        model_name=TEXT,
        model_type={"enum": ["classification", "regression"]},
        input_shape={"type": "array", "items": {"type": ["integer", "null"]}},
        output_classes=WHOLE,
        features={"type": "array", "items": TEXT},
        class_names={"type": "array", "items": TEXT},
    )
    return found


def reply(path: str) -> dict[str, Any]:
    """Content type to schema of a cold route's 200."""
    if path == "/metrics":
        return _content("text/plain", TEXT)
    if path == "/predictions/export":
        return {**_content("application/x-ndjson", TEXT), **_content("text/csv", TEXT)}
    return _content("application/json", _replies().get(path, {"type": "object"}))


def _replies() -> dict[str, Any]:
    model, record, workers = (_reference(name) for name in ("Model", "Record", "WorkerStatus"))
    names = {"type": "array", "items": TEXT}
    return {
        "/models": closed(models={"type": "array", "items": model}),
        "/models/info": _reference("DefaultModel"),
        "/models/{name}": model,
        "/models/reload": _reference("ReloadResult"),
        "/predictions": closed(predictions={"type": "array", "items": record}, next={"type": ["string", "null"]}),
        "/predictions/{prediction_id}": record,
        "/health": closed(
            status={"enum": ["ok", "degraded"]},
            ready=FLAG,
            models=names,
            checks={"type": "object", "additionalProperties": TEXT},
            workers={"type": "array", "items": workers},
        ),
        "/health/live": closed(live={"const": True}),
        "/health/ready": closed(ready=FLAG),
    }


def closed(**properties: Any) -> dict[str, Any]:
    """An object that has exactly these."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _content(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": schema}}


def _reference(name: str) -> dict[str, Any]:
    return {"$ref": REFERENCE.format(name=name)}
