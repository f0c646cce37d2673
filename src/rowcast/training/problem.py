"""The learning problem in a table: what is predicted, from which rows, and which rows are kept aside."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast import tables
from rowcast.domain.encode import NUMBERS, TEXTS, Plan, own_plan
from rowcast.domain.prediction import Label, Task, label_text
from rowcast.domain.schema import Column, Schema
from rowcast.domain.values import BLANKS, MISSING_WORDS, BadValue, canonical_text, number_from_text
from rowcast.errors import TableError
from rowcast.tables import Finding, Table
from rowcast.training.story import Options

MOST_INTEGER_CLASSES: Final = 20
MOST_CLASSES: Final = 256
FEWEST_ROWS: Final = 20
POSITIVE_WORDS: Final = ("1", "true", "yes", "approved", "y", "t")


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
    table, labels, findings = _labelled(table, name)
    task = options.task or _task(labels)
    classes: tuple[Label, ...] = ()
    positive = 1
    if task == "regression":
        target = _values(labels, name)
    else:
        table, labels, lonely = _without_lonely(table, labels)
        findings = [*findings, *lonely]
        classes = _classes(labels, name)
        task = _checked_task(task, classes, name)
        position = {label: index for index, label in enumerate(classes)}
        target = np.array([position[label] for label in labels])
        if task == "binary":
            positive, said = _positive(classes, target, name, options.positive)
            findings = [*findings, said]
            target = (target == positive).astype(np.int64)
    if len(target) < FEWEST_ROWS:
        raise TableError(f"{table.name} has {len(target)} rows with a target; training needs at least {FEWEST_ROWS}")
    profile = tables.infer(table, target=name)
    rows = _rows(table, profile.schema, target)
    training, holdout = _split(target, task, options)
    return Problem(
        task,
        classes,
        positive,
        profile.schema,
        own_plan(profile.schema),
        table.frame,
        name,
        rows.take(training),
        rows.take(holdout),
        (*profile.findings, *findings),
    )


def _labelled(table: Table, target: str) -> tuple[Table, list[Label], list[Finding]]:
    """The rows that have a target, and their labels typed as in the table."""
    series = table.frame[target]
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        present = series.is_not_null() & ~series.is_in(list(MISSING_WORDS))
    else:
        present = series.is_not_null()
    lost = len(series) - int(present.sum())
    if lost == len(series):
        raise TableError(f"the target {target!r} is empty in every row")
    findings = []
    if lost:
        message = f"{lost} of {len(series)} rows have no target"
        findings.append(Finding("missing-target", target, message, "those rows were left out"))
        table = _kept(table, present)
    return table, _typed(series.filter(present), target), findings


def _kept(table: Table, rows: pl.Series) -> Table:
    return Table(table.frame.filter(rows), table.name, table.sha256, table.findings)


def _typed(series: pl.Series, target: str) -> list[Label]:
    if isinstance(series.dtype, pl.Datetime):
        raise TableError(f"the target {target!r} is a date; predict a number or a class")
    if series.dtype == pl.Boolean or series.dtype.is_integer():
        return series.to_list()
    if series.dtype.is_float():
        return _whole_if_all(series.to_list())
    texts = series.to_list()
    distinct = set(texts)
    if {text.lower() for text in distinct} == {"true", "false"}:
        return [text.lower() == "true" for text in texts]
    numbers = {text: number_from_text(text) for text in distinct}
    padded = any(len(text) > 1 and text.startswith("0") and text.isdigit() for text in distinct)
    if padded or any(number is None for number in numbers.values()):
        spelled = {text: canonical_text(text) for text in distinct}
        return [spelled[text] for text in texts]
    return _whole_if_all([numbers[text] or 0.0 for text in texts])


def _whole_if_all(values: list[float]) -> list[Label]:
    """Integers when every value is whole: 0.0 and 1.0 are the labels 0 and 1."""
    if all(value.is_integer() for value in values):
        return [int(value) for value in values]
    return list(values)


def _task(labels: list[Label]) -> Task:
    """Text, booleans and few distinct whole numbers are classes; other numbers are values."""
    distinct = set(labels)
    if any(isinstance(label, str | bool) for label in distinct):
        return "binary" if len(distinct) == 2 else "multiclass"
    whole = all(isinstance(label, int) for label in distinct)
    few = len(distinct) <= MOST_INTEGER_CLASSES and len(labels) >= 5 * len(distinct)
    if whole and (few or len(distinct) <= 2):
        return "binary" if len(distinct) == 2 else "multiclass"
    return "regression"


def _values(labels: list[Label], target: str) -> NDArray[np.float64]:
    if any(isinstance(label, str) for label in labels):
        raise TableError(f"the target {target!r} holds text; regression needs numbers")
    values = np.array(labels, np.float64)
    if not np.isfinite(values).all() or np.abs(values).max() > 1e30:
        raise TableError(f"the target {target!r} holds infinite or absurdly large numbers")
    if values.min() == values.max():
        raise TableError(f"the target {target!r} is {labels[0]} in every row; there is nothing to learn")
    return values


def _without_lonely(table: Table, labels: list[Label]) -> tuple[Table, list[Label], list[Finding]]:
    """Without classes of one row: such a class cannot be learnt and measured."""
    lonely = [label for label, count in Counter(labels).items() if count == 1]
    if not lonely or len(lonely) == len(set(labels)):
        return table, labels, []
    shown = ", ".join(repr(label) for label in lonely[:5])
    message = f"{len(lonely)} classes have one row only ({shown})"
    kept = [label not in set(lonely) for label in labels]
    remaining = [label for label, keep in zip(labels, kept, strict=True) if keep]
    return _kept(table, pl.Series(kept)), remaining, [Finding("lonely-class", "", message, "those rows were left out")]


def _classes(labels: list[Label], target: str) -> tuple[Label, ...]:
    distinct = set(labels)
    if len(distinct) < 2:
        raise TableError(f"the target {target!r} is {labels[0]!r} in every row; there is nothing to learn")
    if len(distinct) > MOST_CLASSES or len(distinct) > len(labels) / 2:
        found = f"{len(distinct)} different values in {len(labels)} rows"
        raise TableError(f"the target {target!r} has {found}; that is too many classes")
    return tuple(sorted(distinct, key=lambda label: (isinstance(label, str), label)))


def _checked_task(task: Task, classes: tuple[Label, ...], target: str) -> Task:
    if task == "binary" and len(classes) != 2:
        raise TableError(f"the target {target!r} has {len(classes)} classes; a binary model needs two")
    return "binary" if len(classes) == 2 else task


def _positive(classes: tuple[Label, ...], target: NDArray[Any], column: str, asked: str | None) -> tuple[int, Finding]:
    """The class whose probability is the score: as asked, else by its name, else the rarer one."""
    names = [label_text(label) for label in classes]
    if asked is not None:
        wanted = canonical_text(asked)
        matches = [index for index, name in enumerate(names) if name == wanted]
        matches = matches or [index for index, name in enumerate(names) if name.casefold() == wanted.casefold()]
        if not matches:
            raise TableError(f"{asked!r} is not a class of {column!r}; it has {', '.join(names)}")
        return matches[0], _positive_finding(column, names[matches[0]], "as asked")
    for word in POSITIVE_WORDS:
        if word in [name.casefold() for name in names]:
            index = [name.casefold() for name in names].index(word)
            return index, _positive_finding(column, names[index], "by its name")
    index = int(np.argmin(np.bincount(target, minlength=2)))
    return index, _positive_finding(column, names[index], "the rarer class")


def _positive_finding(target: str, name: str, why: str) -> Finding:
    message = f"the positive class is {name!r}, {why}"
    return Finding("positive-class", target, message, "score is its probability", "--positive")


def _rows(table: Table, schema: Schema, target: NDArray[Any]) -> Rows:
    tensors = tables.encode(table, schema, own_plan(schema))
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
