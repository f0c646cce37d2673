"""Describe the replies of a wire template as JSON Schema, for the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from rowcast.wire.reply import EACH_REQUEST, EACH_ROW, ModelFacts, default_batch_reply, default_reply

PROBABILITY: Final[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": 1.0000002}
"""The schema of a probability. The maximum exceeds 1 because float32 rounding can push a probability above 1."""
PROBABILITIES: Final[dict[str, Any]] = {"type": "array", "items": PROBABILITY}


class ReplySchemas:
    """Builds the JSON Schemas of one model's replies from the schemas of a native reply and its warnings."""

    def __init__(self, facts: ModelFacts, native: Mapping[str, Any], warnings: Mapping[str, Any]) -> None:
        classes = list(facts.decision.classes)
        number = {"type": "number"}
        self._placeholders: dict[str, Any] = {
            "$label": {"enum": _distinct(facts.labels.values())} if classes else number,
            "$class_index": {"enum": _distinct(facts.class_numbers.values())},
            "$prediction": {"enum": classes} if classes else number,
            "$probability": PROBABILITY,
            "$score": PROBABILITY,
            "$probabilities": PROBABILITIES,
            "$probabilities_by_label": {"type": "object", "additionalProperties": PROBABILITY},
            "$id": {"type": "string", "format": "uuid"},
            "$warnings": warnings,
            "$native": native,
            "$latency_seconds": {"type": "number", "minimum": 0},
            "$input_shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "$cached": {"type": "boolean"},
            **{name: {"const": msgspec.json.decode(text)} for name, text in facts.constants().items()},
        }

    def build(self, reply: Any, batch_reply: Any, *, matrix: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the schema of the reply to a request, and the schema of the reply to a batch."""
        single = self._schema(default_reply(matrix=matrix) if reply is msgspec.UNSET else reply)
        self._placeholders["$reply"] = single
        return single, self._schema(default_batch_reply() if batch_reply is msgspec.UNSET else batch_reply)

    def _schema(self, tree: Any) -> dict[str, Any]:
        if isinstance(tree, Mapping):
            for loop in (EACH_ROW, EACH_REQUEST):
                if list(tree) == [loop]:
                    return {"type": "array", "items": self._schema(tree[loop])}
            properties = {_unescape(name): self._schema(below) for name, below in tree.items()}
            return {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        if isinstance(tree, list | tuple):
            items = [self._schema(below) for below in tree]
            return {"type": "array", "items": any_of(items), "minItems": len(items), "maxItems": len(items)}
        if isinstance(tree, str) and tree in self._placeholders:
            schema: dict[str, Any] = self._placeholders[tree]
            return schema
        return {"const": _unescape(tree)}


def any_of(schemas: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a schema for array items that match any of `schemas`; OpenAPI tools do not support `prefixItems`."""
    distinct = _distinct(schemas)
    return distinct[0] if len(distinct) == 1 else {"anyOf": distinct} if distinct else {}


def _unescape(text: Any) -> Any:
    return text[1:] if isinstance(text, str) and text.startswith("$$") else text


def _distinct(values: Iterable[Any]) -> list[Any]:
    """Return the distinct values in their original order. `True` and `1` are distinct."""
    distinct: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in distinct):
            distinct.append(value)
    return distinct
