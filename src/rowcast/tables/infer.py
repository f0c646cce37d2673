"""Infer the schema of a table, and report findings about its columns.

Inference examines every cell and follows fixed rules. It ignores the target, so that the kinds of the columns do not
depend on the choice of target.
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
    POINTS,
    SPACES,
    TRUE_WORDS,
    Kind,
    canonical_text,
    datetime_from_text,
    microseconds,
    number_from_text,
)
from rowcast.tables import column_checks, identifiers
from rowcast.tables.identifiers import MIN_ROWS, Evidence
from rowcast.tables.table import Finding, Override, Table

EXACT_FLOAT32: Final = 1 << 24
CODE_DIGITS: Final = 15
"""The maximum number of digits in an integer that is treated as a number.

Longer integers are treated as codes, because float64 cannot represent all of them exactly.
"""
UNIQUE_SHARE: Final = 0.9
EXCLUDED: Final = "excluded"
CATEGORY: Final = "treated as a category"
POINT_FORMS: Final = tuple(form for form in NUMBER_FORMS if form not in ("comma", POINTS))
"""The notations of numbers with a decimal point."""
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


@dataclass(frozen=True)
class Profile:
    """The schema of the usable columns, and the findings from reading the table and inferring the schema."""

    schema: Schema
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class _Distinct:
    """The distinct, trimmed values of a column, most frequent first, and their counts."""

    values: list[Any]
    counts: list[int]
    rows: int
    missing: int


def infer_schema(table: Table, *, target: str | None = None, keep: Sequence[str] = ()) -> Profile:
    """Infer the schema of all columns except the target; raise TableError if no column is usable.

    Columns in `keep` are used even if they are constant, or if they look like identifiers or codes.
    """
    names = [name for name in table.frame.columns if name != target]
    columns: list[Column] = []
    findings = [*table.findings, *_duplicated(table)]
    for name in names:
        column, column_findings = inspect_column(table.frame[name], is_kept=name in keep)
        findings.extend(column_findings)
        if column is not None:
            columns.append(column)
    if not columns:
        raise TableError(
            f"{table.name} has no usable column: every column is empty, constant or an identifier", slug="no-columns"
        )
    if [column.name for column in columns] == ["rows"]:
        raise TableError(
            "the only column is named 'rows', which is reserved for requests with several rows; rename the column",
            slug="column-name",
        )
    return Profile(Schema(tuple(columns)), tuple(findings))


def infer_column(series: pl.Series) -> Column:
    """Return the column inferred from the cells, at least one of which must have a value."""
    return _typed_column(series, _distinct(series))[0]


def _duplicated(table: Table) -> list[Finding]:
    count = table.frame.height - table.frame.n_unique()
    if not count:
        return []
    message = f"{count} of {table.frame.height} rows are copies of other rows"
    return [
        Finding("duplicate-rows", "", message, "used; if copies describe the same case, the score is too optimistic")
    ]


def inspect_column(series: pl.Series, *, is_kept: bool) -> tuple[Column | None, list[Finding]]:
    """Return the inferred column, or None if it is excluded, and the findings."""
    name = series.name
    distinct = _distinct(series)
    if not distinct.values:
        if is_kept:
            raise TableError(f"column {name!r} has no values; remove it from the option 'keep'", slug="empty-column")
        return None, [Finding("all-missing", name, "has no values", "excluded")]
    if len(distinct.values) == 1 and not distinct.missing and not is_kept:
        shown = str(distinct.values[0])[:40]
        return None, [Finding("constant", name, f"is {shown!r} in every row", "excluded", Override("keep", name))]
    column, findings = _typed_column(series, distinct)
    if is_kept:
        return column, findings
    identifier = _identifier(series, column, distinct)
    if identifier is not None and identifier.action == EXCLUDED:
        return None, [*(finding for finding in findings if finding.code == "almost-number"), identifier]
    coded = _codes(column, distinct)
    levels = len(distinct.values)
    if coded is None and column.kind == "category":
        findings = [*findings, *column_checks.many_levels(name, levels, distinct.rows - distinct.missing)]
    column, findings = coded or (column, findings)
    weights = column_checks.named_like_weight(name)
    gaps = column_checks.gaps(name, missing=distinct.missing, rows=distinct.rows, distinct=levels)
    unique = [] if identifier is None else [identifier]
    return column, [*findings, *unique, *weights, *gaps]


def _codes(column: Column, distinct: _Distinct) -> tuple[Column, list[Finding]] | None:
    """Return a category column if the whole numbers in this column look like codes, and None otherwise."""
    if column.kind != "integer" or column.forms:
        return None
    padded = any(isinstance(value, str) and len(value) > 1 and value.startswith("0") for value in distinct.values)
    if padded or not column_checks.is_codes(np.array(distinct.values, np.float64), distinct.counts):
        return None
    message = "contains large, widely spaced and often repeated whole numbers; they are probably codes"
    finding = Finding("code", column.name, message, CATEGORY, Override("keep", column.name))
    return _category(column.name, distinct), [finding]


def _distinct(series: pl.Series) -> _Distinct:
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        present = series.filter(series.is_not_null() & ~series.is_in(list(MISSING_WORDS)))
    else:
        present = series.drop_nulls()
        present = present.drop_nans() if present.dtype.is_float() else present
    counted = present.alias("value").value_counts(name="count").sort(["count", "value"], descending=[True, False])
    return _Distinct(counted["value"].to_list(), counted["count"].to_list(), len(series), len(series) - len(present))


def _typed_column(series: pl.Series, distinct: _Distinct) -> tuple[Column, list[Finding]]:
    if series.dtype == pl.Boolean:
        return _build(series.name, "boolean", distinct, example=distinct.values[0]), []
    if isinstance(series.dtype, pl.Datetime):
        return _dates(series.name, distinct, [microseconds(value, "UTC") for value in distinct.values]), []
    if series.dtype.is_numeric():
        if series.dtype.is_integer() and _digits(distinct.values) > CODE_DIGITS:
            return _category(series.name, distinct), [_long_integers(series.name)]
        return _numbers(series.name, distinct, np.array(distinct.values, np.float64), whole=series.dtype.is_integer())
    return _text_column(series.name, distinct)


def _text_column(name: str, distinct: _Distinct) -> tuple[Column, list[Finding]]:
    """Infer the kind of a column of strings: boolean, number or date if every value matches, otherwise category."""
    words = {value.lower() for value in distinct.values}
    if words <= TRUE_WORDS | FALSE_WORDS and words & TRUE_WORDS and words & FALSE_WORDS:
        accepted = {word: word in TRUE_WORDS for word in sorted(words - {"true", "false"})}
        return _build(name, "boolean", distinct, words=accepted, example=distinct.values[0]), []
    forms = number_notations(distinct.values)
    if forms is not None:
        return _text_numbers(name, distinct, forms)
    formats, findings = _date_formats(name, distinct.values)
    if formats is not None:
        moments = [datetime_from_text(value, formats, "UTC") or 0 for value in distinct.values]
        return _dates(name, distinct, moments, formats=formats), findings
    odd = column_checks.almost_numbers(name, distinct.values, distinct.counts)
    return _category(name, distinct), [*odd, *column_checks.unknown_levels(name, distinct.values, distinct.counts)]


def number_notations(values: Sequence[str]) -> tuple[str, ...] | None:
    """Return the notations used besides the plain notation, or None if a value is not a number.

    A comma is a decimal separator only if the values allow no other interpretation. In that case, a point before three
    digits separates thousands, unless another value has a decimal point.
    """
    texts = pl.Series(values)
    is_plain = texts.str.contains(PLAIN_NUMBER)
    odd = texts.filter(~is_plain)
    has_groups = len(odd) == len(texts) > 1 and bool(odd.str.contains(rf"[0-9][{SPACES}][0-9]").all())
    if has_groups and odd.str.len_chars().n_unique() == 1:
        return None  # groups of digits in strings of the same length are codes, such as telephone numbers
    left, forms = odd, []
    for form in POINT_FORMS:
        rest = left.filter(~left.str.contains(NUMBER_FORMS[form]))
        if len(rest) < len(left):
            forms.append(form)
        left = rest
    if not len(left):
        return tuple(forms)
    if not odd.str.contains(NUMBER_FORMS["comma"]).all():
        return None
    pointed = texts.filter(is_plain & texts.str.contains(".", literal=True))
    has_thousands = len(pointed) > 0 and bool(pointed.str.contains(NUMBER_FORMS[POINTS]).all())
    return ("comma", POINTS) if has_thousands else ("comma",)


def _text_numbers(name: str, distinct: _Distinct, forms: tuple[str, ...]) -> tuple[Column, list[Finding]]:
    whole = all(value.lstrip("+-").isdigit() for value in distinct.values) if not forms else False
    if whole and _is_code(distinct.values):
        message = "contains numbers of equal length, some with leading zeros; they are probably codes"
        return _category(name, distinct), [Finding("code", name, message, CATEGORY)]
    if whole and _digits(distinct.values) > CODE_DIGITS:
        return _category(name, distinct), [_long_integers(name)]
    numbers = np.array([number_from_text(value, forms) for value in distinct.values], np.float64)
    if forms:
        whole = bool(np.all(numbers == np.trunc(numbers))) and not any("." in value for value in distinct.values)
    column, findings = _numbers(name, distinct, numbers, forms=forms, whole=whole)
    if whole:
        findings.extend(column_checks.leading_zeros(name, distinct.values))
    if forms:
        findings.append(
            Finding(
                "number-formats", name, f"contains numbers in these notations: {', '.join(forms)}", "treated as numbers"
            )
        )
    return column, findings


def _is_code(values: Sequence[str]) -> bool:
    """Return whether the numbers look like postal codes.

    All postal codes have the same number of digits, at least four, and some but not all start with 0.
    """
    padded = [value.startswith("0") for value in values]
    return any(padded) and not all(padded) and len(set(map(len, values))) == 1 and len(values[0]) >= 4


def _digits(values: Sequence[Any]) -> int:
    return max(len(str(value).strip("+-").lstrip("0")) for value in values)


def _long_integers(name: str) -> Finding:
    message = f"contains whole numbers with more than {CODE_DIGITS} digits; they are probably codes"
    return Finding("long-integer", name, message, CATEGORY)


def _numbers(
    name: str, distinct: _Distinct, numbers: NDArray[np.float64], *, forms: tuple[str, ...] = (), whole: bool
) -> tuple[Column, list[Finding]]:
    findings = []
    if np.abs(numbers).max() >= FLOAT32_LIMIT:
        fix = "rescale the column or add it to the option 'exclude'"
        raise TableError(f"column {name!r} contains numbers beyond ±{FLOAT32_LIMIT:.2g}; {fix}", slug="too-large")
    if whole and np.abs(numbers).max() > EXACT_FLOAT32:
        message = f"the model rounds whole numbers above {EXACT_FLOAT32:,} to seven significant digits"
        findings.append(Finding("large-integer", name, message, "used as numbers", Override("exclude", name)))
    findings.extend(column_checks.sentinels(name, numbers, distinct.counts, whole=whole))
    findings.extend(column_checks.amounts(name, numbers, distinct.counts, missing=distinct.missing, whole=whole))
    order = np.argsort(numbers, kind="stable")
    middle = column_checks.quantile(numbers[order], np.array(distinct.counts)[order], 0.5)
    low, high = float(numbers.min()), float(numbers.max())
    example = int(middle) if whole else middle
    kind: Kind = "integer" if whole else "number"
    return _build(name, kind, distinct, forms=forms, low=low, high=high, example=example), findings


def _dates(name: str, distinct: _Distinct, moments: Sequence[int], *, formats: tuple[str, ...] = ()) -> Column:
    example = distinct.values[0]
    shown = example if isinstance(example, str) else example.isoformat()
    return _build(name, "datetime", distinct, forms=formats, origin=min(moments), example=shown)


def _category(name: str, distinct: _Distinct) -> Column:
    counts: dict[str, int] = {}
    for value, count in zip(distinct.values, distinct.counts, strict=True):
        text = canonical_text(value)
        counts[text] = counts.get(text, 0) + count
    levels = tuple(sorted(counts, key=lambda text: (-counts[text], text)))
    return _build(name, "category", distinct, levels=levels, example=levels[0])


def _build(name: str, kind: Kind, distinct: _Distinct, **fields: Any) -> Column:
    return Column(name=name, kind=kind, missing=distinct.missing > 0, **fields)


def _date_formats(name: str, values: Sequence[str]) -> tuple[tuple[str, ...] | None, list[Finding]]:
    """Return the findings, and the formats needed in addition to RFC 3339 (None if a value is not a date)."""
    if not all(_date_like(value) for value in values[:MIN_ROWS]):
        return None, []
    left = [value for value in values if datetime_from_text(value, (), "UTC") is None]
    formats: list[str] = []
    findings: list[Finding] = []
    while left and len(formats) < 3:  # A column with more than three date formats is not treated as a datetime column.
        unparsed = {form: _unparsed(form, left) for form in _formats_for(left[0])}
        if not unparsed:
            return None, []
        best = min(unparsed, key=lambda form: len(unparsed[form]))
        rivals = [form for form, rest in unparsed.items() if rest == unparsed[best] and form != best]
        if rivals:
            message = f"the dates match the formats {' and '.join([best, *rivals])}"
            findings.append(Finding("ambiguous-dates", name, message, f"parsed as {best}"))
        formats.append(best)
        left = unparsed[best]
    return (None, []) if left else (tuple(formats), findings)


def _formats_for(value: str) -> list[str]:
    patterns = [day + time for day in DATE_FORMATS for time in TIME_FORMATS]
    return [form for form in patterns if datetime_from_text(value, (form,), "UTC") is not None]


def _unparsed(form: str, values: Sequence[str]) -> list[str]:
    return [value for value in values if datetime_from_text(value, (form,), "UTC") is None]


def _identifier(series: pl.Series, column: Column, distinct: _Distinct) -> Finding | None:
    """Return a finding if the column contains row numbers, ids, or text that is different in nearly every row.

    If the column may be a measurement, the finding says that the column is used.
    """
    present, levels = distinct.rows - distinct.missing, len(distinct.values)
    if distinct.rows < MIN_ROWS or present < MIN_ROWS or levels < UNIQUE_SHARE * present:
        return None
    keep = Override("keep", column.name)
    if column.kind == "category":
        unique = levels == present
        message = "has a different value in every row" if unique else f"has {levels} different values in {present} rows"
        code = "id" if unique else "free-text"
        return Finding(code, column.name, message, EXCLUDED, keep)
    return identifier_finding(series, column) if levels == present else None


def identifier_finding(series: pl.Series, column: Column) -> Finding | None:
    """Return a finding if a column with a different number in every row contains, or may contain, identifiers."""
    evidence = identifier_evidence(series, column)
    if evidence is None:
        return None
    if evidence.is_certain:
        return Finding("id", column.name, evidence.message, EXCLUDED, Override("keep", column.name))
    action = "used as a number; check that it is a measurement"
    return Finding("unique-numbers", column.name, evidence.message, action, Override("exclude", column.name))


def identifier_evidence(series: pl.Series, column: Column) -> Evidence | None:
    """Return the evidence that a column of numbers contains identifiers; return None if there is none."""
    if column.kind not in ("integer", "number"):
        return None
    cells = series.str.strip_chars(BLANKS) if series.dtype == pl.String else series
    if column.forms:
        cells = pl.Series([column.parse(cell, text=True) for cell in cells.to_list()])
    values = cells.cast(pl.Float64, strict=False).drop_nulls().drop_nans().to_numpy()
    if not len(values) or (values != np.trunc(values)).any():
        return None
    return identifiers.examine(column.name, values)
