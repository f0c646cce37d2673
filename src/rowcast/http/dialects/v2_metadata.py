"""A model's inputs and outputs in the Open Inference Protocol. This module does not import numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.http.routes import JSON
from rowcast.schema.datatypes import BOOL, BYTES

if TYPE_CHECKING:
    from rowcast.schema.prediction import Decision
    from rowcast.schema.schema import Column
    from rowcast.serving.interface import ModelInterface

OCTETS = b"application/octet-stream"
CONTENT_TYPES = frozenset((JSON, OCTETS, b"application/x-www-form-urlencoded"))
"""The accepted content types. They include the form type because `curl -d` sends this type by default."""
ID = "id"
"""The output that contains the prediction id. The metadata does not list this output, but clients can request it."""
DATATYPES_BY_KIND = {"number": "FP64", "integer": "INT64", "boolean": BOOL, "category": BYTES, "datetime": BYTES}


class OutputSpec(msgspec.Struct, frozen=True):
    """An output in the model's metadata; `width` is the number of values per row."""

    name: str
    datatype: str
    width: int = 1


def inputs(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """Return the inputs in the format of the model's metadata."""
    return [{"name": column.name, "datatype": DATATYPES_BY_KIND[column.kind], "shape": [-1, 1]} for column in columns]


def outputs(model: ModelInterface) -> list[OutputSpec]:
    """Return the model's outputs in order. A classifier without probabilities outputs only labels."""
    decision = model.decision
    if decision.task == "regression":
        return [OutputSpec("prediction", "FP32" if model.is_own_export else "FP64")]
    if not model.has_probabilities:
        return [OutputSpec("prediction", label_datatype(decision))]
    specs = [OutputSpec("prediction", label_datatype(decision)), OutputSpec("probability", "FP32")]
    if decision.task == "binary":
        specs.append(OutputSpec("score", "FP32"))
    return [*specs, OutputSpec("probabilities", "FP32", len(decision.classes))]


def label_datatype(decision: Decision) -> str:
    """Return the datatype of the predicted labels."""
    kinds = {type(label) for label in decision.classes}
    if kinds == {bool}:
        return BOOL
    if kinds == {int}:
        return "INT64" if all(-(1 << 63) <= label < 1 << 63 for label in decision.classes) else BYTES  # type: ignore[operator]
    return "FP64" if kinds <= {int, float} else BYTES
