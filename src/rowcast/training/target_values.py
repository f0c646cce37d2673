"""Read the cells of the target as if it were a feature column, and infer the task from the values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.prediction import Label, Task
from rowcast.schema.schema import Column
from rowcast.schema.values import NUMBER_FORMS, TRUE_WORDS, canonical_text, number_from_text
from rowcast.tables.column_checks import ODD_SHARE, SHOWN
from rowcast.tables.infer import POINT_FORMS, identifier_evidence, infer_column, number_notations
from rowcast.tables.table import Finding, Override

MOST_INTEGER_CLASSES: Final = 20
FEWEST_ROWS_PER_CLASS: Final = 5
"""Whole numbers are classes if there are at most `MOST_INTEGER_CLASSES` distinct values, with an average of at least
this many rows per value.
"""
MOST_CLASSES: Final = 256
LIMIT: Final = 1e30
SET_TASK: Final = "set the option 'task' to"
READINGS: Final = {
    "thousands": "'1,250.00' is 1250",
    "currency": "'$1,250.00' is 1250",
    "percent": "'8.9%' is 8.9",
    "plus": "'3+' is 3",
    "magnitude": "'12k' is 12000",
    "parentheses": "'(1,250)' is -1250",
    "comma": "'1.250,00' is 1250",
    "points": "'1.250' is 1250",
}
"""How each notation is read. The keys are those of `NUMBER_FORMS`."""
_clock_time = re.compile(r"\d{1,2}:\d{2}(:\d{2})?", re.ASCII).fullmatch
_measure = re.compile(r"[+-]?[0-9][0-9.,]*\s*([^\W\d][\w/²³%°]*)").fullmatch


@dataclass(frozen=True)
class TargetValues:
    """The cells of a target, their labels, and the column that describes them."""

    name: str
    series: pl.Series
    """The cells, trimmed and without missing values."""
    rows: NDArray[np.intp]
    """The index of each cell's row in the table."""
    column: Column
    labels: list[Label]

    @property
    def is_numeric(self) -> bool:
        return self.column.kind in ("integer", "number")


def read_values(series: pl.Series, rows: NDArray[np.intp]) -> TargetValues:
    """Read the cells of a target as if it were a feature column; raise TableError if a number is too large."""
    try:
        column = infer_column(series)
    except TableError as error:
        raise _range_error(series.name) if error.slug == "too-large" else error from None
    return TargetValues(series.name, series, rows, column, _labels(series, column))


def _labels(series: pl.Series, column: Column) -> list[Label]:
    """Return the cells as labels.

    Whole numbers in plain notation and the words `true` and `false` keep their type; all other values remain as
    written.
    """
    cells: list[Any] = series.to_list()
    if series.dtype == pl.Boolean or series.dtype.is_integer():
        return cells
    if series.dtype.is_float():
        return [int(cell) for cell in cells] if all(cell.is_integer() for cell in cells) else cells
    if series.dtype != pl.String:
        return [cell.isoformat() for cell in cells]
    distinct = set(cells)
    if {text.lower() for text in distinct} == {"true", "false"}:
        return [text.lower() == "true" for text in cells]
    padded = any(len(text) > 1 and text.startswith("0") and text.isdigit() for text in distinct)
    is_plain = column.kind in ("integer", "number") and not column.forms and not padded
    numbers = {text: number_from_text(text) for text in distinct} if is_plain else {}
    if numbers and all(number is not None and number.is_integer() for number in numbers.values()):
        return [int(numbers[text] or 0) for text in cells]
    canonical = {text: canonical_text(text) for text in distinct}
    return [canonical[text] for text in cells]


def infer_task(values: TargetValues) -> Task:
    """Infer the task; raise TableError if the values are neither classes nor quantities.

    Strings and booleans are classes. Numbers are classes if there are only two distinct values, or if there are a few
    distinct whole numbers and each occurs often. Otherwise, they are quantities, which require regression.
    """
    distinct = len(set(values.labels))
    if values.column.kind == "datetime":
        raise TableError(
            f"target {values.name!r} contains dates; convert them into numbers, such as days until an event, or "
            f"{SET_TASK} 'multiclass' to predict each date as a class",
            slug="target-kind",
        )
    if values.is_numeric and not _are_classes(values):
        _refuse_identifier(values)
        return "regression"
    _refuse_almost_numbers(values)
    return "binary" if distinct == 2 else "multiclass"


def _are_classes(values: TargetValues) -> bool:
    distinct = len(set(values.labels))
    if distinct <= 2:
        return True
    return distinct <= MOST_INTEGER_CLASSES and _are_whole(values) and _repeat(values, distinct)


def _are_whole(values: TargetValues) -> bool:
    return values.column.kind == "integer" or bool(np.all(_parse(values) % 1 == 0))


def _repeat(values: TargetValues, distinct: int) -> bool:
    return len(values.labels) >= FEWEST_ROWS_PER_CLASS * distinct


def _refuse_identifier(values: TargetValues) -> None:
    evidence = identifier_evidence(values.series, values.column)
    if evidence is not None and evidence.is_certain:
        raise TableError(
            f"target {values.name!r} {evidence.message}, so it is probably an identifier; choose the column to "
            f"predict, or {SET_TASK} 'regression' if the numbers are measurements",
            slug="target-identifier",
        )


def _refuse_almost_numbers(values: TargetValues) -> None:
    """Raise TableError if a column contains many different numbers and a few cells that are not numbers."""
    if values.column.kind != "category" or values.series.dtype != pl.String:
        return
    counts = Counter(values.series.to_list())
    odd = [text for text in counts if not _is_number(text)]
    many = len(counts) - len(odd) > MOST_INTEGER_CLASSES
    if not odd or not many or sum(counts[text] for text in odd) > ODD_SHARE * len(values.labels):
        return
    shown = ", ".join(repr(text[:SHOWN]) for text in odd[:3])
    raise TableError(
        f"target {values.name!r} contains numbers but also {shown}; correct or clear these cells, or {SET_TASK} "
        "'multiclass' to predict classes",
        slug="target-kind",
    )


def _is_number(text: str) -> bool:
    return number_from_text(text, tuple(NUMBER_FORMS)) is not None


def numbers(values: TargetValues, *, is_sensitive: bool) -> NDArray[np.float64]:
    """Return the values of a regression target; raise TableError if a cell is not a number or all values are equal."""
    if values.series.dtype == pl.Boolean or set(values.labels) == {True, False}:
        return np.array(values.labels, np.float64)
    if values.column.kind in ("boolean", "datetime") or (not values.is_numeric and _notations(values) is None):
        raise _not_a_number(values, is_sensitive)
    amounts = _parse(values)
    if not np.isfinite(amounts).all() or np.abs(amounts).max() > LIMIT:
        raise _range_error(values.name)
    if amounts.min() == amounts.max():
        raise TableError(
            f"target {values.name!r} is {values.series[0]} in every row; training needs at least two distinct values",
            slug="constant-target",
        )
    return amounts


def _notations(values: TargetValues) -> tuple[str, ...] | None:
    """Return the notations of the cells, even if they look like codes; return None if a cell is not a number."""
    if values.series.dtype != pl.String:
        return ()
    return values.column.forms or number_notations(values.series.unique().to_list())


def _parse(values: TargetValues) -> NDArray[np.float64]:
    if values.series.dtype != pl.String:
        return values.series.cast(pl.Float64).to_numpy()
    forms = _notations(values) or ()
    amounts = {text: number_from_text(text, forms) for text in values.series.unique().to_list()}
    return np.array([amounts[text] for text in values.series.to_list()], np.float64)


def _not_a_number(values: TargetValues, is_sensitive: bool) -> TableError:
    """Return the error for a regression target with a cell that is not a number."""
    forms = POINT_FORMS
    for row, cell in zip(values.rows.tolist(), values.series.to_list(), strict=True):
        if not isinstance(cell, str) or number_from_text(cell, forms) is None:
            shown = "" if is_sensitive else f", got {str(cell)[:SHOWN]!r}"
            return TableError(
                f"row {row}, target {values.name!r}: expected a number{shown}; the task 'regression' needs a number "
                "in every row",
                slug="target-kind",
            )
    raise AssertionError("every cell is a number")


def _range_error(name: str) -> TableError:
    return TableError(f"target {name!r} contains infinite values or values beyond 1e30", slug="target-range")


def refuse_too_many_classes(values: TargetValues, labels: Sequence[Label]) -> None:
    """Raise TableError if there are too many classes to learn. The error gives advice that suits the values."""
    distinct = set(labels)
    if len(distinct) <= MOST_CLASSES and len(distinct) <= len(labels) / 2:
        return
    texts = [label for label in distinct if isinstance(label, str) and not _is_number(label)]
    if len(texts) * 10 <= len(distinct):
        shown = ", ".join(map(repr, sorted(texts)[:3]))
        message = f"contains numbers but also {shown}" if texts else f"contains {len(distinct)} different numbers"
        advice = "correct or clear these cells" if texts else f"{SET_TASK} 'regression'"
        raise TableError(f"target {values.name!r} {message}; {advice}", slug="target-kind")
    units = {match[1] for text in texts if (match := _measure(text)) is not None}
    if all(map(_clock_time, texts)):
        advice = "convert the times of day into numbers, such as minutes"
    elif len(units) == 1 and all(map(_measure, texts)):
        advice = f"remove {units.pop()!r} from the cells to predict numbers"
    elif len(distinct) > 0.9 * len(labels):
        advice = "nearly every row has a different value, as in an identifier or free text; choose another column"
    else:
        advice = "choose another column, or merge labels with the option 'map'"
    counts = f"{len(distinct)} distinct values in {len(labels)} rows"
    raise TableError(f"target {values.name!r} has too many classes: {counts}; {advice}", slug="too-many-classes")


def task_findings(values: TargetValues, task: Task, *, is_inferred: bool) -> list[Finding]:
    """Report how numbers are read and, unless the user set the task, whether classes or amounts are predicted."""
    if not values.is_numeric:
        return []
    findings, name = [], values.name
    distinct = len(set(values.labels))
    if task == "regression":
        findings += _notation_findings(values)
        if is_inferred:
            classes = distinct <= MOST_CLASSES and _repeat(values, distinct)
            override = Override("task", "multiclass") if classes else None
            message = f"contains {distinct} different numbers"
            findings.append(Finding("numeric-target", name, message, "predicted as a number (regression)", override))
    elif is_inferred and distinct > 2:
        message = f"contains {distinct} different whole numbers"
        action, override = "predicted as classes, without an order", Override("task", "regression")
        findings.append(Finding("numeric-classes", name, message, action, override))
    return findings


def _notation_findings(values: TargetValues) -> list[Finding]:
    forms = values.column.forms
    if not forms:
        return []
    message = f"contains numbers in these notations: {', '.join(forms)}"
    action = f"predicted as plain numbers: {', '.join(READINGS[form] for form in forms)}"
    findings = [Finding("number-formats", values.name, message, action)]
    percents = int(values.series.str.ends_with("%").sum())
    if 0 < percents < len(values.labels):
        message = f"{percents} of {len(values.labels)} values have a percent sign"
        action = "read without the sign, like all other values; correct the table if the other values are shares"
        findings.append(Finding("mixed-percents", values.name, message, action))
    return findings


def merge_spellings(values: TargetValues, *, is_forced: bool) -> tuple[list[Label], list[Finding]]:
    """Return the labels, with one label for all spellings of `yes` and one for all spellings of `no`.

    The labels remain as written if there are only two, or if the option `task` forces several classes.
    """
    counts = Counter(label for label in values.labels if isinstance(label, str))
    if values.column.kind != "boolean" or len(counts) <= 2 or is_forced:
        return values.labels, []
    usual: dict[bool, str] = {}
    merged: dict[Label, Label] = {}
    for text, _ in counts.most_common():
        merged[text] = usual.setdefault(text.lower() in TRUE_WORDS, text)
    findings = []
    for each in usual.values():
        others = [text for text in counts if merged[text] == each and text != each]
        if others:
            message = f"the labels {', '.join(map(repr, [each, *others]))} have the same meaning"
            override = Override("task", "multiclass")
            findings.append(Finding("merged-labels", values.name, message, f"treated as {each!r}", override))
    return [merged[label] for label in values.labels], findings
