"""Check pairs of columns for joint leaks, for differences that reveal an outcome, and for duplicate columns.

Only ratios and differences are checked for joint leaks, because prices, rates and balances are often ratios or
differences. A post-outcome column contains values that are known only after the outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.schema.schema import Column
from rowcast.tables.table import Finding, Override

Power = Callable[[NDArray[Any]], float]
"""Returns how well a single column predicts the target: the ROC AUC or R²."""

SCREENED_ROWS: Final = 1000
"""The number of rows used to screen each pair."""
MAX_COLUMNS: Final = 40
"""The maximum number of columns to pair; columns with the most distinct values are preferred.

Screening all 780 pairs takes 0.25 s.
"""
PAIR_BINS: Final = 40
MIN_DISTINCT: Final = 20
MEASURED_PAIRS: Final = 5
JOINT_POWER: Final = {"binary": 0.85, "regression": 0.6}
JOINT_GAIN: Final = {"binary": 0.2, "regression": 0.4}
"""A pair is a joint leak if its predictive power reaches JOINT_POWER and exceeds each column's power by JOINT_GAIN.

No known legitimate pair reaches both limits.
"""
COMPARED_ROWS: Final = 5000
SAME_SHARE: Final = 0.995
LEAK_ACTION: Final = "used as a feature; check that it is known before the outcome"


def joint_leaks(
    columns: Mapping[str, NDArray[Any]], target: NDArray[np.float64], *, power: Power, task: Task
) -> list[Finding]:
    """Report pairs whose ratio or difference predicts the target far better than either column.

    Each column is reported at most once.
    """
    distinct = {name: len(np.unique(values[:SCREENED_ROWS])) for name, values in columns.items()}
    fine = sorted((name for name in columns if distinct[name] > MIN_DISTINCT), key=lambda name: -distinct[name])
    rows = np.random.default_rng(0).permutation(len(target))[:SCREENED_ROWS]
    screened = sorted(
        (
            (_explained_variation(_combine(columns, a, b, operator)[rows], target[rows]), a, b, operator)
            for a, b in combinations(fine[:MAX_COLUMNS], 2)
            for operator in "/-"
        ),
        reverse=True,
    )
    findings: list[Finding] = []
    reported: set[str] = set()
    metric = "R²" if task == "regression" else "ROC AUC"
    for _, a, b, operator in screened[:MEASURED_PAIRS]:
        if reported & {a, b}:
            continue
        joint = power(_combine(columns, a, b, operator))
        if joint < JOINT_POWER[task] or joint - max(power(columns[a]), power(columns[b])) < JOINT_GAIN[task]:
            continue
        # Computation adds digits, so the column with more distinct values is probably the computed column.
        computed, source = (a, b) if distinct[a] >= distinct[b] else (b, a)
        reported |= {a, b}
        relation = "its ratio to" if operator == "/" else "its difference from"
        message = f"{relation} {source!r} predicts the target far better than either column ({metric} {joint:.3f})"
        findings.append(Finding("joint-leak", computed, message, LEAK_ACTION, Override("exclude", computed)))
    return findings


def _combine(columns: Mapping[str, NDArray[Any]], a: str, b: str, operator: str) -> NDArray[np.float64]:
    left, right = columns[a].astype(np.float64), columns[b].astype(np.float64)
    if operator == "-":
        return left - right
    ratio = np.full(len(left), np.nan)
    np.divide(left, right, out=ratio, where=right != 0)
    return ratio


def _explained_variation(values: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    """Return the target's variation between bins of equal size, which is faster to compute than the AUC."""
    bins = np.empty(len(values), np.intp)
    bins[np.argsort(values)] = np.arange(len(values)) * PAIR_BINS // len(values)
    counts = np.bincount(bins, minlength=PAIR_BINS)
    means = np.bincount(bins, weights=target, minlength=PAIR_BINS) / np.maximum(counts, 1)
    return float((counts * (means - target.mean()) ** 2).sum())


def remainders(columns: Mapping[str, NDArray[Any]], later: Sequence[str]) -> list[Finding]:
    """Report columns that equal another column minus a post-outcome column. Such a column reveals the outcome."""
    rows = slice(0, COMPARED_ROWS)
    fine = [name for name in columns if len(np.unique(columns[name][rows])) > MIN_DISTINCT]
    others = [name for name in fine if name not in later][:MAX_COLUMNS]
    findings: dict[str, Finding] = {}
    for name in later:
        if name not in fine:
            continue
        part = columns[name][rows].astype(np.float64)
        for pair in combinations(others, 2):
            for total, remainder in (pair, pair[::-1]):
                if remainder in findings:
                    continue
                whole, rest = columns[total][rows].astype(np.float64), columns[remainder][rows].astype(np.float64)
                close = np.abs(whole - part - rest) <= 1e-6 * np.abs(whole) + 0.01
                if close.mean() >= SAME_SHARE:
                    message = f"equals {total!r} minus {name!r}, which is known only after the outcome"
                    override = Override("exclude", remainder)
                    findings[remainder] = Finding("later-fact", remainder, message, LEAK_ACTION, override)
    return list(findings.values())


def same_facts(columns: Mapping[str, NDArray[Any]], candidates: Sequence[Column]) -> list[Finding]:
    """Report columns whose values map one-to-one to the values of an earlier column."""
    first: dict[bytes, str] = {}
    findings = []
    for column in candidates:
        values = columns.get(column.name)
        if values is None:
            continue
        pattern = _pattern(values[:COMPARED_ROWS])
        if not 2 <= pattern.max() + 1 <= len(pattern) / 2:
            continue
        other = first.setdefault(pattern.tobytes(), column.name)
        if other != column.name and np.array_equal(_pattern(values), _pattern(columns[other])):
            message = f"its values map one-to-one to the values of {other!r}"
            action = "used as a feature; the feature importance is split between the two columns"
            findings.append(Finding("same-fact", column.name, message, action, Override("exclude", column.name)))
    return findings


def _pattern(values: NDArray[Any]) -> NDArray[np.intp]:
    """Assign indices to the distinct values in order of first occurrence; return the index of each row's value.

    If the values of two columns map one-to-one, the columns have the same indices.
    """
    cells = values.astype(str) if values.dtype == object else values
    _, first, level_of_row = np.unique(cells, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.intp)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[level_of_row]
