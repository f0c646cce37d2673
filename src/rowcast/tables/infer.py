"""What the columns of a table mean: the schema a model will take, and what was noticed on the way.

Looks at every cell, decides by rules alone, never at the target: what a column is must not depend on what is predicted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.schema import Column, Schema
from rowcast.schema.values import (
    BLANKS,
    FALSE_WORDS,
    FLOAT32_LIMIT,
    MISSING_WORDS,
    NUMBER_FORMS,
    PLAIN_NUMBER,
    TRUE_WORDS,
    Kind,
    canonical_text,
    datetime_from_text,
    microseconds,
    number_from_text,
)
from rowcast.tables import column_checks as notice
from rowcast.tables.table import Finding, Override, Table

EXACT_FLOAT32: Final = 1 << 24
CODE_DIGITS: Final = 15
"""An integer with more digits is a code: float64 itself would not keep it."""
FEW_ROWS: Final = 20
"""Below this nothing is dropped for being unique: any small table has unique columns."""
UNIQUE_SHARE: Final = 0.9
DATE_FORMATS: Final = (
    "%d/%m/%Y",
    "%m/%d/%Y",
    "%d.%m.%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%Y/%m/%d",
    "%Y.%m.%d",
    "%d/%m/%y",
    "%m/%d/%y",
    "%b-%Y",
    "%b %Y",
    "%B %Y",
    "%b-%y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
TIME_FORMATS: Final = ("", " %H:%M", " %H:%M:%S", " %I:%M %p")
_date_like = re.compile(r"^(?=.*\d)[\w.,:/ +-]{5,32}$", re.ASCII).match
_id_name = re.compile(r"(^|[ _.\-])(?i:id|pid|uid|guid|uuid|key|index|rownum|row_number)$|[a-z](ID|Id)$").search


@dataclass(frozen=True)
class Profile:
    """The schema of the columns that are of use, and every finding, those of reading included."""

    schema: Schema
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Texts:
    """The distinct, trimmed values of a column, most frequent first, with how often each occurs."""

    values: list[Any]
    counts: list[int]
    rows: int
    missing: int


def infer(table: Table, *, target: str | None = None, keep: Sequence[str] = ()) -> Profile:
    """The schema of every column but the target; TableError when no column is left to learn from.

    Columns to `keep` stay as they are, though they be constant, identifiers or codes.
    """
    names = [name for name in table.frame.columns if name != target]
    columns: list[Column] = []
    findings = [*table.findings, *_duplicated(table)]
    for name in names:
        column, found = _column(table.frame[name], name in keep)
        findings.extend(found)
        if column is not None:
            columns.append(column)
    if not columns:
        raise TableError(f"{table.name} has no column to learn from: every one is empty, constant or an identifier")
    if [column.name for column in columns] == ["rows"]:
        raise TableError("the only column is named 'rows', which is how many rows are sent; rename it")
    return Profile(Schema(tuple(columns)), tuple(findings))


def _duplicated(table: Table) -> list[Finding]:
    count = table.frame.height - table.frame.n_unique()
    if not count:
        return []
    message = f"{count} of {table.frame.height} rows repeat another row"
    return [Finding("duplicate-rows", "", message, "kept; if they are the same case twice, the score is too good")]


def _column(series: pl.Series, kept: bool) -> tuple[Column | None, list[Finding]]:
    """The column a series is, or None and the finding that says why it is of no use."""
    name = series.name
    texts = _distinct(series)
    if not texts.values:
        if kept:
            raise TableError(f"column {name!r} holds no value at all; there is nothing to keep")
        return None, [Finding("all-missing", name, "holds no value at all", "left out")]
    if len(texts.values) == 1 and not texts.missing and not kept:
        shown = str(texts.values[0])[:40]
        return None, [Finding("constant", name, f"is {shown!r} in every row", "left out", Override("keep", name))]
    column, findings = _kind(series, texts)
    if kept:
        return column, findings
    dropped = _identifier(column, texts)
    if dropped is not None:
        return None, [*(finding for finding in findings if finding.code == "almost-number"), dropped]
    coded = _codes(column, texts)
    if coded is None and column.kind == "category":
        findings = [*findings, *notice.many_levels(name, len(texts.values), texts.rows - texts.missing)]
    column, findings = coded or (column, findings)
    return column, [*findings, *_told_by_itself(column, texts)]


def _told_by_itself(column: Column, texts: _Texts) -> list[Finding]:
    """What is worth saying of a column in use, whatever its kind."""
    distinct = len(texts.values)
    return [*notice.named_like_weight(column.name), *notice.gaps(column.name, texts.missing, texts.rows, distinct)]


def _codes(column: Column, texts: _Texts) -> tuple[Column, list[Finding]] | None:
    """The category that whole numbers are when they are names, not amounts; None when they are amounts."""
    if column.kind != "integer" or column.forms:
        return None
    padded = any(isinstance(value, str) and len(value) > 1 and value.startswith("0") for value in texts.values)
    if padded or not notice.is_codes(np.array(texts.values, np.float64), texts.counts):
        return None
    message = "large whole numbers, far apart and often repeated, are codes"
    finding = Finding("code", column.name, message, "taken as categories", Override("keep", column.name))
    return _category(column.name, texts), [finding]


def _distinct(series: pl.Series) -> _Texts:
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        present = series.filter(series.is_not_null() & ~series.is_in(list(MISSING_WORDS)))
    else:
        present = series.drop_nulls()
        present = present.drop_nans() if present.dtype.is_float() else present
    counted = present.alias("value").value_counts(name="count").sort(["count", "value"], descending=[True, False])
    return _Texts(counted["value"].to_list(), counted["count"].to_list(), len(series), len(series) - len(present))


def _kind(series: pl.Series, texts: _Texts) -> tuple[Column, list[Finding]]:
    if series.dtype == pl.Boolean:
        return _made(series.name, "boolean", texts, example=texts.values[0]), []
    if isinstance(series.dtype, pl.Datetime):
        return _moments(series.name, texts, (), [microseconds(value, "UTC") for value in texts.values]), []
    if series.dtype.is_numeric():
        if series.dtype.is_integer() and _digits(texts.values) > CODE_DIGITS:
            return _category(series.name, texts), [_long_integers(series.name)]
        return _numbers(series.name, texts, (), np.array(texts.values, np.float64), series.dtype.is_integer())
    return _text_kind(series.name, texts)


def _text_kind(name: str, texts: _Texts) -> tuple[Column, list[Finding]]:
    """What text means: booleans, numbers, moments, else categories; one odd value decides for the weaker kind."""
    words = {value.lower() for value in texts.values}
    if words <= TRUE_WORDS | FALSE_WORDS and words & TRUE_WORDS and words & FALSE_WORDS:
        accepted = {word: word in TRUE_WORDS for word in sorted(words - {"true", "false"})}
        return _made(name, "boolean", texts, words=accepted, example=texts.values[0]), []
    forms = _number_forms(texts.values)
    if forms is not None:
        return _text_numbers(name, texts, forms)
    formats, findings = _date_formats(name, texts.values)
    if formats is not None:
        moments = [datetime_from_text(value, formats, "UTC") or 0 for value in texts.values]
        return _moments(name, texts, formats, moments), findings
    odd = notice.almost_numbers(name, texts.values, texts.counts)
    return _category(name, texts), [*odd, *notice.unknown_levels(name, texts.values, texts.counts)]


def _number_forms(values: Sequence[str]) -> tuple[str, ...] | None:
    """The notations beside the plain one, or None when some value is no number at all."""
    distinct = pl.Series(values)
    odd = distinct.filter(~distinct.str.contains(PLAIN_NUMBER))
    forms: list[str] = []
    thousands, comma = NUMBER_FORMS["thousands"][0], NUMBER_FORMS["comma"][0]
    if len(odd) and odd.str.contains(comma).all() and not odd.str.contains(thousands).all():
        return ("comma",)  # 1,250 beside 2,5 is one and a quarter
    for form, (pattern, _) in list(NUMBER_FORMS.items())[:-1]:
        left = odd.filter(~odd.str.contains(pattern))
        if len(left) < len(odd):
            forms.append(form)
        odd = left
    return None if len(odd) else tuple(forms)


def _text_numbers(name: str, texts: _Texts, forms: tuple[str, ...]) -> tuple[Column, list[Finding]]:
    whole = all(value.lstrip("+-").isdigit() for value in texts.values) if not forms else False
    if whole and _is_code(texts.values):
        message = "numbers of one length, some with leading zeros, are codes"
        return _category(name, texts), [Finding("code", name, message, "taken as categories")]
    if whole and _digits(texts.values) > CODE_DIGITS:
        return _category(name, texts), [_long_integers(name)]
    numbers = np.array([number_from_text(value, forms) for value in texts.values], np.float64)
    if forms:
        whole = bool(np.all(numbers == np.trunc(numbers))) and not any("." in value for value in texts.values)
    column, findings = _numbers(name, texts, forms, numbers, whole)
    if whole:
        findings.extend(notice.leading_zeros(name, texts.values))
    if forms:
        findings.append(Finding("number-forms", name, f"numbers are written as {', '.join(forms)}", "read as numbers"))
    return column, findings


def _is_code(values: Sequence[str]) -> bool:
    """Equal length of four or more, some but not all with a leading zero: a postcode, not a padded number."""
    led = [value.startswith("0") for value in values]
    return any(led) and not all(led) and len(set(map(len, values))) == 1 and len(values[0]) >= 4


def _digits(values: Sequence[Any]) -> int:
    return max(len(str(value).strip("+-").lstrip("0")) for value in values)


def _long_integers(name: str) -> Finding:
    message = f"whole numbers of more than {CODE_DIGITS} digits are codes"
    return Finding("long-integer", name, message, "taken as categories")


def _numbers(
    name: str, texts: _Texts, forms: tuple[str, ...], numbers: NDArray[np.float64], whole: bool
) -> tuple[Column, list[Finding]]:
    findings = []
    if np.abs(numbers).max() >= FLOAT32_LIMIT:
        fix = "rescale it, or leave it out with the option 'exclude'"
        raise TableError(f"column {name!r} holds numbers beyond ±{FLOAT32_LIMIT:.2g}; {fix}")
    if whole and np.abs(numbers).max() > EXACT_FLOAT32:
        message = f"whole numbers above {EXACT_FLOAT32:,} are rounded to seven digits by the model"
        findings.append(Finding("large-integer", name, message, "used as numbers", Override("exclude", name)))
    findings.extend(notice.sentinels(name, numbers, texts.counts, whole))
    findings.extend(notice.amounts(name, numbers, texts.counts, missing=texts.missing, whole=whole))
    middle = _median(numbers, np.array(texts.counts))
    low, high = float(numbers.min()), float(numbers.max())
    example = int(middle) if whole else middle
    kind: Kind = "integer" if whole else "number"
    return _made(name, kind, texts, forms=forms, low=low, high=high, example=example), findings


def _median(numbers: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    order = np.argsort(numbers, kind="stable")
    reached = np.cumsum(counts[order])
    return float(numbers[order][np.searchsorted(reached, reached[-1] / 2)])


def _moments(name: str, texts: _Texts, formats: tuple[str, ...], moments: Sequence[int]) -> Column:
    example = texts.values[0]
    shown = example if isinstance(example, str) else example.isoformat()
    return _made(name, "datetime", texts, forms=formats, origin=min(moments), example=shown)


def _category(name: str, texts: _Texts) -> Column:
    counts: dict[str, int] = {}
    for value, count in zip(texts.values, texts.counts, strict=True):
        text = canonical_text(value)
        counts[text] = counts.get(text, 0) + count
    levels = tuple(sorted(counts, key=lambda text: (-counts[text], text)))
    return _made(name, "category", texts, levels=levels, example=levels[0])


def _made(name: str, kind: Kind, texts: _Texts, **known: Any) -> Column:
    return Column(name=name, kind=kind, missing=texts.missing > 0, **known)


def _date_formats(name: str, values: Sequence[str]) -> tuple[tuple[str, ...] | None, list[Finding]]:
    """The formats that read every value (RFC 3339 needs none), or None when some value is no date."""
    if not all(_date_like(value) for value in values[:FEW_ROWS]):
        return None, []
    left = [value for value in values if datetime_from_text(value, (), "UTC") is None]
    formats: list[str] = []
    findings: list[Finding] = []
    while left and len(formats) < 3:  # more than three notations in one column is not a date column
        read = {form: _unread(form, left) for form in _formats_for(left[0])}
        if not read:
            return None, []
        best = min(read, key=lambda form: len(read[form]))
        rivals = [form for form, rest in read.items() if rest == read[best] and form != best]
        if rivals:
            message = f"dates can be read as {best} and as {', '.join(rivals)}"
            findings.append(Finding("ambiguous-dates", name, message, f"read as {best}"))
        formats.append(best)
        left = read[best]
    return (None, []) if left else (tuple(formats), findings)


def _formats_for(value: str) -> list[str]:
    patterns = [day + time for day in DATE_FORMATS for time in TIME_FORMATS]
    return [form for form in patterns if datetime_from_text(value, (form,), "UTC") is not None]


def _unread(form: str, values: Sequence[str]) -> list[str]:
    return [value for value in values if datetime_from_text(value, (form,), "UTC") is None]


def _identifier(column: Column, texts: _Texts) -> Finding | None:
    """The finding that drops a column which names its row: a counter, unique text, an id by name."""
    present, distinct = texts.rows - texts.missing, len(texts.values)
    if texts.rows < FEW_ROWS or present < FEW_ROWS or distinct < UNIQUE_SHARE * present:
        return None
    keep = Override("keep", column.name)
    if column.kind == "integer" and distinct == present:
        low, high = column.low or 0.0, column.high or 0.0
        if high - low + 1 == distinct:
            return Finding("id", column.name, "counts the rows", "left out", keep)
        if _id_name(column.name):
            return Finding("id", column.name, "is a different whole number in every row", "left out", keep)
    if column.kind == "category":
        what = "is different in every row" if distinct == present else f"has {distinct} values in {present} rows"
        code = "id" if distinct == present else "free-text"
        return Finding(code, column.name, what, "left out", keep)
    return None
