"""The section on quality: the metrics, the curves, the confusion matrix and the residuals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rowcast.registry.bundle import Measure
from rowcast.schema.prediction import label_text
from rowcast.schema.scores import winning_classes
from rowcast.templates.numbers import format_number
from rowcast.training.report import curves
from rowcast.training.report.charts import UNIT_RANGE, Chart, Line, histogram, line_chart, scatter_chart, truncate
from rowcast.training.report.curves import CalibrationBin, ClassQuality
from rowcast.training.report.measured_rows import MeasuredRows
from rowcast.training.report.metric_titles import metric_title

MAX_DOTS: Final = 800
MAX_MATRIX_CLASSES: Final = 40
WIDE_MATRIX_CLASSES: Final = 8
"""The maximum number of classes for the normal font size; a larger matrix is printed in a smaller font."""


@dataclass(frozen=True)
class NamedMeasure:
    """A metric with its title."""

    title: str
    measure: Measure


@dataclass(frozen=True)
class MatrixCell:
    """The number of rows in a matrix cell, and their share of all rows that have the same true class."""

    count: int
    share: float


@dataclass(frozen=True)
class MatrixRow:
    """A true class and, for each predicted class, the number of rows."""

    name: str
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True)
class ConfusionMatrix:
    """The number of rows for each combination of true class and predicted class."""

    names: tuple[str, ...]
    rows: tuple[MatrixRow, ...]
    threshold: float | None
    """The model's threshold; None if there are more than two classes."""
    is_wide: bool


@dataclass(frozen=True)
class NamedClass:
    """A class with its quality measures."""

    name: str
    quality: ClassQuality


@dataclass(frozen=True)
class QualitySection:
    """The quality of the model. The matrix is omitted if there are too many classes."""

    measures: tuple[NamedMeasure, ...]
    weight: str
    """The weight column; empty if all rows have equal weight."""
    charts: tuple[Chart, ...] = ()
    class_count: int = 0
    matrix: ConfusionMatrix | None = None
    positive: str = ""
    bins: tuple[CalibrationBin, ...] = ()
    classes: tuple[NamedClass, ...] = ()


def quality_section(measured: Mapping[str, Measure], model: MeasuredRows, weight: str) -> QualitySection:
    """Return the metrics with the charts and tables for the task."""
    measures = tuple(NamedMeasure(metric_title(name), measure) for name, measure in measured.items())
    decision = model.decision
    if decision.task == "regression":
        return QualitySection(measures, weight, _residual_charts(model))
    matrix, class_count = _matrix(model), len(decision.classes)
    if decision.task == "binary":
        score = model.output[:, decision.positive].astype(np.float64)
        bins = curves.calibration_bins(score, model.rows.target == 1)
        charts, positive = _binary_charts(model, bins), label_text(decision.classes[decision.positive])
        return QualitySection(measures, weight, charts, class_count, matrix, positive=positive, bins=bins)
    return class_table(measured, model, weight)


def class_table(measured: Mapping[str, Measure], model: MeasuredRows, weight: str) -> QualitySection:
    """Return a classifier's metrics, and the tables that do not need probabilities."""
    measures = tuple(NamedMeasure(metric_title(name), measure) for name, measure in measured.items())
    names, counts = model.decision.names(), class_counts(model)
    qualities = zip(names, curves.class_quality(counts), strict=True)
    classes = tuple(NamedClass(name, quality) for name, quality in qualities)
    return QualitySection(measures, weight, (), len(names), _matrix(model), classes=classes)


def _binary_charts(model: MeasuredRows, bins: Sequence[CalibrationBin]) -> tuple[Chart, ...]:
    decision = model.decision
    positive = model.rows.target == 1
    score = model.output[:, decision.positive].astype(np.float64)
    label, base_rate = label_text(decision.classes[decision.positive]), float(positive.mean())
    grid, lines = curves.threshold_curves(score, positive)
    return (
        line_chart(
            "ROC curve",
            "True positive rate against false positive rate at every threshold. The dashed line shows a random model.",
            ("false positive rate", "true positive rate"),
            [Line("model", *curves.roc(score, positive))],
            x_range=UNIT_RANGE,
            y_range=UNIT_RANGE,
            diagonal=True,
        ),
        line_chart(
            "Precision and recall",
            f"Precision against recall at every threshold. The class {label} contains {base_rate:.1%} of "
            f"the {len(positive):,} rows.",
            ("recall", "precision"),
            [
                Line("model", *curves.precision_recall(score, positive)),
                Line("chance", np.array([0.0, 1.0]), np.array([base_rate, base_rate])),
            ],
            x_range=UNIT_RANGE,
            y_range=UNIT_RANGE,
        ),
        _calibration_chart(bins),
        line_chart(
            "Metrics by threshold",
            f"The model's threshold {format_number(decision.threshold)} is marked. It does not depend on these rows.",
            ("threshold", "share"),
            [Line(name, grid, values) for name, values in lines.items()],
            x_range=UNIT_RANGE,
            y_range=UNIT_RANGE,
            mark=(decision.threshold, "chosen"),
        ),
    )


def _calibration_chart(bins: Sequence[CalibrationBin]) -> Chart:
    score, share = np.array([each.score for each in bins]), np.array([each.share for each in bins])
    low, high = np.array([each.share_low for each in bins]), np.array([each.share_high for each in bins])
    return line_chart(
        "Calibration",
        "Predicted probability against observed share, with 95% intervals. A perfectly calibrated model follows "
        "the dashed line.",
        ("mean predicted probability", "observed share"),
        [Line("model", score, share, low, high, dots=True)],
        x_range=UNIT_RANGE,
        y_range=UNIT_RANGE,
        diagonal=True,
    )


def class_counts(model: MeasuredRows) -> NDArray[np.int64]:
    """Return a matrix of row counts with true classes as rows and predicted classes as columns."""
    decision, true = model.decision, model.rows.target
    if decision.task == "binary":  # the target is 1 for the positive class, but the index of that class may be 0
        true = np.where(true == 1, decision.positive, 1 - decision.positive)
    return curves.confusion_matrix(true, winning_classes(decision, model.output), len(decision.classes))


def _matrix(model: MeasuredRows) -> ConfusionMatrix | None:
    decision = model.decision
    if len(decision.classes) > MAX_MATRIX_CLASSES:
        return None
    names = tuple(truncate(name, 40) for name in decision.names())
    rows = []
    for name, counts in zip(names, class_counts(model).tolist(), strict=True):
        total = max(sum(counts), 1)
        rows.append(MatrixRow(name, tuple(MatrixCell(count, count / total) for count in counts)))
    threshold = decision.threshold if decision.task == "binary" else None
    return ConfusionMatrix(names, tuple(rows), threshold, is_wide=len(names) > WIDE_MATRIX_CLASSES)


def _residual_charts(model: MeasuredRows) -> tuple[Chart, ...]:
    predicted, actual = model.output.astype(np.float64).reshape(-1), model.rows.target.astype(np.float64)
    residuals = actual - predicted
    total = len(actual)
    sample = np.arange(total)
    if total > MAX_DOTS:
        sample = np.sort(np.random.default_rng([model.seed, 8]).choice(total, MAX_DOTS, replace=False))
    rows = f"{len(sample):,} of {total:,} rows" if len(sample) < total else f"{total:,} rows"
    low, high = (format_number(float(np.quantile(residuals, share))) for share in (0.25, 0.75))
    return (
        scatter_chart(
            "Predicted against actual",
            f"{rows}. A perfect prediction lies on the dashed line.",
            ("actual", "predicted"),
            actual[sample],
            predicted[sample],
            diagonal=True,
        ),
        scatter_chart(
            "Residuals",
            f"The actual value minus the predicted value for {rows}. A visible pattern suggests that the model can be "
            "improved.",
            ("predicted", "residual"),
            predicted[sample],
            residuals[sample],
            zero_line=True,
        ),
        histogram(
            "Distribution of residuals",
            f"Half of the residuals lie between {low} and {high}.",
            ("residual", "rows"),
            residuals,
        ),
    )
