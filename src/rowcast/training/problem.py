"""The learning problem in a table: what is predicted, from which rows, and which rows are kept aside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast import tables
from rowcast.domain.encode import NUMBERS, TEXTS, Plan, own_plan
from rowcast.domain.prediction import Label, Task
from rowcast.domain.schema import Column, Schema
from rowcast.domain.values import BLANKS, BadValue
from rowcast.errors import TableError
from rowcast.tables import Finding, Table
from rowcast.training import check, labels
from rowcast.training.story import ColumnCheck, Options, TableCheck

FEWEST_ROWS: Final = 20


@dataclass(frozen=True)
class Rows:
    """Encoded rows with what they should become: class numbers, 1 for the positive class, or values."""

    numbers: NDArray[np.float32]
    texts: NDArray[np.object_]
    target: NDArray[Any]
    places: NDArray[np.intp]
    """Where each row stands in the problem's frame."""

    def take(self, chosen: NDArray[np.intp]) -> Rows:
        return Rows(self.numbers[chosen], self.texts[chosen], self.target[chosen], self.places[chosen])

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Problem:
    """Everything training needs to know of the data. The holdout is for measuring alone."""

    task: Task
    classes: tuple[Label, ...]
    positive: int
    schema: Schema
    plan: Plan
    frame: pl.DataFrame
    target: str
    training: Rows
    holdout: Rows
    findings: tuple[Finding, ...]

    @property
    def width(self) -> int:
        """How many raw scores a row gets: one, or one a class when there are more than two."""
        return len(self.classes) if self.task == "multiclass" else 1


def pose(table: Table, options: Options) -> Problem:
    """The problem in a table; TableError says in one sentence why there is none."""
    name = options.target.strip(BLANKS)
    table.require(name)
    table, keep = _columns(table, name, options)
    found = labels.read(table, name, options)
    table, target = found.table, found.target
    if len(target) < FEWEST_ROWS:
        raise TableError(f"{table.name} has {len(target)} rows with a target; training needs at least {FEWEST_ROWS}")
    sensitive = table.named(options.sensitive, "--sensitive")
    profile = tables.infer(table, target=name, keep=keep)
    profile = replace(profile, schema=profile.schema.marked(sensitive))
    plan = own_plan(profile.schema)
    tensors = tables.encode(table, profile.schema, plan)
    rows = _rows(tensors, target)
    given = check.examine(table.frame, profile.schema, plan, tensors, target, found.task, found.classes, found.positive)
    if options.time is None:
        training, holdout = _split(target, found.task, options)
    else:
        training, holdout = _split_by_time(table, options.time.strip(BLANKS), options.holdout)
        given = [finding for finding in given if finding.code not in check.ORDERED]
        if found.task != "regression":
            _require_classes(target, training, holdout, found.classes, options.time)
    return Problem(
        found.task,
        found.classes,
        found.positive,
        profile.schema,
        plan,
        table.frame,
        name,
        rows.take(training),
        rows.take(holdout),
        (*profile.findings, *given, *found.findings),
    )


def checked(table: Table, options: Options) -> TableCheck:
    """The data check alone; TableError where a training would be refused."""
    problem = pose(table, options)
    kinds = {column.name: column.kind for column in problem.schema.columns}
    return TableCheck(
        table=table.name,
        rows=problem.frame.height,
        target=problem.target,
        task=problem.task,
        classes=problem.classes,
        columns=[ColumnCheck(name, kinds.get(name, "")) for name in table.frame.columns if name != problem.target],
        findings=problem.findings,
    )


def _columns(table: Table, target: str, options: Options) -> tuple[Table, list[str]]:
    """The table without the columns to exclude, and the names of those to keep."""
    exclude = table.named(options.exclude, "--exclude")
    keep = table.named(options.keep, "--keep")
    for name in exclude:
        if name == target:
            raise TableError(f"--exclude names {name!r}, which is the target")
        if name in keep:
            raise TableError(f"column {name!r} is named by --keep and by --exclude; choose one")
    if options.time is not None and options.time.strip(BLANKS) == target:
        raise TableError(f"--time names {target!r}, which is the target")
    return table.without(exclude), keep


def _rows(tensors: dict[str, NDArray[Any]], target: NDArray[Any]) -> Rows:
    count = len(target)
    numbers = tensors.get(NUMBERS, np.empty((count, 0), np.float32))
    texts = tensors.get(TEXTS, np.empty((count, 0), object))
    return Rows(numbers, texts, target, np.arange(count))


def _split(target: NDArray[Any], task: Task, options: Options) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """A seeded holdout, of every class its share; every class keeps at least one row for training."""
    rng = np.random.default_rng(options.seed)
    groups = _strata(target, task)
    aside = [rng.permutation(group)[: min(round(len(group) * options.holdout), len(group) - 1)] for group in groups]
    holdout = np.sort(np.concatenate(aside))
    if not len(holdout):
        raise TableError("the table is too small to keep rows aside; give more rows or a larger holdout")
    return np.setdiff1d(np.arange(len(target)), holdout), holdout


def _split_by_time(table: Table, name: str, share: float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The last rows by a column are kept aside, each later than every row for training."""
    moments = _moments(table, name)
    last = np.sort(moments)[len(moments) - max(round(len(moments) * share), 1) - 1]
    holdout = np.flatnonzero(moments > last)
    if not len(holdout):
        raise TableError(f"--time {name!r} does not part the rows: too many of them share the last moment")
    return np.flatnonzero(moments <= last), holdout


def _moments(table: Table, name: str) -> NDArray[np.float64]:
    """When each row was, as numbers in order."""
    alone = replace(table, frame=table.require(name).to_frame(), findings=())
    column = tables.infer(alone, keep=[name]).schema.columns[0]
    if column.kind not in ("datetime", "integer", "number"):
        raise TableError(f"--time names {name!r}, which holds neither dates nor numbers")
    if column.missing:
        raise TableError(f"--time names {name!r}, which is missing in some rows; leave those rows out")
    distinct = {cell: column.parse(cell, text=True) for cell in alone.frame[name].unique().to_list()}
    return np.array([distinct[cell] for cell in alone.frame[name].to_list()], np.float64)


def _require_classes(
    target: NDArray[Any], training: NDArray[np.intp], holdout: NDArray[np.intp], classes: Sequence[Label], time: str
) -> None:
    for rows, which in ((training, "earlier"), (holdout, "later")):
        if len(np.unique(target[rows])) < len(classes):
            raise TableError(f"split by --time {time!r}, the {which} rows do not hold every class; split at random")


def _strata(target: NDArray[Any], task: Task) -> list[NDArray[np.intp]]:
    """The rows of each class; all rows together when values are predicted."""
    if task == "regression":
        return [np.arange(len(target))]
    return [np.flatnonzero(target == label) for label in np.unique(target)]


def folds(target: NDArray[Any], task: Task, count: int, seed: int) -> NDArray[np.intp]:
    """The fold of each row: seeded, every class spread evenly."""
    rng = np.random.default_rng([seed, 1])
    fold = np.empty(len(target), np.intp)
    start = 0
    for group in _strata(target, task):
        fold[rng.permutation(group)] = (np.arange(len(group)) + start) % count
        start += len(group)
    return fold


def client_value(column: Column, cell: Any) -> Any:
    """The cell as a client would send it in JSON: numbers as numbers, what needs a notation as it was written."""
    if isinstance(cell, str):
        cell = cell.strip(BLANKS)
    try:
        value = column.parse(cell, text=True)
    except BadValue:  # the table may hold a missing cell where the schema, kept by hand, allows none
        return None
    if value is None or column.kind in ("number", "integer", "category"):
        return value
    if column.kind == "datetime":
        return cell if isinstance(cell, str) else cell.isoformat()
    return cell if isinstance(cell, str) and cell.lower() in column.words else value
