"""Evaluate a model on its holdout: permutation importance, partial dependence and errors on slices.

All scores come from the served graph, and every sample is seeded. The number of scored rows is limited, so that the
report takes only seconds, even for a large model.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.registry.ports import Graph
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.schema.scores import winning_classes
from rowcast.templates.numbers import abbreviate_number
from rowcast.training import metrics
from rowcast.training.cost import Cost
from rowcast.training.problem import LabelledRows
from rowcast.training.report.charts import truncate
from rowcast.training.report.curves import Values, Z, wilson_interval
from rowcast.training.report.measured_rows import MeasuredRows

MAX_REPEATS: Final = 5
"""The maximum number of times that each column is shuffled."""
RESAMPLES: Final = 40
"""The number of bootstrap resamples used for each shuffle of a column."""
MAX_ROWS: Final = 5000
MIN_ROWS: Final = 100
SCORED_ROWS: Final = 60_000
"""The number of rows to score, in total, to measure the importance of all columns. For slow models, it is lower."""
ROW_COST: Final = 65.0
"""The cost of scoring a row, in microseconds, above which fewer rows are scored. At four times this cost, half as many
rows are scored. At this cost, scoring 60,000 rows takes 4 s. This is enough for 5,000 holdout rows in a table with 12
columns, or for 200 rows in a table with 300 columns.
"""
SCREENING_SHARE, SCREENING_ROWS = 0.25, 2
"""Every column is first shuffled on a few rows, to choose the columns whose importance is measured. This step scores
SCREENING_SHARE times the scoring budget, but at least SCREENING_ROWS rows per column.
"""
MIN_COLUMNS: Final = 4
DEPENDENCE_ROWS, MIN_DEPENDENCE_ROWS = 200, 20
GRID_POINTS: Final = 12
MAX_DEPENDENCES: Final = 4
"""The number of columns whose partial dependence is shown."""
DEPENDENCE_LEVELS: Final = 8
SLICE_LEVELS: Final = 20
MIN_SLICE_ROWS: Final = 30


@dataclass(frozen=True)
class EncodedColumn:
    """A column and its positions in the encoded rows. A datetime occupies several positions."""

    column: Column
    is_text: bool
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Importance:
    """The amount by which shuffling a column worsens the metric, with an interval over shuffles and rows."""

    encoded: EncodedColumn
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ImportanceResult:
    """The importance of the measured columns, largest first."""

    columns: tuple[Importance, ...]
    rows: int
    """The number of holdout rows on which the importance was measured."""
    left_out: int = 0
    """The number of columns that were not measured, because they change the predictions less than the others."""


@dataclass(frozen=True)
class PartialDependence:
    """For each grid value, the mean output if every row has that value in the column.

    `x` is None if the values are unordered.
    """

    column: Column
    names: tuple[str, ...]
    x: Values | None
    means: Values
    """The shape is [grid], or [grid, classes] for more than two classes."""


@dataclass(frozen=True)
class Slice:
    """The error on a subset of the rows: the share of wrong labels or, in regression, the mean absolute error."""

    column: str
    condition: str
    rows: int
    error: float
    low: float
    high: float


@dataclass(frozen=True)
class SliceErrors:
    """All slices, worst first, with the error over all rows."""

    slices: tuple[Slice, ...]
    overall: float


@dataclass(frozen=True)
class EvaluatedModel:
    """A model, its holdout rows and the graph's output for these rows."""

    graph: Graph
    row_microseconds: float
    """The measured time that the graph takes to score a single row."""
    row_cost: float
    """The estimated cost of scoring a row. It does not depend on the machine."""
    decision: Decision
    metric: str
    schema: Schema
    plan: Plan
    rows: LabelledRows
    output: NDArray[np.float32]
    seed: int
    cost: Cost | None
    row_limit: float = math.inf
    """The approximate number of rows that can be scored for the report in the remaining time."""

    @property
    def share(self) -> float:
        """The fraction of the usual number of rows that can be scored in the remaining time."""
        return min(1.0, self.row_limit / scored_rows(len(self.schema.columns), self.row_cost))

    def score(self, numbers: NDArray[Any], texts: NDArray[Any]) -> NDArray[np.float32]:
        """Run the graph on encoded rows."""
        tensors = {NUMBERS: numbers, TEXTS: texts}
        return self.graph.run({name: array for name, array in tensors.items() if array.shape[1]})


def encoded_columns(schema: Schema, plan: Plan) -> tuple[EncodedColumn, ...]:
    """Return the positions of every column in the encoded rows."""
    positions: dict[str, list[int]] = {}
    is_text: dict[str, bool] = {}
    for spec in plan:
        for index, feature in enumerate(spec.columns):
            positions.setdefault(feature.column, []).append(index)
            is_text[feature.column] = spec.name == TEXTS
    return tuple(
        EncodedColumn(column, is_text[column.name], tuple(positions[column.name]))
        for column in schema.columns
        if column.name in positions
    )


def permutation_importance(model: EvaluatedModel) -> ImportanceResult:
    """Measure the importance of the columns. If there are too many, measure only the most influential columns."""
    rng = np.random.default_rng([model.seed, 6])
    every = encoded_columns(model.schema, model.plan)
    columns = _most_influential(model, every, rng)
    rows, output, repeats = _importance_sample(model, len(columns), rng)
    weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES).astype(np.float64)
    weights[0] = 1.0  # the first resample is the original sample, which provides the point estimate
    if rows.weight is not None:
        weights *= rows.weight
    sign = metrics.sign(model.metric)
    baseline = _metric_values(model, output, rows.target, weights)
    importances = []
    for encoded in columns:
        losses = []
        for _ in range(repeats):
            shuffled = _shuffle_cells(rows, encoded, rng)
            losses.append(sign * (baseline - _metric_values(model, model.score(*shuffled), rows.target, weights)))
        samples = np.concatenate(losses)
        samples = samples[np.isfinite(samples)]
        value = float(np.mean([loss[0] for loss in losses]))
        low, high = np.quantile(samples, [0.025, 0.975]).tolist() if len(samples) else (value, value)
        importances.append(Importance(encoded, value, min(low, value), max(high, value)))
    finite = [importance for importance in importances if np.isfinite(importance.value)]
    finite.sort(key=lambda importance: -importance.value)
    return ImportanceResult(tuple(finite), len(rows), len(every) - len(columns))


def _most_influential(
    model: EvaluatedModel, columns: Sequence[EncodedColumn], rng: np.random.Generator
) -> Sequence[EncodedColumn]:
    """Return the most influential columns, as many as the scoring budget allows. Shuffling a column on a few rows shows
    how much it influences the predictions.
    """
    budget = _scoring_budget(model.row_cost) * model.share
    most = max(MIN_COLUMNS, int(budget // MIN_ROWS))
    if len(columns) <= most:
        return columns
    count = min(len(model.rows), max(SCREENING_ROWS, int(SCREENING_SHARE * budget / len(columns))))
    sample = np.sort(rng.choice(len(model.rows), count, replace=False))
    rows, output = model.rows.take(sample), model.output[sample]
    changes = [float(np.abs(model.score(*_shuffle_cells(rows, each, rng)) - output).mean()) for each in columns]
    return [columns[index] for index in np.sort(np.argsort(changes, kind="stable")[::-1][:most])]


def _scoring_budget(row_cost: float) -> float:
    """Return the number of rows that are scored to measure importance."""
    return SCORED_ROWS * min(1.0, math.sqrt(ROW_COST / max(row_cost, 1.0)))


def scored_rows(columns: int, row_cost: float) -> float:
    """Return the approximate number of rows that are scored for a report."""
    budget = _scoring_budget(row_cost)
    screening = max(SCREENING_SHARE * budget, SCREENING_ROWS * columns) if columns * MIN_ROWS > budget else 0.0
    return budget + screening + MAX_DEPENDENCES * DEPENDENCE_ROWS * GRID_POINTS


def _importance_sample(
    model: EvaluatedModel, columns: int, rng: np.random.Generator
) -> tuple[LabelledRows, NDArray[np.float32], int]:
    """Return the holdout or a sample of it, its output and the number of shuffles, within the scoring budget.

    More rows take precedence over more shuffles, because every row adds information.
    """
    budget = _scoring_budget(model.row_cost) * model.share
    most = int(np.clip(budget // columns, MIN_ROWS, MAX_ROWS))
    repeats = int(np.clip(budget // (columns * min(most, len(model.rows))), 1, MAX_REPEATS))
    if len(model.rows) <= most:
        return model.rows, model.output, repeats
    sample = np.sort(rng.choice(len(model.rows), most, replace=False))
    return model.rows.take(sample), model.output[sample], repeats


def _metric_values(model: EvaluatedModel, output: NDArray[np.float32], target: NDArray[Any], weights: Values) -> Values:
    return metrics.score_resamples(model.metric, model.decision, output, target, weights)


def _cells(rows: LabelledRows, encoded: EncodedColumn) -> NDArray[Any]:
    return (rows.texts if encoded.is_text else rows.numbers)[:, list(encoded.positions)]


def _shuffle_cells(
    rows: LabelledRows, encoded: EncodedColumn, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Shuffle the cells of one column; return the rows' numbers and strings."""
    return _replace_cells(rows, encoded, _cells(rows, encoded)[rng.permutation(len(rows))])


def _replace_cells(
    rows: LabelledRows, encoded: EncodedColumn, cells: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Replace the cells of one column; return the rows' numbers and strings."""
    numbers, texts = rows.numbers.copy(), rows.texts.copy()
    (texts if encoded.is_text else numbers)[:, list(encoded.positions)] = cells
    return numbers, texts


def partial_dependence(model: EvaluatedModel, encoded: EncodedColumn) -> PartialDependence | None:
    """Return the partial dependence on a column, or None if the column has fewer than two distinct values."""
    rng = np.random.default_rng([model.seed, 7])
    rows = model.rows
    most = max(MIN_DEPENDENCE_ROWS, int(DEPENDENCE_ROWS * model.share))
    if len(rows) > most:
        rows = rows.take(np.sort(rng.choice(len(rows), most, replace=False)))
    grid, names, x = _grid(model.rows, encoded)
    if len(grid) < 2:
        return None
    outputs = []
    for cells in grid:
        output = model.score(*_replace_cells(rows, encoded, cells)).astype(np.float64)
        outputs.append(output[:, model.decision.positive] if model.decision.task == "binary" else output)
    return PartialDependence(encoded.column, names, x, np.stack([output.mean(axis=0) for output in outputs]))


def _grid(
    rows: LabelledRows, encoded: EncodedColumn
) -> tuple[Sequence[Any] | NDArray[Any], tuple[str, ...], Values | None]:
    """Return the grid of values to substitute for a column, their labels, and their positions on the x-axis."""
    cells = _cells(rows, encoded)
    if encoded.is_text:
        levels = _commonest_levels(cells[:, 0], DEPENDENCE_LEVELS)
        return levels, tuple(level or "missing" for level in levels), None
    present = cells[np.isfinite(cells[:, 0])]
    if not len(present):
        return [], (), None
    present = present[np.argsort(present[:, 0], kind="stable")]
    picks = np.linspace(0, len(present) - 1, GRID_POINTS).round().astype(np.intp)
    _, first = np.unique(present[picks, 0], return_index=True)
    grid = present[picks][first]
    if encoded.column.kind == "boolean":
        grid = np.unique(present, axis=0)
        return grid, tuple("true" if value else "false" for value in grid[:, 0]), None
    names = tuple(abbreviate_number(value) for value in grid[:, 0].tolist())
    return grid, names, grid[:, 0].astype(np.float64)


def _commonest_levels(texts: NDArray[Any], most: int) -> list[str]:
    """Return the most common strings; equally common strings are in alphabetical order."""
    counts = Counter(texts.tolist())
    return sorted(counts, key=lambda text: (-counts[text], text))[:most]


def error_by_slice(model: MeasuredRows) -> SliceErrors:
    """Return the error on every slice, sorted by the lower bound of its interval, highest first."""
    is_regression = model.decision.task == "regression"
    if is_regression:
        errors = np.abs(model.output.astype(np.float64).reshape(-1) - model.rows.target)
    else:
        predicted = winning_classes(model.decision, model.output)
        if model.decision.task == "binary":
            predicted = (predicted == model.decision.positive).astype(np.intp)
        errors = (predicted != model.rows.target).astype(np.float64)
    slices = []
    for encoded in encoded_columns(model.schema, model.plan):
        if encoded.column.sensitive:
            continue  # a condition contains values
        for condition, inside in _conditions(model.rows, encoded):
            if MIN_SLICE_ROWS <= int(inside.sum()) < len(errors):
                measure = _mean_error if is_regression else _error_rate
                slices.append(measure(encoded.column.name, condition, errors[inside]))
    ranked = sorted(slices, key=lambda each: (-each.low, each.column, each.condition))
    return SliceErrors(tuple(ranked), float(errors.mean()))


def _mean_error(column: str, condition: str, errors: Values) -> Slice:
    mean, count = float(errors.mean()), len(errors)
    half = Z * float(errors.std(ddof=1)) / float(np.sqrt(count))
    return Slice(column, condition, count, mean, max(0.0, mean - half), mean + half)


def _error_rate(column: str, condition: str, errors: Values) -> Slice:
    count = len(errors)
    return Slice(column, condition, count, float(errors.mean()), *wilson_interval(float(errors.sum()), count))


def _conditions(rows: LabelledRows, encoded: EncodedColumn) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the slices of one column: one slice per level, value or quartile, and one slice for missing values."""
    cells = _cells(rows, encoded)[:, 0]
    if encoded.is_text:
        for level in _commonest_levels(cells, SLICE_LEVELS):
            yield (f"= {truncate(level, 60)}" if level else "is missing"), cells == level
        return
    column = encoded.column
    missing = ~np.isfinite(cells)
    yield "is missing", missing
    distinct = np.unique(cells[~missing])
    if column.kind == "boolean" or 1 < len(distinct) <= 6:
        for value in distinct.tolist():
            yield f"= {_format_value(column, value)}", cells == value
    elif len(distinct) > 6:
        edges = np.unique(np.quantile(cells[~missing], [0, 0.25, 0.5, 0.75, 1]))
        for left, right in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
            is_last = right == edges[-1]
            inside = (cells >= left) & ((cells <= right) if is_last else (cells < right))
            to = "to" if is_last else "to below"
            yield f"{_format_value(column, left)} {to} {_format_value(column, right)}", inside


def _format_value(column: Column, value: float) -> str:
    if column.kind == "boolean":
        return "true" if value else "false"
    return format_day(column, value) if column.kind == "datetime" else abbreviate_number(value)


def format_day(column: Column, days: float) -> str:
    """Convert a number of days since the column's origin into a date."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=column.origin) + timedelta(days=days)
    return moment.date().isoformat()
