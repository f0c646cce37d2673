"""Read the labels of a table: correct them, and determine the task, the classes and the positive class."""

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
from rowcast.schema.values import BLANKS, MISSING_WORDS, canonical_text
from rowcast.tables.table import Finding, Override, Table, closest
from rowcast.training import target_values
from rowcast.training.options import TrainingOptions
from rowcast.training.target_values import MOST_CLASSES, TargetValues

POSITIVE_WORDS: Final = ("1", "true", "yes", "approved", "y", "t")
FOREIGN_WORDS: Final = (
    *(("ja", "nein"), ("j", "n"), ("wahr", "falsch")),
    *(("oui", "non"), ("o", "n"), ("vrai", "faux")),
    *(("sí", "no"), ("si", "no"), ("s", "n"), ("verdadero", "falso")),
    *(("sì", "no"), ("vero", "falso"), ("sim", "não")),
)
"""The words for yes and no in German, French, Spanish, Italian and Portuguese. They are recognized only as a pair."""
DOMINANT_SHARE: Final = 0.95
"""The classes are reported as imbalanced if at least this share of the rows belongs to one class."""


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
    table, values, missing = _present(table, name)
    findings = [*corrections, *missing]
    is_inferred = options.task is None
    task = options.task or target_values.infer_task(values)
    findings += target_values.task_findings(values, task, is_inferred=is_inferred)
    if task == "regression":
        is_sensitive = name in table.resolve_columns(options.sensitive, "sensitive")
        amounts = target_values.numbers(values, is_sensitive=is_sensitive)
        return LabelledTable(table, task, (), 1, amounts, tuple(findings))
    labels, merged = target_values.merge_spellings(values, is_forced=options.task == "multiclass")
    findings += [*merged, *_similar_labels(labels, name)]
    table, labels, single_rows = _without_single_rows(table, labels, name)
    findings += single_rows
    classes = _classes(values, labels)
    task = _checked_task(task, classes, name)
    position = {label: index for index, label in enumerate(classes)}
    target = np.array([position[label] for label in labels])
    findings += _imbalance(classes, target, name)
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
    changes = dict(parse_rule(rule, target, known) for rule in rules)
    findings = []
    for old, new in changes.items():
        count = sum(texts_by_value.get(value) == old for value in series.to_list())
        message = f"{count} rows have the label {old!r}"
        findings.append(Finding("replaced-labels", target, message, f"changed to {new!r}", Override("map")))
    texts = [None if value is None else texts_by_value[value] for value in series.to_list()]
    corrected = pl.Series(target, [None if text is None else changes.get(text, text) for text in texts], pl.String)
    return Table(table.frame.with_columns(corrected), table.name, table.sha256, table.findings), findings


def parse_rule(rule: str, target: str, known: Sequence[str]) -> tuple[str, str]:
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


def _present(table: Table, target: str) -> tuple[Table, TargetValues, list[Finding]]:
    """Return the rows that have a label, the labels of these rows, and the findings."""
    series = table.frame[target]
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        present = series.is_not_null() & ~series.is_in(list(MISSING_WORDS))
    else:
        present = series.is_not_null()
    lost = len(series) - int(present.sum())
    if lost == len(series):
        raise TableError(
            f"target {target!r} has no value in any row; choose another column, or add the values", slug="empty-target"
        )
    findings = []
    if lost:
        message = f"the target has no value in {lost} of {len(series)} rows"
        findings.append(Finding("missing-target", target, message, "rows dropped"))
        table = _filtered(table, present)
    return table, target_values.read_values(series.filter(present), np.flatnonzero(present.to_numpy())), findings


def _filtered(table: Table, mask: pl.Series) -> Table:
    return Table(table.frame.filter(mask), table.name, table.sha256, table.findings)


def _without_single_rows(table: Table, labels: list[Label], target: str) -> tuple[Table, list[Label], list[Finding]]:
    """Drop classes with a single row, because such a class cannot be in both the training rows and the holdout."""
    singles = [label for label, count in Counter(labels).items() if count == 1]
    if not singles or len(set(labels)) > len(labels) / 2:  # too many classes; `_classes` raises the error
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


def _classes(values: TargetValues, labels: list[Label]) -> tuple[Label, ...]:
    distinct = set(labels)
    if len(distinct) < 2:
        raise TableError(
            f"target {values.name!r} is {labels[0]!r} in every row; training needs at least two classes: add rows with "
            "another label, or choose another column",
            slug="constant-target",
        )
    target_values.refuse_too_many_classes(values, labels)
    return tuple(sorted(distinct, key=lambda label: (isinstance(label, str), label)))


def _imbalance(classes: tuple[Label, ...], target: NDArray[Any], name: str) -> list[Finding]:
    """Report a class that contains nearly all rows."""
    shares = np.bincount(target, minlength=len(classes)) / len(target)
    most = int(shares.argmax())
    if shares[most] < DOMINANT_SHARE:
        return []
    message = f"{shares[most]:.1%} of the rows have the label {label_text(classes[most])!r}"
    action = "used; a model that always predicts this label has the same accuracy, so compare other metrics"
    return [Finding("imbalanced-classes", name, message, action, Override("class_weight", "balanced"))]


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
    folded = [name.casefold() for name in names]
    words: list[str] = [word for word in POSITIVE_WORDS if word in folded]
    words += [yes for yes, no in FOREIGN_WORDS if {yes, no} == set(folded)]
    if words:
        index = folded.index(words[0])
        return index, _positive_finding(column, names[index], "recognized by its name")
    index = int(np.argmin(np.bincount(target, minlength=2)))
    return index, _positive_finding(column, names[index], "the rarer class")


def _positive_finding(target: str, name: str, reason: str) -> Finding:
    message = f"the positive class is {name!r} ({reason})"
    return Finding(
        "positive-class", target, message, "the score is the probability of this class", Override("positive")
    )
