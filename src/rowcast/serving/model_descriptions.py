"""Descriptions of models, as returned by `/models`: structs that the server fills and the client decodes.

This module imports neither numpy nor the request path, so that importing the client is cheap. Fields that an older
server may lack have defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from rowcast.schema.prediction import Label

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface

Json = dict[str, Any]
TaskName = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["binary", "multiclass", "regression"]})]
ModelType = Annotated[str, msgspec.Meta(extra_json_schema={"enum": ["classification", "regression"]})]
ColumnObject = Annotated[Json, msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Column"})]
ParityObject = Annotated[Json, msgspec.Meta(extra_json_schema={"$ref": "#/components/schemas/Parity"})]
"""A plain JSON object, so that a client accepts columns and certificates with unknown fields."""


class DerivedDescription(msgspec.Struct, frozen=True):
    """A column that the model computes from the columns of a row; clients cannot send it."""

    name: str
    expression: str


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One served model."""

    name: str
    version: int
    digest: str
    default: bool
    task: TaskName
    classes: tuple[Label, ...] = ()
    positive: Label | None = None
    """The positive class; binary models only."""
    threshold: float | None = None
    """The lowest score for which the positive class is predicted; binary models only."""
    target: str
    created: str = ""
    metric: str
    score: float
    """The value of the metric on the holdout."""
    holdout: Json = {}
    parity: ParityObject = {}
    columns: list[ColumnObject] = []
    derived: list[DerivedDescription] = []
    schema: Json = {}
    """The JSON Schema of one row."""


class DefaultModel(ServedModel, frozen=True, kw_only=True):
    """The default model, with additional fields for clients that expect the names used in `model_metadata.json`."""

    model_name: str
    model_type: ModelType
    input_shape: tuple[int | None, ...]
    output_classes: int
    features: tuple[str, ...]
    class_names: tuple[str, ...]


class ModelList(msgspec.Struct, frozen=True):
    """Every model that the caller may use."""

    models: list[ServedModel]


def describe(model: ModelInterface, *, is_default: bool) -> ServedModel:
    """Return the description of a model."""
    return ServedModel(**_fields(model, is_default=is_default))


def describe_default(model: ModelInterface, *, is_default: bool) -> DefaultModel:
    """Return the description of a model for `/models/info`."""
    decision = model.decision
    names = tuple(model.schema.names())
    return DefaultModel(
        **_fields(model, is_default=is_default),
        model_name=model.name,
        model_type="classification" if model.is_classifier else "regression",
        input_shape=(None, len(names)),
        output_classes=len(decision.classes),
        features=names,
        class_names=tuple(decision.names()),
    )


def _fields(model: ModelInterface, *, is_default: bool) -> Json:
    manifest, decision = model.manifest, model.decision
    is_binary = decision.task == "binary"
    return {
        "name": model.name,
        "version": model.version,
        "digest": model.digest,
        "default": is_default,
        "task": decision.task,
        "classes": decision.classes,
        "positive": decision.classes[decision.positive] if is_binary else None,
        "threshold": decision.threshold if is_binary else None,
        "target": manifest.training.target,
        "created": manifest.created,
        "metric": manifest.metric,
        "score": manifest.score,
        "holdout": msgspec.to_builtins(manifest.holdout),
        "parity": msgspec.to_builtins(manifest.parity),
        "columns": [msgspec.to_builtins(column.shown()) for column in manifest.schema.columns],
        "derived": [DerivedDescription(column.name, column.text) for column in manifest.schema.derived],
        "schema": manifest.schema.json_schema(),
    }
