"""JSON Schemas derived from structs."""

from __future__ import annotations

import msgspec

from rowcast.http.json_schemas import derive


class Part(msgspec.Struct):
    name: str
    size: int = 0
    note: str | msgspec.UnsetType = msgspec.UNSET


class Sparse(msgspec.Struct, omit_defaults=True):
    id: str
    tags: tuple[str, ...] = ()


class Whole(msgspec.Struct):
    parts: list[Part]
    sparse: Sparse | None = None


def test_object_schemas_reject_unknown_fields_and_require_fields_that_are_always_sent() -> None:
    (schema,), components = derive([Whole])

    assert schema == {"$ref": "#/components/schemas/Whole"}
    assert all(component["additionalProperties"] is False for component in components.values())
    assert {name: component["required"] for name, component in components.items()} == {
        "Whole": ["parts", "sparse"],
        "Part": ["name", "size"],
        "Sparse": ["id"],
    }
