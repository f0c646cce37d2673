"""Replies of a wire template as JSON Schema, for the API's description."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from rowcast.schema.prediction import Decision
from rowcast.wire.reply import EACH_REQUEST, EACH_ROW, Facts, default_batch_reply, default_reply

SHARE: Final[dict[str, Any]] = {"type": "number", "minimum": 0, "maximum": 1.0000002}
"""A float32 softmax sums to 1 within an ulp."""
SHARES: Final[dict[str, Any]] = {"type": "array", "items": SHARE}


class Words:
    """What each word of a template can be, for one model."""

    def __init__(
        self,
        facts: Facts,
        decision: Decision,
        labels: Mapping[str, Any],
        numbers: Mapping[str, int],
        native: Mapping[str, Any],
        warnings: Mapping[str, Any],
    ) -> None:
        classes = list(decision.classes)
        number = {"type": "number"}
        self._known: dict[str, Any] = {
            "$label": {"enum": _distinct(labels.values())} if classes else number,
            "$class_index": {"enum": _distinct(numbers.values())},
            "$prediction": {"enum": classes} if classes else number,
            "$probability": SHARE,
            "$score": SHARE,
            "$probabilities": SHARES,
            "$probabilities_by_label": {"type": "object", "additionalProperties": SHARE},
            "$id": {"type": "string", "format": "uuid"},
            "$warnings": warnings,
            "$native": native,
            "$latency_seconds": {"type": "number", "minimum": 0},
            "$input_shape": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2},
            "$cached": {"type": "boolean"},
            **{word: {"const": msgspec.json.decode(text)} for word, text in facts.words().items()},
        }

    def replies(self, single: Any, batch: Any, *, matrix: bool) -> tuple[dict[str, Any], dict[str, Any]]:
        """The schemas of both replies."""
        one = self._schema(default_reply(matrix=matrix) if single is msgspec.UNSET else single)
        self._known["$reply"] = one
        return one, self._schema(default_batch_reply() if batch is msgspec.UNSET else batch)

    def _schema(self, tree: Any) -> dict[str, Any]:
        if isinstance(tree, Mapping):
            for loop in (EACH_ROW, EACH_REQUEST):
                if list(tree) == [loop]:
                    return {"type": "array", "items": self._schema(tree[loop])}
            properties = {_unescaped(name): self._schema(below) for name, below in tree.items()}
            return {
                "type": "object",
                "properties": properties,
                "required": list(properties),
                "additionalProperties": False,
            }
        if isinstance(tree, list | tuple):
            shapes = [self._schema(below) for below in tree]
            return {"type": "array", "items": any_of(shapes), "minItems": len(shapes), "maxItems": len(shapes)}
        if isinstance(tree, str) and tree in self._known:
            found: dict[str, Any] = self._known[tree]
            return found
        return {"const": _unescaped(tree)}


def any_of(shapes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One of these shapes. Not `prefixItems`, which tools that read OpenAPI do not know yet."""
    found = _distinct(shapes)
    return found[0] if len(found) == 1 else {"anyOf": found} if found else {}


def _unescaped(text: Any) -> Any:
    return text[1:] if isinstance(text, str) and text.startswith("$$") else text


def _distinct(values: Iterable[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not any(value == other and type(value) is type(other) for other in found):
            found.append(value)
    return found
