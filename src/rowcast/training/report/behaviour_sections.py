"""The sections on behavior: which columns matter, how predictions depend on them, and where errors are largest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from rowcast.schema.prediction import label_text
from rowcast.schema.schema import Column
from rowcast.templates.numbers import format_number
from rowcast.training.report.charts import UNIT_RANGE, Bar, Chart, Line, bar_chart, line_chart
from rowcast.training.report.evaluation import (
    MAX_DEPENDENCES,
    MIN_SLICE_ROWS,
    EvaluatedModel,
    Importance,
    ImportanceResult,
    PartialDependence,
    Slice,
    SliceErrors,
    format_day,
    partial_dependence,
)
from rowcast.training.report.measured_rows import MeasuredRows
from rowcast.training.report.metric_titles import metric_title

MAX_BARS: Final = 20
MAX_SLICES: Final = 12
MAX_CLASS_LINES: Final = 6


@dataclass(frozen=True)
class ImportanceSection:
    """The importance of the columns. `charts` is empty if the metric cannot be measured."""

    charts: tuple[Chart, ...]
    omitted: int
    """The number of columns omitted from the chart."""


@dataclass(frozen=True)
class DependenceTable:
    """The mean probability of each listed class, for each value of an unordered column."""

    column: str
    classes: tuple[str, ...]
    rows: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class DependenceSection:
    """How predictions depend on the most important columns."""

    charts: tuple[Chart, ...]
    tables: tuple[DependenceTable, ...]


@dataclass(frozen=True)
class SlicesSection:
    """The slices with the largest errors."""

    error_name: str
    overall: float
    min_rows: int
    slice_count: int
    worse_count: int
    """The number of slices whose entire interval lies above the overall error."""
    worst: tuple[Slice, ...]


def importance_section(model: EvaluatedModel, result: ImportanceResult) -> ImportanceSection:
    """Return a bar chart of the most important columns."""
    if not result.columns:
        return ImportanceSection((), 0)
    metric = metric_title(model.metric)
    bars = [Bar(each.encoded.column.name, each.value, each.low, each.high) for each in result.columns[:MAX_BARS]]
    chart = bar_chart(
        "Permutation importance",
        f"How much {metric} worsens when a column is shuffled, measured on {result.rows:,} holdout rows, with 95% "
        "intervals over shuffles and rows. If columns contain the same information, the importance is split among "
        "them.",
        f"worsening of {metric}",
        bars,
    )
    return ImportanceSection((chart,), max(0, len(result.columns) - MAX_BARS) + result.left_out)


def dependence_section(model: EvaluatedModel, importances: Sequence[Importance]) -> DependenceSection | None:
    """Return the partial dependence on the most important columns, or None if no column has any influence."""
    charts, tables = [], []
    for importance in importances[:MAX_DEPENDENCES]:
        is_shown = importance.value > 0 and not importance.encoded.column.sensitive
        dependence = partial_dependence(model, importance.encoded) if is_shown else None
        if dependence is None:
            continue
        if model.decision.task != "multiclass":
            charts.append(_dependence_chart(model, dependence))
        elif dependence.x is not None:
            charts.append(_class_chart(model, dependence))
        else:
            tables.append(_class_table(model, dependence))
    return DependenceSection(tuple(charts), tuple(tables)) if charts or tables else None


def _dependence_chart(model: EvaluatedModel, dependence: PartialDependence) -> Chart:
    column, decision = dependence.column, model.decision
    output = "mean prediction"
    if decision.task == "binary":
        output = f"mean probability of {label_text(decision.classes[decision.positive])}"
    low, high = (format_number(float(value)) for value in (dependence.means.min(), dependence.means.max()))
    description = f"The {output} lies between {low} and {high}."
    if dependence.x is None:
        bars = [Bar(name, mean) for name, mean in zip(dependence.names, dependence.means.tolist(), strict=True)]
        return bar_chart(column.name, description, output, bars)
    line = Line(column.name, dependence.x, dependence.means, dots=True)
    return line_chart(column.name, description, (_axis(column), output), [line])


def _class_chart(model: EvaluatedModel, dependence: PartialDependence) -> Chart:
    names, shown = model.decision.names(), _common_classes(model)
    which = "each class" if len(shown) == len(names) else "the most common classes"
    assert dependence.x is not None
    lines = [Line(names[index], dependence.x, dependence.means[:, index]) for index in shown]
    return line_chart(
        dependence.column.name,
        f"The mean probability of {which}.",
        (_axis(dependence.column), "mean probability"),
        lines,
        y_range=UNIT_RANGE,
    )


def _class_table(model: EvaluatedModel, dependence: PartialDependence) -> DependenceTable:
    names, shown = model.decision.names(), _common_classes(model)
    rows = [
        (name, tuple(float(means[index]) for index in shown))
        for name, means in zip(dependence.names, dependence.means, strict=True)
    ]
    return DependenceTable(dependence.column.name, tuple(names[index] for index in shown), tuple(rows))


def _common_classes(model: EvaluatedModel) -> list[int]:
    counts = np.bincount(model.rows.target, minlength=len(model.decision.classes))
    return sorted(np.argsort(-counts, kind="stable")[:MAX_CLASS_LINES].tolist())


def _axis(column: Column) -> str:
    if column.kind == "datetime":
        return f"{column.name}, days since {format_day(column, 0)}"
    return f"{column.name}, {column.unit}" if column.unit else column.name


def slices_section(model: MeasuredRows, errors: SliceErrors) -> SlicesSection:
    """Return the slices with the largest errors."""
    return SlicesSection(
        error_name="mean absolute error" if model.decision.task == "regression" else "share of wrong labels",
        overall=errors.overall,
        min_rows=MIN_SLICE_ROWS,
        slice_count=len(errors.slices),
        worse_count=sum(each.low > errors.overall for each in errors.slices),
        worst=errors.slices[:MAX_SLICES],
    )
