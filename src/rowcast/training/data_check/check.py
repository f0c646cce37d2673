"""What the target gives away: columns that alone predict it, rows in its order, equal rows with unequal labels.

Nothing is left out for it: a column may be that good. The finding names the option that excludes it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.schema.encoding import Plan, TensorSpec
from rowcast.schema.prediction import Label, Task
from rowcast.schema.schema import Column, Schema
from rowcast.tables import Finding, Override
from rowcast.training.data_check import column_pairs as relations

SAMPLED: Final = 20_000
FEWEST: Final = 50
"""Below so many rows chance alone makes perfect columns."""
BINS: Final = 100
LEAK: Final = {"binary": 0.98, "multiclass": 0.99, "regression": 0.93}
"""AUC (over classes: their mean) or R² of one column alone, predicted from the other half of the rows."""
DOMINANT: Final = 0.78
FEW_LEVELS: Final = 64
FEW_CLASSES: Final = 4
BLOCKS: Final = 20
DRIFT: Final = 0.01
"""Share of the target's variance that the place in the file explains; chance explains BLOCKS / rows."""
SORTED: Final = 0.9
SAME_WAY: Final = 0.98
ORDERED: Final = ("target-ordered", "ordered-rows")
RARE_CLASS: Final = 20
COUNTING: Final = 0.98
_paid = re.compile(r"(?i)(^|[ _.\-])(paid|repaid|recovered|recoveries|collected)([ _.\-]|$)").search
_ended = re.compile(
    r"(?i)((fully |partly )?(re)?paid( off| in full)?|(charged|written)[ -]?off|refunded|foreclosed|defaulted|churned)"
).fullmatch
GRAVITY: Final = (
    *("leak", "joint-leak", "later-fact", "certain-value", "dominant"),
    *("target-ordered", "ordered-rows", "repeated-id", "conflicting-rows", "duplicate-rows", "alike-labels"),
    *("missing-target", "lonely-class", "rare-class", "weight-like", "row-order", "sentinel", "far-value"),
)
"""What may make a score a lie, then what a person should look at; all other findings follow as they came."""
USED: Final = "used; is it known before the target is?"


def examine(
    frame: pl.DataFrame,
    schema: Schema,
    plan: Plan,
    tensors: dict[str, NDArray[Any]],
    target: NDArray[Any],
    task: Task,
    classes: Sequence[Label],
    positive: int,
) -> list[Finding]:
    """Every finding that needs the target, the gravest first."""
    wanted = _wanted(target, task, len(classes))
    found = _conflicts(frame, schema, target)
    if len(target) >= FEWEST:
        parts = _columns(plan, tensors)
        columns = {feature.column: column for feature, column in parts if feature.part in ("value", "days")}
        shown = classes if task != "binary" else (classes[1 - positive], classes[positive])
        found = _leaks(columns, wanted, task)
        told = {finding.column for finding in found}
        others = [column for column in schema.columns if column.name not in told]
        found += [*_certain(columns, others, target, task, shown), *_later(columns, others)]
        told = {finding.column for finding in found}
        others = [column for column in schema.columns if column.name not in told]
        found += [*_together(columns, others, wanted, task), *relations.same_facts(columns, others)]
        found += [*_order(columns, wanted, schema), *_counters(columns, others), *_conflicts(frame, schema, target)]
    return [*found, *_rare(target, task, classes, positive)]


def ranked(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """The gravest first."""
    places = {code: place for place, code in enumerate(GRAVITY)}
    return tuple(sorted(findings, key=lambda finding: places.get(finding.code, len(GRAVITY))))


def _wanted(target: NDArray[Any], task: Task, classes: int) -> NDArray[np.float64]:
    """One column to be predicted, or one a class when there are more than two."""
    if task != "multiclass":
        return np.asarray(target, np.float64)[:, None]
    return np.asarray(np.eye(classes)[target], np.float64)


def _columns(plan: Plan, tensors: dict[str, NDArray[Any]]) -> list[tuple[Any, NDArray[Any]]]:
    def place(spec: TensorSpec, index: int) -> NDArray[Any]:
        return tensors[spec.name][:, index]

    return [(feature, place(spec, index)) for spec in plan for index, feature in enumerate(spec.columns)]


def _leaks(columns: dict[str, NDArray[Any]], wanted: NDArray[np.float64], task: Task) -> list[Finding]:
    """Columns that alone predict the target almost perfectly, or far better than any other."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(wanted))[:SAMPLED]
    half = rng.integers(0, 2, len(rows)).astype(bool)
    wanted = wanted[rows]
    power = {name: _power(_binned(values[rows]), wanted, half, task) for name, values in columns.items()}
    ranked = sorted(power, key=lambda name: -power[name])
    measure = "R²" if task == "regression" else "ROC AUC"
    found = []
    for name in ranked:
        if power[name] < LEAK[task]:
            break
        what = "its gaps alone predict" if _gaps_tell(columns[name][rows], wanted, half, task) else "alone predicts"
        message = f"{what} the target almost perfectly ({measure} {power[name]:.3f})"
        found.append(Finding("leak", name, message, USED, Override("exclude", name)))
    if task == "binary" and not found and len(ranked) > 1:
        first, second = ranked[:2]
        if power[first] >= DOMINANT and power[first] - 0.5 >= 1.8 * (power[second] - 0.5):
            message = f"alone predicts the target far better than any other ({measure} {power[first]:.3f})"
            found.append(Finding("dominant", first, message, USED, Override("exclude", first)))
    return found


def _binned(values: NDArray[Any]) -> NDArray[np.intp]:
    """Bins of a column: its levels, or quantiles with a place for each often repeated value and for gaps."""
    if values.dtype == object:
        return np.unique(values.astype(str), return_inverse=True)[1]
    known = ~np.isnan(values)
    if not known.any():
        return np.zeros(len(values), np.intp)
    edges = np.unique(np.quantile(values[known], np.linspace(0, 1, BINS + 1)))
    bins = np.searchsorted(edges, values, side="left") + np.searchsorted(edges, values, side="right")
    return np.where(known, bins, 2 * len(edges) + 1)


def _power(bins: NDArray[np.intp], wanted: NDArray[np.float64], half: NDArray[np.bool_], task: Task) -> float:
    """How well the bins' means over one half of the rows predict the other half."""
    scores = []
    for column in wanted.T:
        predicted = np.empty(len(column))
        for side in (half, ~half):
            seen, mean = ~side, column[~side].mean()
            counts = np.bincount(bins[seen], minlength=bins.max() + 1)
            sums = np.bincount(bins[seen], weights=column[seen], minlength=bins.max() + 1)
            predicted[side] = ((sums + 2 * mean) / (counts + 2))[bins[side]]
        scores.append(_r2(column, predicted) if task == "regression" else _auc(column, predicted))
    return float(np.mean(scores))


def _r2(target: NDArray[np.float64], predicted: NDArray[np.float64]) -> float:
    spread = float(((target - target.mean()) ** 2).sum())
    return 1 - float(((target - predicted) ** 2).sum()) / spread if spread else 0.0


def _auc(target: NDArray[np.float64], score: NDArray[np.float64]) -> float:
    ones = int(target.sum())
    zeros = len(target) - ones
    if not ones or not zeros:
        return 0.5
    _, place, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[target == 1].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _gaps_tell(values: NDArray[Any], wanted: NDArray[np.float64], half: NDArray[np.bool_], task: Task) -> bool:
    gaps = values == "" if values.dtype == object else np.isnan(values)
    return bool(gaps.any()) and _power(gaps.astype(np.intp), wanted, half, task) >= LEAK[task]


def _certain(
    columns: dict[str, NDArray[Any]],
    known: Sequence[Column],
    target: NDArray[Any],
    task: Task,
    classes: Sequence[Label],
) -> list[Finding]:
    """Values after which the target never varies, in so many rows that it is no chance."""
    if task == "multiclass" and len(classes) > FEW_CLASSES:  # among many, a value of one class alone is the rule
        return []
    shares = np.bincount(target) / len(target) if task != "regression" else np.zeros(0)
    found = []
    for column in known:
        if column.kind not in ("boolean", "category") or column.name not in columns:
            continue
        levels, place = _levels(columns[column.name])
        if not 2 <= len(levels) <= FEW_LEVELS:
            continue
        counts = np.bincount(place)
        means = np.bincount(place, weights=target) / counts
        spreads = np.bincount(place, weights=(target - means[place]) ** 2)
        for index in np.flatnonzero(spreads <= 1e-9):
            only = round(means[index]) if task != "regression" else 0
            others = 1 - shares[only] if task != "regression" else 1.0
            if counts[index] * others < RARE_CLASS:
                continue
            said = repr(classes[only]) if task != "regression" else f"{means[index]:g}"
            message = f"where it is {levels[index]!r}, the target is {said} in all of {counts[index]} rows"
            found.append(Finding("certain-value", column.name, message, USED, Override("exclude", column.name)))
            break
    return found


def _later(columns: dict[str, NDArray[Any]], known: Sequence[Column]) -> list[Finding]:
    """Columns that tell, by name, value or sum, of what was paid or lost, which mostly follows what is predicted."""
    named = [column.name for column in known if _paid(column.name)]
    said = dict.fromkeys(named, "tells, by its name, of what came later")
    for column in known:
        ends = [level for level in column.levels if _ended(level)]
        if ends and len(column.levels) <= FEW_LEVELS:
            said.setdefault(column.name, f"says {ends[0]!r}, which is how a case ends")
    found = [Finding("later-fact", name, message, USED, Override("exclude", name)) for name, message in said.items()]
    return [*found, *relations.remainders(_numbers(columns, known), named)]


def _numbers(columns: dict[str, NDArray[Any]], known: Sequence[Column]) -> dict[str, NDArray[Any]]:
    kinds = {column.name for column in known if column.kind in ("number", "integer")}
    return {name: values for name, values in columns.items() if name in kinds}


def _together(
    columns: dict[str, NDArray[Any]], known: Sequence[Column], wanted: NDArray[np.float64], task: Task
) -> list[Finding]:
    if task == "multiclass":
        return []
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(wanted))[:SAMPLED]
    half = rng.integers(0, 2, len(rows)).astype(bool)

    def power(values: NDArray[np.float64]) -> float:
        return _power(_binned(values[rows]), wanted[rows], half, task)

    return relations.together(_numbers(columns, known), wanted[:, 0], power, task)


def _counters(columns: dict[str, NDArray[Any]], known: Sequence[Column]) -> list[Finding]:
    """Numbers that count along the file, starting again here and there: they tell a row's place, not its nature."""
    found = []
    for column in known:
        if column.kind != "integer" or column.name not in columns:
            continue
        steps = np.diff(columns[column.name].astype(np.float64))
        if (steps == 1).mean() >= COUNTING:
            message = "counts along the file, starting again here and there: it tells the place of a row"
            found.append(Finding("row-order", column.name, message, "used", Override("exclude", column.name)))
    return found


def _levels(values: NDArray[Any]) -> tuple[list[Any], NDArray[np.intp]]:
    if values.dtype == object:
        levels, place = np.unique(values.astype(str), return_inverse=True)
        return levels.tolist(), place
    words = {0.0: "false", 1.0: "true"}
    numbers, place = np.unique(values, return_inverse=True)
    return [words.get(number, "") for number in numbers.tolist()], place


def _order(columns: dict[str, NDArray[Any]], wanted: NDArray[np.float64], schema: Schema) -> list[Finding]:
    """Whether the target changes along the file: such rows, split at random, tell of their own future."""
    rows = len(wanted)
    block = np.arange(rows) * BLOCKS // rows
    counts = np.bincount(block, minlength=BLOCKS)
    between = within = 0.0
    for column in wanted.T:
        means = np.bincount(block, weights=column, minlength=BLOCKS) / np.maximum(counts, 1)
        between += float((counts * (means - column.mean()) ** 2).sum())
        within += float(((column - column.mean()) ** 2).sum())
    share = between / within if within else 0.0
    dates = [column.name for column in schema.columns if column.kind == "datetime"]
    if share < max(DRIFT, 6 * BLOCKS / rows):
        return [_sorted_by(name) for name in dates if name in columns and _is_sorted(columns[name])][:1]
    if share > SORTED:
        return [Finding("target-ordered", "", "the rows are sorted by the target", "split at random")]
    message = f"the target changes along the file, which explains {share:.0%} of it: are the rows in order of time?"
    action = "split at random; on later rows the model may do worse"
    return [Finding("ordered-rows", "", message, action, Override("time", dates[0] if dates else ""))]


def _sorted_by(name: str) -> Finding:
    message = f"the rows are in the order of {name!r}"
    action = "split at random; on later rows the model may do worse"
    return Finding("ordered-rows", "", message, action, Override("time", name))


def _is_sorted(values: NDArray[Any]) -> bool:
    steps = np.diff(values[~np.isnan(values)])
    return bool(len(steps)) and max((steps >= 0).mean(), (steps <= 0).mean()) >= SAME_WAY and bool(steps.any())


def _conflicts(frame: pl.DataFrame, schema: Schema, target: NDArray[Any]) -> list[Finding]:
    """Rows that are equal in every column of use and differ in the target."""
    rows = frame.select(schema.names()).hash_rows(0).to_frame("row").with_columns(pl.Series("target", target))
    unequal = rows.filter((pl.len().over("row") > 1) & (pl.col("target").n_unique().over("row") > 1))
    if not unequal.height:
        return []
    message = f"{unequal.height} rows are equal to another in every column of use, and differ in the target"
    return [Finding("conflicting-rows", "", message, "kept; no model can tell them apart")]


def _rare(target: NDArray[Any], task: Task, classes: Sequence[Label], positive: int) -> list[Finding]:
    if task == "regression":
        return []
    counts = np.bincount(target, minlength=len(classes))
    names = classes if task == "multiclass" else (classes[1 - positive], classes[positive])
    rare = [f"{names[index]!r} ({count})" for index, count in enumerate(counts.tolist()) if count < RARE_CLASS]
    if not rare:
        return []
    message = f"classes with fewer than {RARE_CLASS} rows: {', '.join(rare[:5])}"
    return [Finding("rare-class", "", message, "learnt from; scores on them are luck")]
