"""JSON Schemas of replies: derived from the structs that routes return, or written by hand if no struct exists.

Every object schema is closed, which means that it forbids additional properties.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import msgspec

Json = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
FLAG: Json = {"type": "boolean"}


def derive(types: Sequence[Any]) -> tuple[list[Json], dict[str, Json]]:
    """Return the schema of each type, and the components that the schemas reference."""
    schemas, components = msgspec.json.schema_components(types, ref_template=REFERENCE)
    structs: dict[str, type[msgspec.Struct]] = {}
    for kind in types:
        _collect_structs(kind, structs)
    for name, schema in components.items():
        if "properties" in schema:
            schema["additionalProperties"] = False
            schema["required"] = _required(structs[name])
    return list(schemas), components


def closed(**properties: Any) -> Json:
    """Return the schema of an object that has exactly these properties."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def array(items: Json, **limits: int) -> Json:
    """Return the schema of an array."""
    return {"type": "array", "items": items, **limits}


def reference(name: str) -> Json:
    """Return a reference to a component."""
    return {"$ref": REFERENCE.format(name=name)}


def _required(struct: type[msgspec.Struct]) -> list[str]:
    """Return the names of the fields that a struct's JSON always contains, including fields with a default."""
    omits_defaults = struct.__struct_config__.omit_defaults
    return [
        field.encode_name
        for field in msgspec.structs.fields(struct)
        if field.required or not (omits_defaults or field.default is msgspec.UNSET)
    ]


def _collect_structs(kind: Any, structs: dict[str, type[msgspec.Struct]]) -> None:
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        if kind.__name__ in structs:
            return
        structs[kind.__name__] = kind
        for field in msgspec.structs.fields(kind):
            _collect_structs(field.type, structs)
    for argument in get_args(kind):
        _collect_structs(argument, structs)
