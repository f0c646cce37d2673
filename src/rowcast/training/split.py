"""Which rows are learnt from, which judge the search, and which are kept aside: seeded, and decided here alone.

At random every class is spread evenly. Rows tied by a group stay together; with moments later rows judge earlier ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.prediction import Label, Task
from rowcast.training.features import INNER_FOLDS, InnerFolds

FIRST_WINDOW: Final = 0.5
"""Share of the rows in order of time that only learn: folds that learn from little choose for little."""
ORDERED_FOLDS: Final = 10
"""More than at random: the rows of the first have no target means at all."""

Places = NDArray[np.intp]
Target = NDArray[Any]


@dataclass(frozen=True)
class SplitColumn:
    """What decides a split beside chance: the group that each row belongs to, or when it was."""

    by: Literal["group", "time"]
    column: str
    values: NDArray[Any]

    @property
    def option(self) -> str:
        """As it was typed."""
        return f"--{self.by} {self.column!r}"

    def take(self, chosen: Places) -> SplitColumn:
        return SplitColumn(self.by, self.column, self.values[chosen])

    def joined(self, other: SplitColumn) -> SplitColumn:
        return SplitColumn(self.by, self.column, np.concatenate([self.values, other.values]))


def split_holdout(
    target: Target, task: Task, share: float, seed: int, tie: SplitColumn | None
) -> tuple[Places, Places]:
    """The rows for training and the rows kept aside."""
    if tie is None:
        holdout = _drawn(target, task, share, seed)
    elif tie.by == "group":
        part = _spread(tie.values, target, task, (1 - share, share), [seed])
        holdout = np.flatnonzero(part == 1)
    else:
        holdout = _latest(tie, share)
    if not len(holdout) and tie is not None:
        groups = len(np.unique(tie.values))
        said = f"its {groups} {'group is' if groups == 1 else 'groups are'} too few, or too uneven, to keep rows aside"
        raise TableError(f"split by {tie.option}, {said}; split at random, or give rows of more groups")
    if not len(holdout):
        raise TableError("the table is too small to keep rows aside; give more rows or a larger holdout")
    return np.setdiff1d(np.arange(len(target)), holdout), holdout


def _drawn(target: Target, task: Task, share: float, seed: int) -> Places:
    """Of every class its share; every class keeps at least one row for training."""
    rng = np.random.default_rng(seed)
    strata = _strata(target, task)
    return np.sort(
        np.concatenate([rng.permutation(rows)[: min(round(len(rows) * share), len(rows) - 1)] for rows in strata])
    )


def _latest(tie: SplitColumn, share: float) -> Places:
    """The last rows, each later than every row for training."""
    moments = tie.values
    last = np.sort(moments)[len(moments) - max(round(len(moments) * share), 1) - 1]
    holdout = np.flatnonzero(moments > last)
    if not len(holdout):
        raise TableError(f"{tie.option} does not part the rows: too many of them share the last moment")
    return holdout


def check_sides(
    target: Target, training: Places, holdout: Places, classes: Sequence[Label], folds: int, tie: SplitColumn
) -> None:
    """TableError when a split by groups or by time leaves a side without rows to learn from or to measure by.

    `classes` stand in the order of their numbers in the target; there are none where a value is predicted.
    """
    names = ("earlier", "later") if tie.by == "time" else ("training", "kept aside")
    for name, rows in zip(names, (training, holdout), strict=True):
        lacking = [label for number, label in enumerate(classes) if number not in target[rows]]
        enough = name == names[1] and len(classes) - len(lacking) >= 2  # a rare class may be missing where one measures
        if lacking and not enough:
            said = f"the {name} rows do not hold every class: {lacking[0]!r} is missing"
            raise TableError(f"split by {tie.option}, {said}; split at random or give more rows")
    if tie.by == "group":
        _require_groups(target[training], tie.take(training), classes, folds)
    elif tie.values[training].min() == tie.values[training].max():
        raise TableError(f"split by {tie.option}, the earlier rows share one moment; no fold of them can be judged")


def _require_groups(target: Target, tie: SplitColumn, classes: Sequence[Label], folds: int) -> None:
    """Every fold gets a group, and where there are two classes no fold learns from one alone."""
    groups = len(np.unique(tie.values))
    if groups < folds:
        said = (
            f"{groups} {'group is' if groups == 1 else 'groups are'} left to learn from, fewer than the {folds} folds"
        )
        raise TableError(f"split by {tie.option}, {said}; split at random, or give rows of more groups")
    for number, label in enumerate(classes if len(classes) == 2 else ()):
        if len(np.unique(tie.values[target == number])) < 2:
            said = f"{label!r} is found in a single group of the training rows, so a fold would hold no row of it"
            raise TableError(f"split by {tie.option}, {said}; split at random, or give rows of more groups")


def make_folds(
    target: Target, task: Task, count: int, seed: int, tie: SplitColumn | None
) -> list[tuple[Places, Places]]:
    """The rows to learn from and the rows that judge, of each fold."""
    if tie is not None and tie.by == "time":
        return _windows(tie.values, count)
    if tie is None:
        fold = _dealt(target, task, count, seed)
    else:
        fold = _spread(tie.values, target, task, (1 / count,) * count, [seed, 1])
    return [(np.flatnonzero(fold != index), np.flatnonzero(fold == index)) for index in range(count)]


def _dealt(target: Target, task: Task, count: int, seed: int) -> Places:
    """The fold of each row: every class spread evenly."""
    rng = np.random.default_rng([seed, 1])
    fold = np.empty(len(target), np.intp)
    start = 0
    for rows in _strata(target, task):
        fold[rng.permutation(rows)] = (np.arange(len(rows)) + start) % count
        start += len(rows)
    return fold


def _windows(moments: NDArray[Any], count: int) -> list[tuple[Places, Places]]:
    """A window that grows: the rows up to a moment learn, those up to the next judge; fewer where moments repeat."""
    ranked = np.sort(moments)
    shares = FIRST_WINDOW + (1 - FIRST_WINDOW) * np.arange(count + 1) / count
    cuts = np.unique(ranked[np.ceil(shares * len(ranked)).astype(np.intp) - 1])
    if len(cuts) == 1:  # half of the rows share the last moment
        cuts = np.array([ranked[ranked < cuts[0]][-1], cuts[0]])
    return [
        (np.flatnonzero(moments <= first), np.flatnonzero((moments > first) & (moments <= last)))
        for first, last in pairwise(cuts)
    ]


def make_inner_folds(tie: SplitColumn | None) -> InnerFolds | None:
    """Which rows may tell a row the mean target of its level; None leaves it to chance."""
    if tie is None:
        return None
    values = tie.values
    if tie.by == "group":
        groups, place = np.unique(values, return_inverse=True)
        return InnerFolds((np.random.default_rng(0).permutation(len(groups)) % INNER_FOLDS)[place], ordered=False)
    before = np.searchsorted(np.sort(values), values)  # equal moments share a fold
    return InnerFolds(before * ORDERED_FOLDS // len(values), ordered=True)


def _strata(target: Target, task: Task) -> list[Places]:
    """The rows of each class; all rows together when values are predicted."""
    if task == "regression":
        return [np.arange(len(target))]
    return [np.flatnonzero(target == label) for label in np.unique(target)]


def _spread(group: Places, target: Target, task: Task, shares: Sequence[float], seed: Sequence[int]) -> Places:
    """The part of each row, groups kept whole: the largest first, each where rows and classes are most wanting.

    Wanting is measured by the squares of what each part holds, over the share that it should hold.
    """
    _, place = np.unique(group, return_inverse=True)
    columns = [np.bincount(place)]
    if task != "regression":
        columns += [np.bincount(place, weights=target == label) for label in np.unique(target)]
    counts = np.stack(columns, axis=1).astype(np.float64)
    parts = counts / counts.sum(axis=0)
    order = np.random.default_rng(list(seed)).permutation(len(parts))
    held, wanted = np.zeros((len(shares), parts.shape[1])), np.array(shares)
    chosen = np.empty(len(parts), np.intp)
    for each in order[np.argsort(-counts[order, 0], kind="stable")]:
        part = parts[each]
        chosen[each] = best = np.argmin((2 * held + part) @ part / wanted)
        held[best] += part
    return chosen[place]
