"""Read the labels of a table: correct them, infer their type, and determine the task and the positive class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.prediction import Label, Task, label_text
from rowcast.schema.values import BLANKS, MISSING_WORDS, canonical_text, number_from_text
from rowcast.tables.table import Finding, Override, Table, closest
from rowcast.training.options import TrainingOptions

MOST_INTEGER_CLASSES: Final = 20
MOST_CLASSES: Final = 256
POSITIVE_WORDS: Final = ("1", "true", "yes", "approved", "y", "t")


@dataclass(frozen=True)
class LabelledTable:
    """The rows that have a label, and their encoded target.

    The target is 1 for the positive class and 0 for the other class (binary), a class index (multi-class) or a value
    (regression).
    """

    table: Table
    task: Task
    classes: tuple[Label, ...]
    positive: int
    target: NDArray[Any]
    findings: tuple[Finding, ...]


def read(table: Table, name: str, options: TrainingOptions) -> LabelledTable:
    """Read the labels in column `name`; raise TableError if no model can be trained on them."""
    table, corrections = _corrected(table, name, options.map)
    table, labels, missing = _present(table, name)
    findings = [*corrections, *missing]
    task = options.task or _infer_task(labels)
    if task == "regression":
        return LabelledTable(table, task, (), 1, _values(labels, name), tuple(findings))
    findings += _similar_labels(labels, name)
    table, labels, single_rows = _without_single_rows(table, labels, name)
    findings += single_rows
    classes = _classes(labels, name)
    task = _checked_task(task, classes, name)
    position = {label: index for index, label in enumerate(classes)}
    target = np.array([position[label] for label in labels])
    positive = 1
    if task == "binary":
        positive, finding = _positive_class(classes, target, name, options.positive)
        findings.append(finding)
        target = (target == positive).astype(np.int64)
    return LabelledTable(table, task, classes, positive, target, tuple(findings))


def _corrected(table: Table, target: str, rules: Sequence[str]) -> tuple[Table, list[Finding]]:
    """Apply the rules `OLD=NEW` to the labels. If NEW is a missing-value marker, the rows are dropped later."""
    if not rules:
        return table, []
    series = table.frame[target]
    texts_by_value = {value: canonical_text(value) for value in series.drop_nulls().unique().to_list()}
    known = sorted(set(texts_by_value.values()))
    changes = dict(_parse_rule(rule, target, known) for rule in rules)
    findings = []
    for old, new in changes.items():
        count = sum(texts_by_value.get(value) == old for value in series.to_list())
        message = f"{count} rows have the label {old!r}"
        findings.append(Finding("replaced-labels", target, message, f"changed to {new!r}", Override("map")))
    texts = [None if value is None else texts_by_value[value] for value in series.to_list()]
    corrected = pl.Series(target, [None if text is None else changes.get(text, text) for text in texts], pl.String)
    return Table(table.frame.with_columns(corrected), table.name, table.sha256, table.findings), findings


def _parse_rule(rule: str, target: str, known: Sequence[str]) -> tuple[str, str]:
    """Split a rule into OLD and NEW at an `=` that follows a known label, because labels may contain `=`."""
    signs = [index for index, letter in enumerate(rule) if letter == "="]
    if not signs:
        raise TableError(f"option 'map': expected OLD=NEW, got {rule!r}", slug="label-rule")
    pairs = [(canonical_text(rule[:sign]), canonical_text(rule[sign + 1 :])) for sign in signs]
    matches = [pair for pair in pairs if pair[0] in known]
    if not matches:
        hint = closest(pairs[0][0] or rule, known)
        raise TableError(f"option 'map': {rule!r} matches no label in column {target!r}; {hint}", slug="unknown-label")
    return max(matches, key=lambda pair: (pair[1] in known, len(pair[0])))


def _similar_labels(labels: Sequence[Label], target: str) -> list[Finding]:
    """Report labels that differ only in case, spaces or a final period, because they are probably the same label."""
    counts = Counter(label for label in labels if isinstance(label, str))
    spellings: dict[str, list[str]] = {}
    for label, _ in counts.most_common(MOST_CLASSES):
        spellings.setdefault(" ".join(label.casefold().rstrip(". ").split()), []).append(label)
    findings = []
    for usual, *others in spellings.values():
        for other in others:
            message = f"the labels {other!r} and {usual!r} look like two spellings of one label"
            override = Override("map", f"{other}={usual}")
            findings.append(Finding("similar-labels", target, message, "treated as two classes", override))
    return findings


def _present(table: Table, target: str) -> tuple[Table, list[Label], list[Finding]]:
    """Return the rows that have a label, and the labels as values of their inferred type."""
    series = table.frame[target]
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        present = series.is_not_null() & ~series.is_in(list(MISSING_WORDS))
    else:
        present = series.is_not_null()
    lost = len(series) - int(present.sum())
    if lost == len(series):
        raise TableError(f"target {target!r} has no value in any row", slug="empty-target")
    findings = []
    if lost:
        message = f"the target has no value in {lost} of {len(series)} rows"
        findings.append(Finding("missing-target", target, message, "rows dropped"))
        table = _filtered(table, present)
    return table, _typed(series.filter(present), target), findings


def _filtered(table: Table, mask: pl.Series) -> Table:
    return Table(table.frame.filter(mask), table.name, table.sha256, table.findings)


def _typed(series: pl.Series, target: str) -> list[Label]:
    if isinstance(series.dtype, pl.Datetime):
        raise TableError(
            f"target {target!r} contains dates; the target must contain numbers or classes", slug="target-kind"
        )
    if series.dtype == pl.Boolean or series.dtype.is_integer():
        return series.to_list()
    if series.dtype.is_float():
        return _integers_if_whole(series.to_list())
    texts = series.to_list()
    distinct = set(texts)
    if {text.lower() for text in distinct} == {"true", "false"}:
        return [text.lower() == "true" for text in texts]
    numbers = {text: number_from_text(text) for text in distinct}
    zero_padded = any(len(text) > 1 and text.startswith("0") and text.isdigit() for text in distinct)
    if zero_padded or any(number is None for number in numbers.values()):
        canonical = {text: canonical_text(text) for text in distinct}
        return [canonical[text] for text in texts]
    return _integers_if_whole([numbers[text] or 0.0 for text in texts])


def _integers_if_whole(values: list[float]) -> list[Label]:
    """Return integers if every value is a whole number, so that 0.0 and 1.0 become the labels 0 and 1."""
    if all(value.is_integer() for value in values):
        return [int(value) for value in values]
    return list(values)


def _infer_task(labels: list[Label]) -> Task:
    """Infer the task: classification for strings, booleans or a few distinct integers; regression for other numbers."""
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
        raise TableError(f"target {target!r} contains text; regression requires numbers", slug="target-kind")
    values = np.array(labels, np.float64)
    if not np.isfinite(values).all() or np.abs(values).max() > 1e30:
        raise TableError(f"target {target!r} contains infinite values or values beyond 1e30", slug="target-range")
    if values.min() == values.max():
        raise TableError(
            f"target {target!r} is {labels[0]} in every row; training needs at least two distinct values",
            slug="constant-target",
        )
    return values


def _without_single_rows(table: Table, labels: list[Label], target: str) -> tuple[Table, list[Label], list[Finding]]:
    """Drop classes with a single row, because such a class cannot be in both the training rows and the holdout."""
    singles = [label for label, count in Counter(labels).items() if count == 1]
    if not singles or len(singles) == len(set(labels)):
        return table, labels, []
    shown = ", ".join(repr(label) for label in singles[:5])
    if len(singles) == len(set(labels)) - 1:
        raise TableError(
            f"target {target!r} has only one class with more than one row; classes with a single row: {shown}",
            slug="single-row-classes",
        )
    message = f"classes with only one row: {shown} ({len(singles)} in total)"
    mask = [label not in set(singles) for label in labels]
    remaining = [label for label, has_more in zip(labels, mask, strict=True) if has_more]
    return _filtered(table, pl.Series(mask)), remaining, [Finding("single-row-class", "", message, "rows dropped")]


def _classes(labels: list[Label], target: str) -> tuple[Label, ...]:
    distinct = set(labels)
    if len(distinct) < 2:
        raise TableError(
            f"target {target!r} is {labels[0]!r} in every row; training needs at least two classes",
            slug="constant-target",
        )
    if len(distinct) > MOST_CLASSES or len(distinct) > len(labels) / 2:
        texts = [label for label in distinct if isinstance(label, str) and number_from_text(label) is None]
        if len(texts) * 10 <= len(distinct):
            shown = ", ".join(map(repr, sorted(texts)[:3]))
            raise TableError(
                f"target {target!r} contains numbers but also {shown}; correct or clear these cells",
                slug="target-kind",
            )
        counts = f"{len(distinct)} distinct values in {len(labels)} rows"
        raise TableError(f"target {target!r} has too many classes: {counts}", slug="too-many-classes")
    return tuple(sorted(distinct, key=lambda label: (isinstance(label, str), label)))


def _checked_task(task: Task, classes: tuple[Label, ...], target: str) -> Task:
    if task == "binary" and len(classes) != 2:
        raise TableError(
            f"target {target!r} has {len(classes)} classes; the task 'binary' needs exactly two", slug="class-count"
        )
    return "binary" if len(classes) == 2 else task


def _positive_class(
    classes: tuple[Label, ...], target: NDArray[Any], column: str, label: str | None
) -> tuple[int, Finding]:
    """Return the positive class: the option's label, a label such as `yes`, or the rarer label, in that order."""
    names = [label_text(each) for each in classes]
    if label is not None:
        name = canonical_text(label)
        matches = [index for index, each in enumerate(names) if each == name]
        matches = matches or [index for index, each in enumerate(names) if each.casefold() == name.casefold()]
        if not matches:
            raise TableError(
                f"option 'positive': {label!r} is not a class of {column!r}; classes: {', '.join(names)}",
                slug="unknown-class",
            )
        return matches[0], _positive_finding(column, names[matches[0]], "set by the option")
    for word in POSITIVE_WORDS:
        if word in [name.casefold() for name in names]:
            index = [name.casefold() for name in names].index(word)
            return index, _positive_finding(column, names[index], "recognized by its name")
    index = int(np.argmin(np.bincount(target, minlength=2)))
    return index, _positive_finding(column, names[index], "the rarer class")


def _positive_finding(target: str, name: str, reason: str) -> Finding:
    message = f"the positive class is {name!r} ({reason})"
    return Finding(
        "positive-class", target, message, "the score is the probability of this class", Override("positive")
    )
