"""Check a table for problems that involve the target: leaks, row order, conflicting rows and rare classes.

The check never drops a column, because high predictive power does not prove a leak. A finding names the option, if any,
that overrides its action.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.schema.encoding import Plan
from rowcast.schema.prediction import Label, Task
from rowcast.schema.schema import Column, Schema
from rowcast.tables.table import Finding, Override
from rowcast.training.data_check import column_pairs
from rowcast.training.data_check.column_pairs import LEAK_ACTION, Power

SAMPLE_ROWS: Final = 20_000
MIN_ROWS: Final = 50
"""The minimum number of rows for column checks. In a smaller table, a column may predict the target by chance."""
BINS: Final = 100
LEAK: Final = {"binary": 0.98, "multiclass": 0.99, "regression": 0.93}
"""The ROC AUC (averaged over the classes) or R² at which a single column is reported as a leak."""
DOMINANT: Final = 0.78
MAX_LEVELS: Final = 64
MAX_CERTAIN_CLASSES: Final = 4
"""The maximum number of classes for `certain-value` findings. With more classes, a value often occurs in only one class
by chance alone.
"""
BLOCKS: Final = 20
DRIFT: Final = 0.01
"""Rows are reported as ordered if row position explains at least this share of the target's variance.

By chance, row position explains a share of about BLOCKS / rows.
"""
SORTED: Final = 0.9
SORTED_STEPS: Final = 0.98
COUNTING_STEPS: Final = 0.98
RARE_CLASS_ROWS: Final = 20
ORDER_CODES: Final = ("target-ordered", "ordered-rows")
SEVERITY: Final = (
    *("leak", "joint-leak", "later-fact", "certain-value", "dominant"),
    *("target-ordered", "ordered-rows", "repeated-id", "conflicting-rows", "duplicate-rows", "similar-labels"),
    *("mixed-percents", "numeric-classes", "numeric-target", "imbalanced-classes", "merged-labels"),
    *(
        "missing-target",
        "single-row-class",
        "rare-class",
        "unique-numbers",
        "weight-like",
        "row-order",
        "sentinel",
        "far-value",
        "derived-missing",
        "derived-constant",
    ),
)
"""Finding codes, most severe first. The most severe problems can make the metrics misleading."""
_names_payment = re.compile(r"(?i)(^|[ _.\-])(paid|repaid|recovered|recoveries|collected)([ _.\-]|$)").search
_names_ending = re.compile(
    r"(?i)((fully |partly )?(re)?paid( off| in full)?|(charged|written)[ -]?off|refunded|foreclosed|defaulted|churned)"
).fullmatch


@dataclass(frozen=True)
class CheckInput:
    """The encoded columns and the target. A datetime is encoded as the number of days since its column's origin."""

    columns: Mapping[str, NDArray[Any]]
    schema: Schema
    target: NDArray[Any]
    indicators: NDArray[np.float64]
    """The target as one column, or as one 0/1 column per class if there are more than two classes."""
    task: Task
    classes: tuple[Label, ...]
    """The classes, indexed by the values of `target`; empty for regression."""

    @property
    def metric(self) -> str:
        """The name of the metric that measures predictive power."""
        return "R²" if self.task == "regression" else "ROC AUC"


def check_target(
    frame: pl.DataFrame,
    *,
    schema: Schema,
    plan: Plan,
    tensors: Mapping[str, NDArray[Any]],
    target: NDArray[Any],
    task: Task,
    classes: Sequence[Label],
    positive: int,
) -> list[Finding]:
    """Return all findings that depend on the target."""
    if task == "binary":  # the target is 1 for the positive class, but the index of that class may be 0
        classes = (classes[1 - positive], classes[positive])
    data = CheckInput(
        columns=_first_parts(plan, tensors),
        schema=schema,
        target=target,
        indicators=_indicators(target, task, len(classes)),
        task=task,
        classes=tuple(classes),
    )
    findings = [*_conflicting_rows(frame, data), *_rare_classes(data)]
    return findings if len(target) < MIN_ROWS else [*_column_findings(data), *_row_order(data), *findings]


def check_columns(schema: Schema, plan: Plan, tensors: Mapping[str, NDArray[Any]]) -> list[Finding]:
    """Return the findings about columns that do not depend on a target."""
    columns = _first_parts(plan, tensors)
    if min((len(values) for values in columns.values()), default=0) < MIN_ROWS:
        return []
    return [*column_pairs.same_facts(columns, schema.columns), *_row_counters(columns, schema.columns)]


def sort_by_severity(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Sort findings, most severe first. Findings whose code is not in `SEVERITY` come last, in their original order."""
    positions = {code: position for position, code in enumerate(SEVERITY)}
    return tuple(sorted(findings, key=lambda finding: positions.get(finding.code, len(SEVERITY))))


def _column_findings(data: CheckInput) -> list[Finding]:
    """Check individual columns and pairs of columns. Later checks skip columns that already have a finding."""
    power = _power(data)
    findings = _leaks(data, power)
    columns = _without_finding(data.schema, findings)
    findings += [*_certain_values(data, columns), *_later_facts(data, columns)]
    columns = _without_finding(data.schema, findings)
    if data.task != "multiclass":
        numbers = _numbers(data, columns)
        findings += column_pairs.joint_leaks(numbers, data.indicators[:, 0], power=power, task=data.task)
    return [*findings, *column_pairs.same_facts(data.columns, columns), *_row_counters(data.columns, columns)]


def _without_finding(schema: Schema, findings: Sequence[Finding]) -> list[Column]:
    names = {finding.column for finding in findings}
    return [column for column in schema.columns if column.name not in names]


def _first_parts(plan: Plan, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return the values of each column; a datetime column is given as the number of days since its origin."""
    return {
        feature.column: tensors[spec.name][:, index]
        for spec in plan
        for index, feature in enumerate(spec.columns)
        if feature.part in ("value", "days")
    }


def _indicators(target: NDArray[Any], task: Task, classes: int) -> NDArray[np.float64]:
    if task != "multiclass":
        return np.asarray(target, np.float64)[:, None]
    return np.asarray(np.eye(classes)[target], np.float64)


def _power(data: CheckInput) -> Power:
    """Return a function that measures how well a single column predicts the target in a sample of the rows.

    The values are divided into bins. The target mean of a bin in one half of the sample is the prediction for the same
    bin in the other half.
    """
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(data.target))[:SAMPLE_ROWS]
    half = rng.integers(0, 2, len(rows)).astype(bool)
    targets = data.indicators[rows].T
    score = _r2 if data.task == "regression" else _auc

    def power(values: NDArray[Any]) -> float:
        bins = _bins(values[rows])
        return float(np.mean([score(target, _predict_halves(bins, target, half)) for target in targets]))

    return power


def _bins(values: NDArray[Any]) -> NDArray[np.intp]:
    """Return the bin index of each value.

    Each distinct string has its own bin. Numbers are binned by quantile; frequent numbers and missing values have their
    own bins.
    """
    if values.dtype == object:
        return np.unique(values.astype(str), return_inverse=True)[1]
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values), np.intp)
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)))
    bins = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(known, bins, 2 * len(edges) + 1)


def _predict_halves(
    bins: NDArray[np.intp], target: NDArray[np.float64], half: NDArray[np.bool_]
) -> NDArray[np.float64]:
    predicted = np.empty(len(target))
    for side in (half, ~half):
        other, mean = ~side, target[~side].mean()
        counts = np.bincount(bins[other], minlength=bins.max() + 1)
        sums = np.bincount(bins[other], weights=target[other], minlength=bins.max() + 1)
        predicted[side] = ((sums + 2 * mean) / (counts + 2))[bins[side]]
    return predicted


def _r2(target: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    variation = float(((target - target.mean()) ** 2).sum())
    return 1 - float(((target - predicted) ** 2).sum()) / variation if variation else 0.0


def _auc(target: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    ones = int(target.sum())
    zeros = len(target) - ones
    if not ones or not zeros:
        return 0.5
    _, level, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[level]
    return float((ranks[target == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _leaks(data: CheckInput, power: Power) -> list[Finding]:
    """Report columns that predict the target almost perfectly. If there are none, report a dominant column."""
    powers = {name: power(values) for name, values in data.columns.items()}
    ranked = sorted(powers, key=lambda name: -powers[name])
    leaks = []
    for name in ranked:
        if powers[name] < LEAK[data.task]:
            break
        missing = _is_missing(data.columns[name])
        by_missing = bool(missing.any()) and power(missing.astype(np.float32)) >= LEAK[data.task]
        how = "its missing values predict" if by_missing else "predicts"
        message = f"{how} the target almost perfectly ({data.metric} {powers[name]:.3f})"
        leaks.append(Finding("leak", name, message, LEAK_ACTION, Override("exclude", name)))
    if leaks or data.task != "binary" or len(ranked) < 2:
        return leaks
    first, second = ranked[:2]
    if powers[first] < DOMINANT or powers[first] - 0.5 < 1.8 * (powers[second] - 0.5):
        return []
    message = f"predicts the target far better than any other column ({data.metric} {powers[first]:.3f})"
    return [Finding("dominant", first, message, LEAK_ACTION, Override("exclude", first))]


def _is_missing(values: NDArray[Any]) -> NDArray[np.bool_]:
    return np.asarray(values == "" if values.dtype == object else np.isnan(values))


def _certain_values(data: CheckInput, columns: Sequence[Column]) -> list[Finding]:
    """Report values that always occur with the same target value, and occur too often for this to be a coincidence."""
    is_regression = data.task == "regression"
    if data.task == "multiclass" and len(data.classes) > MAX_CERTAIN_CLASSES:
        return []
    target = data.target
    class_shares = np.zeros(0) if is_regression else np.bincount(target) / len(target)
    findings = []
    for column in columns:
        if column.kind not in ("boolean", "category") or column.name not in data.columns:
            continue
        levels, level_of_row = _levels(data.columns[column.name])
        if not 2 <= len(levels) <= MAX_LEVELS:
            continue
        counts = np.bincount(level_of_row)
        means = np.bincount(level_of_row, weights=target) / counts
        variations = np.bincount(level_of_row, weights=(target - means[level_of_row]) ** 2)
        for index in np.flatnonzero(variations <= 1e-9):
            other_share = 1.0 if is_regression else 1 - class_shares[round(means[index])]
            if counts[index] * other_share < RARE_CLASS_ROWS:
                continue
            value = f"{means[index]:g}" if is_regression else repr(data.classes[round(means[index])])
            message = f"the target is always {value} where this column is {levels[index]!r} ({counts[index]} rows)"
            findings.append(Finding("certain-value", column.name, message, LEAK_ACTION, _exclude(column)))
            break
    return findings


def _exclude(column: Column) -> Override:
    return Override("exclude", column.name)


def _levels(values: NDArray[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    if values.dtype == object:
        levels, level_of_row = np.unique(values.astype(str), return_inverse=True)
        return levels.tolist(), level_of_row
    words = {0.0: "false", 1.0: "true"}
    numbers, level_of_row = np.unique(values, return_inverse=True)
    return [words.get(number, "") for number in numbers.tolist()], level_of_row


def _later_facts(data: CheckInput, columns: Sequence[Column]) -> list[Finding]:
    """Report columns about payments and losses, which are usually known only after the outcome.

    Such columns are recognized by name, by value, or as the difference between two other columns.
    """
    named = [column.name for column in columns if _names_payment(column.name)]
    messages = dict.fromkeys(named, "its name suggests a value that is known only after the outcome")
    for column in columns:
        endings = [level for level in column.levels if _names_ending(level)]
        if endings and len(column.levels) <= MAX_LEVELS:
            messages.setdefault(column.name, f"contains {endings[0]!r}, which describes an outcome")
    findings = [
        Finding("later-fact", name, message, LEAK_ACTION, Override("exclude", name))
        for name, message in messages.items()
    ]
    return [*findings, *column_pairs.remainders(_numbers(data, columns), named)]


def _numbers(data: CheckInput, columns: Sequence[Column]) -> dict[str, NDArray[Any]]:
    names = {column.name for column in columns if column.kind in ("number", "integer")}
    return {name: values for name, values in data.columns.items() if name in names}


def _row_counters(values: Mapping[str, NDArray[Any]], columns: Sequence[Column]) -> list[Finding]:
    """Report columns that contain row numbers, even if the count restarts."""
    findings = []
    for column in columns:
        if column.kind != "integer" or column.name not in values:
            continue
        steps = np.diff(values[column.name].astype(np.float64))
        if (steps == 1).mean() >= COUNTING_STEPS:
            message = "contains row numbers (the count may restart), so it reveals each row's position in the file"
            findings.append(Finding("row-order", column.name, message, "used as a feature", _exclude(column)))
    return findings


def _row_order(data: CheckInput) -> list[Finding]:
    """Report rows that seem to be in time order.

    With a random split, some training rows would be later than the holdout rows.
    """
    rows = len(data.target)
    block = np.arange(rows) * BLOCKS // rows
    counts = np.bincount(block, minlength=BLOCKS)
    between = total = 0.0
    for target in data.indicators.T:
        means = np.bincount(block, weights=target, minlength=BLOCKS) / np.maximum(counts, 1)
        between += float((counts * (means - target.mean()) ** 2).sum())
        total += float(((target - target.mean()) ** 2).sum())
    share = between / total if total else 0.0
    dates = [column.name for column in data.schema.columns if column.kind == "datetime"]
    action = "split at random; the model may perform worse on later rows"
    if share < max(DRIFT, 6 * BLOCKS / rows):
        in_order = [name for name in dates if name in data.columns and _is_sorted(data.columns[name])]
        return [
            Finding("ordered-rows", "", f"the rows are sorted by {name!r}", action, Override("time", name))
            for name in in_order[:1]
        ]
    if share > SORTED:
        return [Finding("target-ordered", "", "the rows are sorted by the target", "split at random")]
    message = (
        "the target drifts from the start to the end of the file "
        f"(row position explains {share:.0%} of the target's variance)"
    )
    return [Finding("ordered-rows", "", message, action, Override("time", dates[0] if dates else ""))]


def _is_sorted(values: NDArray[Any]) -> bool:
    steps = np.diff(values[~np.isnan(values)])
    return bool(len(steps)) and max((steps >= 0).mean(), (steps <= 0).mean()) >= SORTED_STEPS and bool(steps.any())


def _conflicting_rows(frame: pl.DataFrame, data: CheckInput) -> list[Finding]:
    """Report rows that have the same features as another row but a different target."""
    rows = frame.select(data.schema.names()).hash_rows(0).to_frame("row")
    rows = rows.with_columns(pl.Series("target", data.target))
    conflicts = rows.filter((pl.len().over("row") > 1) & (pl.col("target").n_unique().over("row") > 1))
    if not conflicts.height:
        return []
    message = f"{conflicts.height} rows have the same features as another row but a different target"
    return [Finding("conflicting-rows", "", message, "used; no model can tell them apart")]


def _rare_classes(data: CheckInput) -> list[Finding]:
    if data.task == "regression":
        return []
    counts = np.bincount(data.target, minlength=len(data.classes)).tolist()
    rare = [f"{name!r} ({count})" for name, count in zip(data.classes, counts, strict=True) if count < RARE_CLASS_ROWS]
    if not rare:
        return []
    message = f"classes with fewer than {RARE_CLASS_ROWS} rows: {', '.join(rare[:5])}"
    return [Finding("rare-class", "", message, "used; their metrics are unreliable")]
