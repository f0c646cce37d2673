"""A learning problem: the target, the columns, the training rows and the holdout of a table."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan, own_plan
from rowcast.schema.expressions import parse_definitions
from rowcast.schema.prediction import Label, Task
from rowcast.schema.schema import Column, Schema
from rowcast.schema.values import BLANKS, BadValue
from rowcast.tables.encode import encode_table
from rowcast.tables.infer import infer_schema
from rowcast.tables.table import Finding, Table
from rowcast.training import labels, split
from rowcast.training.data_check import check, special_columns
from rowcast.training.data_check.derived_columns import check_derived_columns
from rowcast.training.derivation import Derivation, derivation_of
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS, fold_count
from rowcast.training.result import ColumnCheck, DerivedCheck, TableCheck
from rowcast.training.split import SplitColumn

FEWEST_ROWS: Final = 20


@dataclass(frozen=True)
class LabelledRows:
    """Encoded rows with their target values.

    The target is 1 for the positive class and 0 for the other class (binary), a class index (multi-class) or a value
    (regression).
    """

    numbers: NDArray[np.float32]
    texts: NDArray[np.object_]
    target: NDArray[Any]
    places: NDArray[np.intp]
    """The index of each row in the problem's data frame."""
    weight: NDArray[np.float64] | None = None
    """Row weights for metrics; None if all rows have equal weight."""
    emphasis: NDArray[np.float64] | None = None
    """Weights for fitting: the row weight times the class weight."""
    split_column: SplitColumn | None = None

    @property
    def group(self) -> NDArray[Any] | None:
        """The group of each row, or None if the split is not group-based."""
        column = self.split_column
        return column.values if column is not None and column.by == "group" else None

    def take(self, rows: NDArray[np.intp]) -> LabelledRows:
        return LabelledRows(
            self.numbers[rows],
            self.texts[rows],
            self.target[rows],
            self.places[rows],
            None if self.weight is None else self.weight[rows],
            None if self.emphasis is None else self.emphasis[rows],
            None if self.split_column is None else self.split_column.take(rows),
        )

    def concat(self, other: LabelledRows) -> LabelledRows:
        """Return these rows followed by the other rows."""
        return LabelledRows(
            np.concatenate([self.numbers, other.numbers]),
            np.concatenate([self.texts, other.texts]),
            np.concatenate([self.target, other.target]),
            np.concatenate([self.places, other.places]),
            _concat(self.weight, other.weight),
            _concat(self.emphasis, other.emphasis),
            None
            if self.split_column is None or other.split_column is None
            else self.split_column.concat(other.split_column),
        )

    def __len__(self) -> int:
        return len(self.target)


def _concat(first: NDArray[np.float64] | None, second: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if first is None or second is None else np.concatenate([first, second])


@dataclass(frozen=True)
class LearningProblem:
    """The data of a training run. The holdout is used only to measure the model, unless the model is refitted."""

    task: Task
    classes: tuple[Label, ...]
    positive: int
    schema: Schema
    plan: Plan
    frame: pl.DataFrame
    sha256: str
    """The SHA-256 digest of the source table."""
    target: str
    training: LabelledRows
    holdout: LabelledRows
    findings: tuple[Finding, ...]
    folds: int
    """The number of folds in cross-validation."""
    class_weights: tuple[float, ...] = ()
    """The weight of each class during fitting, by class index; empty if classes are not weighted."""

    @property
    def is_split_by_time(self) -> bool:
        """Whether validation rows and the holdout are later than the training rows."""
        column = self.training.split_column
        return column is not None and column.by == "time"

    @property
    def width(self) -> int:
        """The number of raw scores per row: one per class if there are more than two classes; otherwise one."""
        return len(self.classes) if self.task == "multiclass" else 1

    @property
    def derivation(self) -> Derivation:
        """The computation of the derived columns."""
        return derivation_of(self.schema, self.plan)


QUOTING = frozenset(
    {
        *("almost-number", "ambiguous-dates", "constant", "far-value", "leading-zeros", "sentinel", "unknown-level"),
        *("imbalanced-classes", "merged-labels"),
    }
)
"""The codes of the findings whose messages quote values."""
HIDDEN: Final = "details are hidden, because they quote values from a sensitive column"


def build_problem(table: Table, options: TrainingOptions) -> LearningProblem:
    """Turn a table into a learning problem; raise TableError if no model can be trained on the table."""
    name = table.require(options.target.strip(BLANKS)).name
    left_out, keep = special_columns.resolve_exclude_and_keep(table, name, options)
    table, weightless = special_columns.drop_weightless_rows(table, options)
    labelled = labels.read(table, name, options)
    table, target = labelled.table.without(left_out), labelled.target
    _check_row_count(table, len(target))
    sensitive = table.resolve_columns(options.sensitive, "sensitive")
    profile = infer_schema(table, target=name, keep=keep)
    optional = special_columns.resolve_optional(labelled.table, name, options)
    schema = profile.schema.with_sensitive(sensitive).with_optional(optional)
    schema = _with_derived(schema, labelled.table, options)
    plan = own_plan(schema)
    tensors = encode_table(table, schema, plan)
    weight = special_columns.row_weights(labelled.table, options)
    rows = LabelledRows(
        tensors.get(NUMBERS, np.empty((len(target), 0), np.float32)),
        tensors.get(TEXTS, np.empty((len(target), 0), object)),
        target,
        np.arange(len(target)),
        weight,
        weight,
        special_columns.read_split_column(labelled.table, options),
    )
    training, holdout, folds, class_weights = _split(rows, labelled, options)
    examined = check.check_target(
        table.frame,
        schema=schema,
        plan=plan,
        tensors=tensors,
        target=target,
        task=labelled.task,
        classes=labelled.classes,
        positive=labelled.positive,
    )
    if options.time is not None:
        examined = [finding for finding in examined if finding.code not in check.ORDER_CODES]
    special = special_columns.check_special_columns(
        labelled.table, target=name, features=schema.names(), options=options
    )
    derived = check_derived_columns(derivation_of(schema, plan), rows.numbers)
    findings = check.sort_by_severity(
        [*profile.findings, *weightless, *special, *examined, *labelled.findings, *derived]
    )
    return LearningProblem(
        labelled.task,
        labelled.classes,
        labelled.positive,
        schema,
        plan,
        table.frame,
        table.sha256,
        name,
        training,
        holdout,
        _without_sensitive_values(findings, sensitive),
        folds,
        class_weights,
    )


def _check_row_count(table: Table, count: int) -> None:
    if count < FEWEST_ROWS:
        message = f"{table.name} has {count} rows with a target; training needs at least {FEWEST_ROWS}"
        raise TableError(message, slug="too-few-rows")


def _with_derived(schema: Schema, table: Table, options: TrainingOptions) -> Schema:
    """Return the schema with the derived columns; raise ExpressionError if a definition is invalid."""
    names = set(schema.names())
    excluded = "is excluded from the model; remove it from the option 'exclude', or add it to the option 'keep'"
    unusable = {name: excluded for name in table.frame.columns if name not in names}
    unusable[options.target.strip(BLANKS)] = "is the target; an expression cannot use it"
    return msgspec.structs.replace(schema, derived=parse_definitions(options.derive, schema, unusable))


def run_data_check(table: Table, options: TrainingOptions) -> TableCheck:
    """Check a table without training a model; raise TableError if training would reject the table."""
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
        derived=[DerivedCheck(column.name, column.text) for column in problem.schema.derived],
    )


def _split(
    rows: LabelledRows, labelled: labels.LabelledTable, options: TrainingOptions
) -> tuple[LabelledRows, LabelledRows, int, tuple[float, ...]]:
    """Return the training rows, the holdout, the number of folds and the weight of each class during fitting."""
    names = labelled.classes
    if labelled.task == "binary":
        names = (labelled.classes[1 - labelled.positive], labelled.classes[labelled.positive])
    column = rows.split_column
    training_rows, holdout_rows = split.split_holdout(rows.target, labelled.task, options.holdout, options.seed, column)
    folds = options.folds or _default_folds(rows.take(training_rows), options)
    if column is not None:
        split.check_sides(rows.target, training_rows, holdout_rows, classes=names, folds=folds, column=column)
    training, holdout = rows.take(training_rows), rows.take(holdout_rows)
    if options.class_weight == "none":
        return training, holdout, folds, ()
    if labelled.task == "regression":
        raise TableError(
            f"option 'class_weight' requires a classification target; {options.target!r} is a regression target",
            slug="target-kind",
        )
    shares = np.bincount(training.target, training.weight, len(names))
    balance = shares.sum() / (len(shares) * shares)
    emphasis = balance[training.target] * (1.0 if training.weight is None else training.weight)
    return replace(training, emphasis=emphasis), holdout, folds, tuple(balance.tolist())


def _default_folds(training: LabelledRows, options: TrainingOptions) -> int:
    """Return the default number of folds. It is at most the number of groups, but at least three."""
    folds = fold_count(PRESETS[options.preset], len(training))
    groups = training.group
    return folds if groups is None else max(3, min(folds, len(np.unique(groups))))


def client_value(column: Column, cell: Any) -> Any:
    """Return a cell as a client would send it in JSON; dates and boolean words are sent as written in the table."""
    if isinstance(cell, str):
        cell = cell.strip(BLANKS)
    try:
        value = column.parse(cell, text=True)
    except BadValue:  # the schema may forbid a missing value that the table contains
        return None
    if value is None or column.kind in ("number", "integer", "category"):
        return value
    if column.kind == "datetime":
        return cell if isinstance(cell, str) else cell.isoformat()
    return cell if isinstance(cell, str) and cell.lower() in column.words else value


def _without_sensitive_values(findings: Sequence[Finding], sensitive: Collection[str]) -> tuple[Finding, ...]:
    """Return the findings; hide the messages that quote values from sensitive columns."""
    return tuple(
        msgspec.structs.replace(finding, message=HIDDEN)
        if finding.column in sensitive and finding.code in QUOTING
        else finding
        for finding in findings
    )
