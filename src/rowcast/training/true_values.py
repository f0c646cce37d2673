"""Read the true labels or values of a table for a model that already exists.

In training, the table determines the labels. Here, the model determines the labels, and any other label is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import list_names
from rowcast.schema.values import (
    BLANKS,
    FALSE_WORDS,
    MISSING_WORDS,
    PLAIN_NUMBER,
    TRUE_WORDS,
    canonical_text,
    number_from_text,
)
from rowcast.tables.infer import infer_schema
from rowcast.tables.table import Table
from rowcast.training.labels import parse_rule

MAX_SHOWN: Final = 5
"""The maximum number of labels that an error lists."""
MAX_LINES: Final = 3
"""The maximum number of row numbers that an error lists for each label."""


@dataclass(frozen=True)
class RoleColumn:
    """A column with a role, such as the target or the weight of the rows."""

    role: str
    cells: pl.Series
    """The trimmed cells; missing values are null."""
    lines: NDArray[np.int64]
    """The line of each row, counted from 0 below the header."""

    @property
    def name(self) -> str:
        """The name of the column."""
        return self.cells.name

    @property
    def present(self) -> NDArray[np.bool_]:
        """A mask of the rows that have a value."""
        return self.cells.is_not_null().to_numpy()

    def filter(self, rows: NDArray[np.bool_]) -> RoleColumn:
        """Return the column with only these rows."""
        return RoleColumn(self.role, self.cells.filter(pl.Series(rows)), self.lines[rows])

    def error(self, row: int, message: str, slug: str) -> TableError:
        """Return an error that names a row and this column."""
        return TableError(f"row {self.lines[row]}, {self.role} {self.name!r}: {message}", slug=slug)


def role_column(role: str, series: pl.Series, lines: NDArray[np.int64]) -> RoleColumn:
    """Return a column with trimmed cells and with null in place of every marker for missing values."""
    if series.dtype == pl.String:
        trimmed = series.str.strip_chars(BLANKS)
        series = trimmed.set(trimmed.is_in(list(MISSING_WORDS)), None)
    elif series.dtype.is_float():
        series = series.fill_nan(None)
    return RoleColumn(role, series, lines)


def rename_labels(column: RoleColumn, rules: Sequence[str], trained: Sequence[str] = ()) -> RoleColumn:
    """Apply rules of the form `OLD=NEW`; if NEW is empty or a marker for missing values, the rows have no label.

    `trained` contains the rules of the training run. These rules apply first, and a rule whose label does not occur is
    ignored.
    """
    if not rules and not trained:
        return column
    labels = {value: canonical_text(value) for value in column.cells.drop_nulls().unique().to_list()}
    for group, must_apply in ((trained, False), (rules, True)):
        known = sorted(set(labels.values()))
        used = [rule for rule in group if must_apply or _applies(rule, column.name, known)]
        changes = dict(parse_rule(rule, column.name, known) for rule in used)
        labels = {value: changes.get(label, label) for value, label in labels.items()}
    cells = [None if value is None else labels[value] for value in column.cells.to_list()]
    return role_column(column.role, pl.Series(column.name, cells, pl.String), column.lines)


def _applies(rule: str, target: str, known: Sequence[str]) -> bool:
    try:
        parse_rule(rule, target, known)
    except TableError:
        return False
    return True


def read_target(column: RoleColumn, decision: Decision, *, is_sensitive: bool = False) -> NDArray[Any]:
    """Return the target in the form of `LabelledRows.target`; every row must have a value.

    Raise TableError if a label is not among the model's labels, or if a value of a regression target is not a number.
    Errors about a sensitive target quote no labels.
    """
    if decision.task == "regression":
        return read_numbers(column)
    indices = _class_indices(column, decision, is_sensitive=is_sensitive)
    return (indices == decision.positive).astype(np.int64) if decision.task == "binary" else indices


def _class_indices(column: RoleColumn, decision: Decision, *, is_sensitive: bool) -> NDArray[np.int64]:
    find = _class_finder(decision)
    index_of = {value: find(value) for value in column.cells.unique().to_list()}
    indices = np.array([index_of[value] for value in column.cells.to_list()], np.int64)
    if (indices < 0).any() and is_sensitive:
        places = _describe_lines(column.lines[indices < 0].tolist())
        message = f"column {column.name!r} contains unknown labels in {places}; correct these cells"
        raise TableError(message, slug="unknown-label")
    if (indices < 0).any():
        raise _unknown_labels(column, indices < 0, decision)
    return indices


def _class_finder(decision: Decision) -> Callable[[Any], int]:
    """Return a function that maps a cell to the index of its class, or to -1.

    A number matches a class with the same value, and a word for true or false matches a class with the same meaning.
    """
    names = decision.names()
    by_name = {name: index for index, name in enumerate(names)}
    classes = enumerate(decision.classes)
    by_number = {
        float(label): index for index, label in classes if isinstance(label, int | float) and type(label) is not bool
    }
    by_truth = {_truth(name): index for name, index in by_name.items()}
    are_words = len(by_truth) == len(names) and None not in by_truth

    def find(cell: Any) -> int:
        text = canonical_text(cell)
        if text in by_name:
            return by_name[text]
        number = number_from_text(text)
        if number in by_number:
            return by_number[number]
        return by_truth.get(_truth(text), -1) if are_words else -1

    return find


def _truth(text: str) -> bool | None:
    lowered = text.lower()
    return True if lowered in TRUE_WORDS else False if lowered in FALSE_WORDS else None


def _unknown_labels(column: RoleColumn, unknown: NDArray[np.bool_], decision: Decision) -> TableError:
    bad = column.filter(unknown)
    lines: dict[str, list[int]] = {}
    for cell, line in zip(bad.cells.to_list(), bad.lines.tolist(), strict=True):
        lines.setdefault(canonical_text(cell), []).append(line)
    shown = [f"{label!r} ({_describe_lines(numbers)})" for label, numbers in list(lines.items())[:MAX_SHOWN]]
    more = [f"{len(lines) - MAX_SHOWN} other labels"] if len(lines) > MAX_SHOWN else []
    first, names = next(iter(lines)), decision.names()
    similar = difflib.get_close_matches(first, names, 1)
    example = f"{first}={similar[0] if similar else 'LABEL'}"
    return TableError(
        f"column {column.name!r} contains unknown labels: {', '.join([*shown, *more])}; the "
        f"model's labels are {list_names(names)}; use the option 'map' to rename a label ({example!r}) or to leave "
        f"out its rows ({first + '='!r})",
        slug="unknown-label",
    )


def _describe_lines(lines: Sequence[int]) -> str:
    shown = ", ".join(map(str, lines[:MAX_LINES]))
    more = f" and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
    return f"{'row' if len(lines) == 1 else 'rows'} {shown}{more}"


def read_numbers(column: RoleColumn) -> NDArray[np.float64]:
    """Return the cells as numbers; raise TableError if a cell is missing, not a number or not finite."""
    missing = np.flatnonzero(~column.present)
    if len(missing):
        raise column.error(int(missing[0]), "the value is missing", "missing-values")
    values = _numbers(column)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise column.error(int(wrong[0]), "expected a number", "not-a-number")
    return values


def _numbers(column: RoleColumn) -> NDArray[np.float64]:
    """Return the cells as numbers, with NaN for cells that are not numbers."""
    cells = column.cells
    if cells.dtype != pl.String:
        is_number = cells.dtype.is_numeric() or cells.dtype == pl.Boolean
        return cells.cast(pl.Float64).to_numpy() if is_number else np.full(len(cells), np.nan)
    if cells.str.contains(PLAIN_NUMBER).all():
        return cells.cast(pl.Float64).to_numpy()
    table = Table(cells.alias("value").to_frame(), column.name, "")
    inferred = infer_schema(table, keep=["value"]).schema.columns[0]
    forms = inferred.forms if inferred.kind in ("integer", "number") else ()
    values = {cell: number_from_text(cell, forms) for cell in cells.unique().to_list()}
    return np.array([values[cell] for cell in cells.to_list()], np.float64)


def read_weights(column: RoleColumn) -> NDArray[np.float64]:
    """Return the weights of the rows, scaled to a mean of 1; raise TableError if a weight is not valid."""
    values = read_numbers(column)
    negative = np.flatnonzero(values < 0)
    if len(negative):
        raise column.error(int(negative[0]), "weights must be 0 or more", "negative-weight")
    if not values.any():
        raise TableError(
            f"column {column.name!r} contains only zeros; at least one weight must be positive", slug="zero-weights"
        )
    return np.asarray(values / values.mean())


def read_groups(column: RoleColumn) -> NDArray[np.intp]:
    """Return the index of each row's group; raise TableError if a row has no group."""
    missing = np.flatnonzero(~column.present)
    if len(missing):
        raise column.error(int(missing[0]), "the value is missing", "missing-values")
    return column.cells.rank("dense").to_numpy().astype(np.intp)
