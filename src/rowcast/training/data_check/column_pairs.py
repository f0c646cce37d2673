"""What columns tell together: one made of another, two that give the target away, the same fact twice.

The search is by ratios and differences of two columns, which is how prices, rates and balances are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.schema import Column
from rowcast.tables import Finding, Override

Power = Callable[[NDArray[np.float64]], float]
"""How well one column alone predicts the target: ROC AUC or R²."""

SCREENED: Final = 1000
"""Rows of the first look at every pair."""
MOST_PAIRED: Final = 40
"""Columns of a table that are paired, those with most different values first: 780 pairs take a quarter of a second."""
PAIR_BINS: Final = 40
FINE: Final = 20
JOINED: Final = {"binary": 0.85, "regression": 0.6}
GAIN: Final = {"binary": 0.2, "regression": 0.4}
"""A pair counts when it reaches JOINED and beats the better of the two alone by GAIN; no honest pair was seen to."""
COMPARED: Final = 5000
SAME_SHARE: Final = 0.995
LATER: Final = "used; is it known before the target is?"


def together(
    columns: Mapping[str, NDArray[Any]], wanted: NDArray[np.float64], power: Power, task: str
) -> list[Finding]:
    """Pairs whose ratio or difference predicts the target though neither does alone; each column is named once."""
    fine = {name: len(np.unique(values[:SCREENED])) for name, values in columns.items()}
    chosen = sorted((name for name in columns if fine[name] > FINE), key=lambda name: -fine[name])[:MOST_PAIRED]
    rows = np.random.default_rng(0).permutation(len(wanted))[:SCREENED]
    seen = sorted(
        ((_screened(_joined(columns, a, b, how)[rows], wanted[rows]), a, b, how) for a, b, how in _pairs(chosen)),
        reverse=True,
    )
    found: list[Finding] = []
    told: set[str] = set()
    measure = "R²" if task == "regression" else "ROC AUC"
    for _, a, b, how in seen[:5]:
        if told & {a, b}:
            continue
        reached = power(_joined(columns, a, b, how))
        if reached < JOINED[task] or reached - max(power(columns[a]), power(columns[b])) < GAIN[task]:
            continue
        made, of = (a, b) if fine[a] >= fine[b] else (b, a)  # what was computed has more digits than what it is made of
        told |= {a, b}
        word = "its ratio to" if how == "/" else "its difference from"
        message = f"{word} {of!r} predicts the target far better than either alone ({measure} {reached:.3f})"
        found.append(Finding("joint-leak", made, message, LATER, Override("exclude", made)))
    return found


def _pairs(names: Sequence[str]) -> list[tuple[str, str, str]]:
    return [(a, b, how) for a, b in combinations(names, 2) for how in "/-"]


def _joined(columns: Mapping[str, NDArray[Any]], a: str, b: str, how: str) -> NDArray[np.float64]:
    one, other = columns[a].astype(np.float64), columns[b].astype(np.float64)
    if how == "-":
        return one - other
    ratio = np.full(len(one), np.nan)
    np.divide(one, other, out=ratio, where=other != 0)
    return ratio


def _screened(values: NDArray[np.float64], wanted: NDArray[np.float64]) -> float:
    """The share of the target's variance between bins of equal size: quick, and the same order for AUC."""
    bins = np.empty(len(values), np.intp)
    bins[np.argsort(values)] = np.arange(len(values)) * PAIR_BINS // len(values)
    counts = np.bincount(bins, minlength=PAIR_BINS)
    means = np.bincount(bins, weights=wanted, minlength=PAIR_BINS) / np.maximum(counts, 1)
    return float((counts * (means - wanted.mean()) ** 2).sum())


def remainders(columns: Mapping[str, NDArray[Any]], later: Sequence[str]) -> list[Finding]:
    """Columns that are another less (or with) one that tells of what came later, and so tell of it too."""
    rows = slice(0, COMPARED)
    found: dict[str, Finding] = {}
    rest = [name for name in columns if name not in later and len(np.unique(columns[name][rows])) > FINE]
    for name in later:
        if name not in columns or len(np.unique(columns[name][rows])) <= FINE:
            continue
        part = columns[name][rows].astype(np.float64)
        for a, b in combinations(rest[:MOST_PAIRED], 2):
            whole, left = columns[a][rows].astype(np.float64), columns[b][rows].astype(np.float64)
            for total, remains, made, of in ((whole, left, b, a), (left, whole, a, b)):
                close = np.abs(total - part - remains) <= 1e-6 * np.abs(total) + 0.01
                if made not in found and close.mean() >= SAME_SHARE:
                    message = f"is {of!r} less {name!r}, which tells of what came later"
                    found[made] = Finding("later-fact", made, message, LATER, Override("exclude", made))
    return list(found.values())


def same_facts(columns: Mapping[str, NDArray[Any]], known: Sequence[Column]) -> list[Finding]:
    """Columns that say, value for value, what another says."""
    first: dict[bytes, str] = {}
    found = []
    for column in known:
        values = columns.get(column.name)
        if values is None:
            continue
        order = _order_met(values[:COMPARED])
        if not 2 <= order.max() + 1 <= len(order) / 2:
            continue
        other = first.setdefault(order.tobytes(), column.name)
        if other != column.name and np.array_equal(_order_met(values), _order_met(columns[other])):
            message = f"says the same as {other!r}, value for value"
            action = "used; importance is shared between them"
            found.append(Finding("same-fact", column.name, message, action, Override("exclude", column.name)))
    return found


def _order_met(values: NDArray[Any]) -> NDArray[np.intp]:
    """Each value as the number of different ones before it first came: equal for columns that are renamings."""
    cells = values.astype(str) if values.dtype == object else values
    _, met, place = np.unique(cells, return_index=True, return_inverse=True)
    rank = np.empty(len(met), np.intp)
    rank[np.argsort(met)] = np.arange(len(met))
    return rank[place]
