"""The labels of a table: mended as asked, typed as written, and what kind of problem they make."""

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
from rowcast.tables import Finding, Override, Table, closest
from rowcast.training.options import TrainingOptions

MOST_INTEGER_CLASSES: Final = 20
MOST_CLASSES: Final = 256
POSITIVE_WORDS: Final = ("1", "true", "yes", "approved", "y", "t")


@dataclass(frozen=True)
class LabelledTable:
    """The rows that have a label, and what each should become: a class number, 1 for the positive class, or a value."""

    table: Table
    task: Task
    classes: tuple[Label, ...]
    positive: int
    target: NDArray[Any]
    findings: tuple[Finding, ...]


def read(table: Table, name: str, options: TrainingOptions) -> LabelledTable:
    """The labels in column `name`; TableError says in one sentence why nothing can be learnt from them."""
    table, mended = _mended(table, name, options.map)
    table, labels, findings = _labelled(table, name)
    findings = [*mended, *findings]
    task = options.task or _task(labels)
    if task == "regression":
        return LabelledTable(table, task, (), 1, _values(labels, name), tuple(findings))
    findings += _alike(labels, name)
    table, labels, lonely = _without_lonely(table, labels, name)
    findings += lonely
    classes = _classes(labels, name)
    task = _checked_task(task, classes, name)
    position = {label: index for index, label in enumerate(classes)}
    target = np.array([position[label] for label in labels])
    positive = 1
    if task == "binary":
        positive, said = _positive(classes, target, name, options.positive)
        findings.append(said)
        target = (target == positive).astype(np.int64)
    return LabelledTable(table, task, classes, positive, target, tuple(findings))


def _mended(table: Table, target: str, rules: Sequence[str]) -> tuple[Table, list[Finding]]:
    """The table with labels replaced as `OLD=NEW` rules say; every rule must meet a label, a missing NEW drops rows."""
    if not rules:
        return table, []
    series = table.frame[target]
    present = {value: canonical_text(value) for value in series.drop_nulls().unique().to_list()}
    known = sorted(set(present.values()))
    changes = dict(_rule(rule, target, known) for rule in rules)
    findings = []
    for old, new in changes.items():
        count = sum(present.get(value) == old for value in series.to_list())
        findings.append(
            Finding("mended-labels", target, f"{count} labels {old!r} stand for {new!r}", "read so", Override("map"))
        )
    texts = [None if value is None else present[value] for value in series.to_list()]
    mended = pl.Series(target, [None if text is None else changes.get(text, text) for text in texts], pl.String)
    return Table(table.frame.with_columns(mended), table.name, table.sha256, table.findings), findings


def _rule(rule: str, target: str, known: Sequence[str]) -> tuple[str, str]:
    """OLD and NEW of a rule; labels may hold `=` themselves, so the rule is cut where OLD is a label."""
    cuts = [place for place, letter in enumerate(rule) if letter == "="]
    if not cuts:
        raise TableError(f"--map takes OLD=NEW, not {rule!r}")
    pairs = [(canonical_text(rule[:cut]), canonical_text(rule[cut + 1 :])) for cut in cuts]
    met = [pair for pair in pairs if pair[0] in known]
    if not met:
        raise TableError(f"--map {rule!r} meets no label of {target!r}; {closest(pairs[0][0] or rule, known)}")
    return max(met, key=lambda pair: (pair[1] in known, len(pair[0])))


def _alike(labels: Sequence[Label], target: str) -> list[Finding]:
    """Labels that differ in case or a full stop alone are likely one label written in two ways."""
    counts = Counter(label for label in labels if isinstance(label, str))
    ways: dict[str, list[str]] = {}
    for label, _ in counts.most_common(MOST_CLASSES):
        ways.setdefault(" ".join(label.casefold().rstrip(". ").split()), []).append(label)
    findings = []
    for usual, *others in ways.values():
        for other in others:
            message = f"the labels {other!r} and {usual!r} look like one written in two ways"
            findings.append(
                Finding("alike-labels", target, message, "two classes", Override("map", f"{other}={usual}"))
            )
    return findings


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


def _without_lonely(table: Table, labels: list[Label], target: str) -> tuple[Table, list[Label], list[Finding]]:
    """Without classes of one row: such a class cannot be learnt and measured."""
    lonely = [label for label, count in Counter(labels).items() if count == 1]
    if not lonely or len(lonely) == len(set(labels)):
        return table, labels, []
    shown = ", ".join(repr(label) for label in lonely[:5])
    if len(lonely) == len(set(labels)) - 1:
        found = f"has one class of more than one row; {shown} cannot be learnt from a single row"
        raise TableError(f"the target {target!r} {found}")
    message = f"{len(lonely)} classes have one row only ({shown})"
    kept = [label not in set(lonely) for label in labels]
    remaining = [label for label, keep in zip(labels, kept, strict=True) if keep]
    return _kept(table, pl.Series(kept)), remaining, [Finding("lonely-class", "", message, "those rows were left out")]


def _classes(labels: list[Label], target: str) -> tuple[Label, ...]:
    distinct = set(labels)
    if len(distinct) < 2:
        raise TableError(f"the target {target!r} is {labels[0]!r} in every row; there is nothing to learn")
    if len(distinct) > MOST_CLASSES or len(distinct) > len(labels) / 2:
        odd = [label for label in distinct if isinstance(label, str) and number_from_text(label) is None]
        if len(odd) * 10 <= len(distinct):
            shown = ", ".join(map(repr, sorted(odd)[:3]))
            raise TableError(f"the target {target!r} holds numbers but for {shown}; empty or mend those cells")
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
    return Finding("positive-class", target, message, "score is its probability", Override("positive"))
