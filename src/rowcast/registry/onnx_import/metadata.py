"""`model_metadata.json`: what a graph does not say of itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from rowcast.errors import SettingsError
from rowcast.schema.prediction import Activation

MATRIX_FIELDS = ("input_shape", "class_names")
"""Whoever has one of these is asked by matrices: such files were written for servers that take nothing else."""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of such files, all optional, and ours below them; others are left alone."""

    model_name: str = ""
    model_type: str = ""
    input_shape: list[int | None] | None = None
    output_classes: int | None = None
    features: list[str] | None = None
    class_names: list[str | int] | None = None

    output: str = ""
    """Which output of the graph is read."""
    output_kind: Literal["", "probabilities", "scores", "labels", "values"] = ""
    activation: Activation = "none"
    """What makes probabilities of raw scores."""
    positive: str | int | None = None
    target: str = ""
    missing: bool | list[str] = False
    """Which columns may be missing."""
    fill: float | int | bool | str | dict[str, float | int | bool | str] | None = None
    """What the graph gets for a missing value, of all inputs or by input; else NaN, or an empty text."""

    @property
    def is_matrix(self) -> bool:
        """Whether clients of such a model send matrices."""
        return self.class_names is not None or self.input_shape is not None

    @property
    def task(self) -> Literal["", "classification", "regression"]:
        """What `model_type` says, in any words."""
        said = self.model_type.lower()
        if "regress" in said:
            return "regression"
        return "classification" if "class" in said else ""


def read_metadata(document: Mapping[str, Any]) -> Metadata:
    """The metadata; SettingsError names the field that cannot be."""
    try:
        found = msgspec.convert(document, Metadata)
    except msgspec.ValidationError as error:
        raise SettingsError(f"the model's metadata cannot be used: {error}") from None
    for key, names in (("features", found.features or []), ("class_names", found.class_names or [])):
        texts = [str(name) for name in names]
        repeated = sorted({text for text in texts if texts.count(text) > 1})
        if repeated:
            raise SettingsError(f"the model's metadata: {key} names {', '.join(repeated)} twice")
    if found.activation != "none" and found.output_kind not in ("", "scores"):
        raise SettingsError("the model's metadata: activation is for raw scores; leave out output_kind")
    return found
