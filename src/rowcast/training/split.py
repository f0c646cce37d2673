"""Split the rows into training rows and a holdout, and split the training rows into folds.

Every split is reproducible. A random split distributes each class evenly. A group-based split never divides a group. In
a time-based split, the holdout and the validation rows are later than the training rows.
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
"""The share of rows, counted from the earliest row, that a time-based split never uses for validation.

The score of a model trained on few rows says little about a model trained on all rows.
"""
ORDERED_FOLDS: Final = 10
"""The number of folds for target means in a time-based split. This number is higher than in a random split, because
rows in the first fold have no target means.
"""

Indices = NDArray[np.intp]
Target = NDArray[Any]


@dataclass(frozen=True)
class SplitColumn:
    """The column that determines the split: the group or the time of each row."""

    by: Literal["group", "time"]
    column: str
    values: NDArray[Any]

    @property
    def option(self) -> str:
        """The option and the column, for error messages."""
        return f"option {self.by!r}: column {self.column!r}"

    def take(self, rows: Indices) -> SplitColumn:
        return SplitColumn(self.by, self.column, self.values[rows])

    def concat(self, other: SplitColumn) -> SplitColumn:
        return SplitColumn(self.by, self.column, np.concatenate([self.values, other.values]))


def split_holdout(
    target: Target, task: Task, share: float, seed: int, column: SplitColumn | None
) -> tuple[Indices, Indices]:
    """Return the training rows and the holdout; raise TableError if the holdout would be empty."""
    if column is None:
        holdout = _draw(target, task, share, seed)
    elif column.by == "group":
        part = _spread(column.values, target, task, (1 - share, share), [seed])
        holdout = np.flatnonzero(part == 1)
    else:
        holdout = _latest(column, share)
    if not len(holdout) and column is not None:
        groups = _count_groups(len(np.unique(column.values)))
        raise TableError(
            f"{column.option} has too few groups for a holdout, or the group sizes differ too much ({groups}); "
            "add rows from more groups or split at random",
            slug="too-few-groups",
        )
    if not len(holdout):
        raise TableError(
            "the table is too small for a holdout; add rows or increase the value of 'holdout'", slug="too-few-rows"
        )
    return np.setdiff1d(np.arange(len(target)), holdout), holdout


def _count_groups(count: int) -> str:
    return "1 group" if count == 1 else f"{count} groups"


def _draw(target: Target, task: Task, share: float, seed: int) -> Indices:
    """Draw the same share of every class for the holdout; leave at least one row of each class for training."""
    rng = np.random.default_rng(seed)
    strata = _strata(target, task)
    return np.sort(
        np.concatenate([rng.permutation(rows)[: min(round(len(rows) * share), len(rows) - 1)] for rows in strata])
    )


def _latest(column: SplitColumn, share: float) -> Indices:
    """Return the latest rows. Every returned row is later than all other rows."""
    times = column.values
    last = np.sort(times)[len(times) - max(round(len(times) * share), 1) - 1]
    holdout = np.flatnonzero(times > last)
    if not len(holdout):
        raise TableError(
            f"{column.option} cannot be used to split the rows, because too many rows have the latest value",
            slug="too-few-times",
        )
    return holdout


def check_sides(
    target: Target,
    training: Indices,
    holdout: Indices,
    *,
    classes: Sequence[Label],
    folds: int,
    column: SplitColumn,
) -> None:
    """Raise TableError if a group-based or time-based split leaves too few rows to train or measure a model.

    The values of `target` are indices into `classes`. For regression, `classes` is empty.
    """
    names = ("earlier", "later") if column.by == "time" else ("training", "holdout")
    for name, rows in zip(names, (training, holdout), strict=True):
        lacking = [label for number, label in enumerate(classes) if number not in target[rows]]
        enough = name == names[1] and len(classes) - len(lacking) >= 2  # a holdout may lack a rare class
        if lacking and not enough:
            raise TableError(
                f"{column.option} leaves no rows of class {lacking[0]!r} among the {name} rows; "
                "add rows or split at random",
                slug="missing-class",
            )
    if column.by == "group":
        _check_groups(target[training], column.take(training), classes, folds)
    elif column.values[training].min() == column.values[training].max():
        raise TableError(
            f"{column.option} has the same value in all training rows, so they cannot be split by time",
            slug="too-few-times",
        )


def _check_groups(target: Target, column: SplitColumn, classes: Sequence[Label], folds: int) -> None:
    """Raise TableError if there are fewer groups than folds, or if a fold's training rows would lack a class.

    Classes are checked only if the target is binary.
    """
    groups = len(np.unique(column.values))
    if groups < folds:
        raise TableError(
            f"{column.option} leaves only {_count_groups(groups)} for training, but {folds} folds need at least "
            "one group each; add rows from more groups or split at random",
            slug="too-few-groups",
        )
    for number, label in enumerate(classes if len(classes) == 2 else ()):
        if len(np.unique(column.values[target == number])) < 2:
            raise TableError(
                f"{column.option} has only one training group with class {label!r}, so one fold would lack this class "
                "in training; add rows from more groups or split at random",
                slug="too-few-groups",
            )


def make_folds(
    target: Target, task: Task, count: int, seed: int, column: SplitColumn | None
) -> list[tuple[Indices, Indices]]:
    """Return the training rows and the validation rows of each fold."""
    if column is not None and column.by == "time":
        return _windows(column.values, count)
    if column is None:
        fold = _deal(target, task, count, seed)
    else:
        fold = _spread(column.values, target, task, (1 / count,) * count, [seed, 1])
    return [(np.flatnonzero(fold != index), np.flatnonzero(fold == index)) for index in range(count)]


def _deal(target: Target, task: Task, count: int, seed: int) -> Indices:
    """Return the fold of each row; every class is distributed evenly across the folds."""
    rng = np.random.default_rng([seed, 1])
    fold = np.empty(len(target), np.intp)
    start = 0
    for rows in _strata(target, task):
        fold[rng.permutation(rows)] = (np.arange(len(rows)) + start) % count
        start += len(rows)
    return fold


def _windows(times: NDArray[Any], count: int) -> list[tuple[Indices, Indices]]:
    """Return the folds of an expanding window.

    In each fold, the training rows end at one cutoff time, and the validation rows end at the next. If times repeat,
    there may be fewer than `count` folds.
    """
    ranked = np.sort(times)
    shares = FIRST_WINDOW + (1 - FIRST_WINDOW) * np.arange(count + 1) / count
    cuts = np.unique(ranked[np.ceil(shares * len(ranked)).astype(np.intp) - 1])
    if len(cuts) == 1:  # at least half of the rows share the latest time
        cuts = np.array([ranked[ranked < cuts[0]][-1], cuts[0]])
    return [
        (np.flatnonzero(times <= first), np.flatnonzero((times > first) & (times <= last)))
        for first, last in pairwise(cuts)
    ]


def make_inner_folds(column: SplitColumn | None) -> InnerFolds | None:
    """Return the folds for target means, or None if random folds are sufficient."""
    if column is None:
        return None
    values = column.values
    if column.by == "group":
        groups, index = np.unique(values, return_inverse=True)
        return InnerFolds((np.random.default_rng(0).permutation(len(groups)) % INNER_FOLDS)[index], ordered=False)
    earlier = np.searchsorted(np.sort(values), values)  # rows with the same time share a fold
    return InnerFolds(earlier * ORDERED_FOLDS // len(values), ordered=True)


def _strata(target: Target, task: Task) -> list[Indices]:
    """Return the row indices of each class. In regression, all rows are treated as one class."""
    if task == "regression":
        return [np.arange(len(target))]
    return [np.flatnonzero(target == label) for label in np.unique(target)]


def _spread(group: Indices, target: Target, task: Task, shares: Sequence[float], seed: Sequence[int]) -> Indices:
    """Assign whole groups to parts and return the part of each row.

    Groups are assigned in descending order of size. Each group goes to the part that keeps the row counts, in total and
    in each class, closest to `shares`.
    """
    _, index = np.unique(group, return_inverse=True)
    columns = [np.bincount(index)]
    if task != "regression":
        columns += [np.bincount(index, weights=target == label) for label in np.unique(target)]
    counts = np.stack(columns, axis=1).astype(np.float64)
    fractions = counts / counts.sum(axis=0)
    order = np.random.default_rng(list(seed)).permutation(len(fractions))
    totals, part_shares = np.zeros((len(shares), fractions.shape[1])), np.array(shares)
    part = np.empty(len(fractions), np.intp)
    for each in order[np.argsort(-counts[order, 0], kind="stable")]:
        fraction = fractions[each]
        part[each] = best = np.argmin((2 * totals + fraction) @ fraction / part_shares)
        totals[best] += fraction
    return part[index]
