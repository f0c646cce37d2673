"""The learning problem in a table: what is predicted, from which rows, and which rows are kept aside."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast import tables
from rowcast.errors import TableError
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan, own_plan
from rowcast.schema.prediction import Label, Task
from rowcast.schema.schema import Column, Schema
from rowcast.schema.values import BLANKS, BadValue
from rowcast.tables import Finding, Table
from rowcast.training import labels, split
from rowcast.training.data_check import check, special_columns
from rowcast.training.options import TrainingOptions
from rowcast.training.result import ColumnCheck, TableCheck
from rowcast.training.split import SplitColumn

FEWEST_ROWS: Final = 20


@dataclass(frozen=True)
class LabelledRows:
    """Encoded rows with what they should become: class numbers, 1 for the positive class, or values."""

    numbers: NDArray[np.float32]
    texts: NDArray[np.object_]
    target: NDArray[Any]
    places: NDArray[np.intp]
    """Where each row stands in the problem's frame."""
    weight: NDArray[np.float64] | None = None
    """How much each row counts in figures; None: all alike."""
    emphasis: NDArray[np.float64] | None = None
    """How much it counts in fits: its weight, times that of its class."""
    tie: SplitColumn | None = None

    @property
    def group(self) -> NDArray[Any] | None:
        """The group of each row, where groups decide the split."""
        return self.tie.values if self.tie is not None and self.tie.by == "group" else None

    def take(self, chosen: NDArray[np.intp]) -> LabelledRows:
        return LabelledRows(
            self.numbers[chosen],
            self.texts[chosen],
            self.target[chosen],
            self.places[chosen],
            None if self.weight is None else self.weight[chosen],
            None if self.emphasis is None else self.emphasis[chosen],
            None if self.tie is None else self.tie.take(chosen),
        )

    def joined(self, other: LabelledRows) -> LabelledRows:
        """These rows and then the others."""
        return LabelledRows(
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.texts, other.texts]),
            np.concatenate([self.target, other.target]),
            np.concatenate([self.places, other.places]),
            None if self.weight is None or other.weight is None else np.concatenate([self.weight, other.weight]),
            None
            if self.emphasis is None or other.emphasis is None
            else np.concatenate([self.emphasis, other.emphasis]),
            None if self.tie is None or other.tie is None else self.tie.joined(other.tie),
        )

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class LearningProblem:
    """Everything training needs to know of the data. The holdout is for measuring alone."""

    task: Task
    classes: tuple[Label, ...]
    positive: int
    schema: Schema
    plan: Plan
    frame: pl.DataFrame
    sha256: str
    """Of the table that was read."""
    target: str
    training: LabelledRows
    holdout: LabelledRows
    findings: tuple[Finding, ...]
    class_weights: tuple[float, ...] = ()
    """How much each class counts in fits, by its number in the target; empty: as its rows do."""

    @property
    def width(self) -> int:
        """How many raw scores a row gets: one, or one a class when there are more than two."""
        return len(self.classes) if self.task == "multiclass" else 1


def build_problem(table: Table, options: TrainingOptions) -> LearningProblem:
    """The problem in a table; TableError says in one sentence why there is none."""
    name = options.target.strip(BLANKS)
    table.require(name)
    left_out, keep = special_columns.resolve_exclude_and_keep(table, name, options)
    table, weightless = special_columns.drop_weightless_rows(table, options)
    found = labels.read(table, name, options)
    table, target = found.table.without(left_out), found.target
    if len(target) < FEWEST_ROWS:
        raise TableError(f"{table.name} has {len(target)} rows with a target; training needs at least {FEWEST_ROWS}")
    sensitive = table.resolve_columns(options.sensitive, "sensitive")
    profile = tables.infer(table, target=name, keep=keep)
    profile = replace(profile, schema=profile.schema.with_sensitive(sensitive))
    plan = own_plan(profile.schema)
    tensors = tables.encode(table, profile.schema, plan)
    weights = special_columns.row_weights(found.table, options)
    rows = _rows(tensors, target, weights, special_columns.read_split_column(found.table, options))
    training, holdout, class_weights = _sides(rows, found, options)
    given = check.check_target(
        table.frame,
        schema=profile.schema,
        plan=plan,
        tensors=tensors,
        target=target,
        task=found.task,
        classes=found.classes,
        positive=found.positive,
    )
    if options.time is not None:
        given = [finding for finding in given if finding.code not in check.ORDER_CODES]
    tied = special_columns.check_special_columns(
        found.table, target=name, features=profile.schema.names(), options=options
    )
    return LearningProblem(
        found.task,
        found.classes,
        found.positive,
        profile.schema,
        plan,
        table.frame,
        table.sha256,
        name,
        training,
        holdout,
        check.sort_by_severity([*profile.findings, *weightless, *tied, *given, *found.findings]),
        class_weights,
    )


def run_data_check(table: Table, options: TrainingOptions) -> TableCheck:
    """The data check alone; TableError where a training would be refused."""
    problem = build_problem(table, options)
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


def _rows(
    tensors: dict[str, NDArray[Any]], target: NDArray[Any], weight: NDArray[np.float64] | None, tie: SplitColumn | None
) -> LabelledRows:
    count = len(target)
    numbers = tensors.get(NUMBERS, np.empty((count, 0), np.float32))
    texts = tensors.get(TEXTS, np.empty((count, 0), object))
    return LabelledRows(numbers, texts, target, np.arange(count), weight, weight, tie)


def _sides(
    rows: LabelledRows, found: labels.LabelledTable, options: TrainingOptions
) -> tuple[LabelledRows, LabelledRows, tuple[float, ...]]:
    """The rows for training and those kept aside, and how much each class counts in fits beside the rows' weights."""
    names = found.classes
    if found.task == "binary":
        names = (found.classes[1 - found.positive], found.classes[found.positive])
    training, holdout = split.split_holdout(rows.target, found.task, options.holdout, options.seed, rows.tie)
    if rows.tie is not None:
        split.check_sides(rows.target, training, holdout, names, options.folds, rows.tie)
    learnt = rows.take(training)
    if options.class_weight == "none":
        return learnt, rows.take(holdout), ()
    if found.task == "regression":
        raise TableError(f"--class-weight is for classes; the target {options.target!r} is a value")
    shares = np.bincount(learnt.target, learnt.weight, len(names))
    balance = shares.sum() / (len(shares) * shares)
    emphasis = balance[learnt.target] * (1.0 if learnt.weight is None else learnt.weight)
    return replace(learnt, emphasis=emphasis), rows.take(holdout), tuple(balance.tolist())


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
