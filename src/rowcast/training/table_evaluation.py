"""Measure a model on a table: metrics with intervals, the confusion matrix, calibration and the holdout comparison."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.registry import bundle
from rowcast.registry.bundle import Manifest, Measure
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan, own_plan
from rowcast.schema.prediction import Decision, has_probabilities
from rowcast.schema.schema import Schema
from rowcast.schema.scores import winning_classes
from rowcast.tables.encode import encode_all
from rowcast.training import metrics, row_hashes
from rowcast.training.cost import Cost
from rowcast.training.evaluation_result import ConfusionCounts, HoldoutComparison, KnownRows, ScoreBin, Verdict
from rowcast.training.problem import LabelledRows
from rowcast.training.report import curves
from rowcast.training.report.quality_section import class_counts
from rowcast.training.split import SplitColumn

SAMPLE_ROWS: Final = 20_000
"""The maximum number of rows that are examined for weak slices and compared with the training rows."""
LABEL_METRICS: Final = frozenset({"accuracy", "balanced_accuracy", "f1"})
"""The metrics that do not need probabilities."""


@dataclass(frozen=True)
class TableRoles:
    """The target of the measured rows, with their weights and groups."""

    target: NDArray[Any]
    """The target, in the form of `LabelledRows.target`."""
    weight: NDArray[np.float64] | None = None
    group: NDArray[np.intp] | None = None
    group_name: str = ""


@dataclass(frozen=True)
class EvaluatedRows:
    """The rows of a table with the output of a model. Satisfies the protocol `MeasuredRows`."""

    decision: Decision
    metric: str
    schema: Schema
    plan: Plan
    rows: LabelledRows
    output: NDArray[Any]
    seed: int
    cost: Cost | None
    has_probabilities: bool


@dataclass(frozen=True)
class Measurements:
    """The results of measuring a model on a table."""

    metrics: dict[str, Measure]
    holdout: dict[str, HoldoutComparison]
    confusion: ConfusionCounts | None
    calibration: tuple[ScoreBin, ...]


def evaluated_rows(manifest: Manifest, output: NDArray[Any], roles: TableRoles) -> EvaluatedRows:
    """Return the targets and the model's output for all rows; the cell values are left out."""
    count = len(roles.target)
    split_column = None if roles.group is None else SplitColumn("group", roles.group_name, roles.group)
    rows = LabelledRows(
        np.empty((count, 0), np.float32),
        np.empty((count, 0), object),
        roles.target,
        np.arange(count),
        roles.weight,
        split_column=split_column,
    )
    cost = manifest.training.options.get("cost")
    return EvaluatedRows(
        decision=manifest.decision,
        metric=manifest.metric,
        schema=manifest.schema,
        plan=own_plan(manifest.schema),
        rows=rows,
        output=_class_output(manifest.decision, output),
        seed=manifest.training.seed,
        cost=None if cost is None else msgspec.convert(cost, Cost),
        has_probabilities=has_probabilities(manifest.output.kind, manifest.output.activation),
    )


def _class_output(decision: Decision, output: NDArray[Any]) -> NDArray[Any]:
    """Return the output; class indices become one column per class, with 1 for the predicted class."""
    if decision.task == "regression" or output.ndim > 1:
        return output
    return np.eye(len(decision.classes), dtype=np.float32)[output.astype(np.intp)]


def with_cells(model: EvaluatedRows, frame: pl.DataFrame, places: NDArray[np.intp]) -> EvaluatedRows:
    """Return the rows at these positions, and add their cell values from `frame`."""
    tensors = encode_all(frame, model.schema, model.plan).tensors
    rows = model.rows.take(places)
    rows = LabelledRows(
        tensors.get(NUMBERS, rows.numbers), tensors.get(TEXTS, rows.texts), rows.target, rows.places, rows.weight
    )
    return replace(model, rows=rows, output=model.output[places])


def measure(model: EvaluatedRows, holdout: Mapping[str, Measure]) -> Measurements:
    """Measure the model on all rows and compare the metrics with those on the holdout."""
    rows, decision = model.rows, model.decision
    measured = metrics.measure_holdout(
        decision, model.output, rows.target, seed=model.seed, weight=rows.weight, group=rows.group
    )
    if decision.task != "regression" and not model.has_probabilities:
        measured = {name: value for name, value in measured.items() if name in LABEL_METRICS}
    compared = {name: _compare(name, measured[name], holdout[name]) for name in measured if name in holdout}
    return Measurements(measured, compared, _confusion(model), _calibration(model))


def _compare(metric: str, table: Measure, holdout: Measure) -> HoldoutComparison:
    """Compare two independent measurements. The interval of the difference combines both intervals, because the
    variances of independent measurements add up.
    """
    value = table.value - holdout.value
    low = value - float(np.hypot(table.value - table.low, holdout.high - holdout.value))
    high = value + float(np.hypot(table.high - table.value, holdout.value - holdout.low))
    verdict: Verdict = "within the interval"
    if not low <= 0 <= high:
        verdict = "better" if value * metrics.sign(metric) > 0 else "worse"
    return HoldoutComparison(holdout.value, Measure(value, low, high), verdict)


def _confusion(model: EvaluatedRows) -> ConfusionCounts | None:
    if model.decision.task == "regression":
        return None
    return ConfusionCounts(model.decision.classes, class_counts(model).tolist())


def _calibration(model: EvaluatedRows) -> tuple[ScoreBin, ...]:
    decision, target = model.decision, model.rows.target
    if decision.task == "regression" or not model.has_probabilities:
        return ()
    if decision.task == "binary":
        score, event = model.output[:, decision.positive], target == 1
    else:
        winners = winning_classes(decision, model.output)
        score, event = np.take_along_axis(model.output, winners[:, None], axis=1)[:, 0], winners == target
    return tuple(
        ScoreBin(each.low, each.high, each.count, each.score, each.share, each.share_low, each.share_high)
        for each in curves.calibration_bins(score.astype(np.float64), event)
    )


def count_known_rows(folder: Path, manifest: Manifest, sample: EvaluatedRows) -> KnownRows | None:
    """Return how many rows of the sample the model was trained on, or None if the bundle has no hashes of its
    training rows.
    """
    if bundle.TRAINING_ROWS not in manifest.files:
        return None
    salt, known = row_hashes.decode(bundle.read_file(folder, bundle.TRAINING_ROWS, manifest))
    labels = row_hashes.label_bytes(sample.decision, sample.rows.target)
    tensors = {NUMBERS: sample.rows.numbers, TEXTS: sample.rows.texts}
    hashes = row_hashes.hash_rows(tensors, labels, sample.schema, sample.plan, salt)
    return KnownRows(len(hashes), int(np.isin(hashes, known).sum()))
