"""The metadata of an imported model, `model_metadata.json`: facts that an ONNX graph does not contain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from rowcast.errors import DocumentError
from rowcast.schema.prediction import Activation


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata of an imported model.

    All fields are optional; unknown fields are ignored. The fields after `class_names` are specific to Rowcast.
    """

    model_name: str = ""
    model_type: str = ""
    input_shape: list[int | None] | None = None
    output_classes: int | None = None
    features: list[str] | None = None
    class_names: list[str | int] | None = None

    output: str = ""
    """The name of the graph output to use."""
    output_kind: Literal["", "probabilities", "scores", "labels", "values"] = ""
    activation: Activation = "none"
    """The function that converts raw scores into probabilities."""
    positive: str | int | None = None
    target: str = ""
    missing: bool | list[str] = False
    """The columns whose values may be missing; `true` means all columns."""
    fill: float | int | bool | str | dict[str, float | int | bool | str] | None = None
    """The value that replaces missing values: one value for all inputs, or a value for each input.

    The default is NaN for float inputs and an empty string for string inputs.
    """

    @property
    def is_matrix(self) -> bool:
        """Whether the model's clients send matrices: true if `class_names` or `input_shape` is set."""
        return self.class_names is not None or self.input_shape is not None

    @property
    def task(self) -> Literal["", "classification", "regression"]:
        """The task that the free text in `model_type` mentions, or an empty string."""
        text = self.model_type.lower()
        if "regress" in text:
            return "regression"
        return "classification" if "class" in text else ""


def read_metadata(document: Mapping[str, Any]) -> Metadata:
    """Parse the metadata; raise DocumentError if a field is invalid."""
    try:
        metadata = msgspec.convert(document, Metadata)
    except msgspec.ValidationError as error:
        raise metadata_error("", str(error)) from None
    for key, names in (("features", metadata.features or []), ("class_names", metadata.class_names or [])):
        texts = [str(name) for name in names]
        repeated = sorted({text for text in texts if texts.count(text) > 1})
        if repeated:
            raise metadata_error(key, f"duplicate names: {', '.join(repeated)}")
    if metadata.activation != "none" and metadata.output_kind not in ("", "scores"):
        raise metadata_error("activation", f"applies only to raw scores, but output_kind is {metadata.output_kind!r}")
    return metadata


def metadata_error(field: str, message: str) -> DocumentError:
    """Return the error for a problem with this field."""
    return DocumentError("model metadata", field, message)
