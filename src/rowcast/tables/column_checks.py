"""Check individual columns for signs of missing data, numbers that may be codes, and implausible values.

The checks report findings and never change a column.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.schema.values import BLANKS, MISSING_WORDS, NUMBER_FORMS, PLAIN_NUMBER, number_from_text
from rowcast.tables.table import Finding, Override

UNKNOWN_WORDS: Final = frozenset({"unknown", "missing", "not available", "unspecified", "not known"})
MIN_REPEATS: Final = 3
"""The number of times that a suspicious value must occur to be reported."""
USED: Final = "used; missing cells count as a separate value"
CODE_ROWS: Final = 200
CODE_LEVELS: Final = 10
CODE_MIDDLE: Final = 1000
"""The minimum median of a column of codes. Codes are typically large, sparse, often repeated and rarely round."""
FAR_FACTOR: Final = 7
"""The largest value is reported if its distance from the median is at least this many times that of the 99.9th
percentile.

Wrong units and typos produce such values; long tails rarely do.
"""
FAR_ROWS: Final = 1000
"""The minimum number of rows for reporting outliers. With fewer rows, the 99.9th percentile is not meaningful."""
LARGE: Final = 100
"""Numbers of at least this size are shown without decimal places, and zeros among such numbers are suspicious."""
MAX_AGE: Final = 110
MOSTLY: Final = 0.5
NEARLY_ALL: Final = 0.9
MANY_LEVELS: Final = 500
ODD_SHARE: Final = 0.1
"""The maximum share of non-numeric cells in a column that is reported as almost numeric."""
SHOWN: Final = 20
"""The maximum length of a cell in a message."""
_aged = re.compile(r"(^|[ _.\-])age([ _.\-]|$)", re.IGNORECASE).search
_weight = re.compile(
    r"(^|[ _.\-])((fnl|final|sample|sampling|survey|case|person|row)[ _.\-]?(weight|wgt|wt)s?|wgt)$", re.IGNORECASE
).search
_fill_value = re.compile(r"^(9{2,}|8{3,}|6{3}|7{3}|365243)$").match


def sentinels(name: str, numbers: NDArray[np.float64], counts: Sequence[int], *, whole: bool) -> list[Finding]:
    """Report values that may stand for missing data: the only negative value, or an outlier such as 999."""
    if len(numbers) < MIN_REPEATS or (not whole and not np.all(numbers == np.trunc(numbers))):
        return []
    order = np.argsort(numbers)
    ranked = numbers[order]
    times = np.array(counts)[order]
    suspects = []
    if ranked[0] < 0 <= ranked[1] and ranked[-1] >= 10 and times[0] >= MIN_REPEATS:
        suspects.append((ranked[0], times[0], "is the only value below zero"))
    if _fill_value(f"{ranked[-1]:.0f}") and ranked[-2] >= 0 and ranked[-1] >= 2 * max(ranked[-2], 1.0):
        suspects.append((ranked[-1], times[-1], "is far above all other values"))
    return [
        _sentinel(name, f"the value {value:.0f}, found in {count} rows, {reason}; it may stand for a missing value")
        for value, count, reason in suspects
    ]


def _sentinel(name: str, message: str) -> Finding:
    return Finding("sentinel", name, message, "used as a number", Override("exclude", name))


def amounts(
    name: str, numbers: NDArray[np.float64], counts: Sequence[int], *, missing: int, whole: bool
) -> list[Finding]:
    """Report outliers, implausible ages, and zeros that may stand for missing values."""
    order = np.argsort(numbers)
    ranked, times = numbers[order], np.array(counts)[order]
    return [
        *_far(name, ranked, times),
        *_ages(name, ranked, times),
        *_zeros(name, ranked, times, missing=missing, whole=whole),
    ]


def quantile(ranked: NDArray[np.float64], times: NDArray[np.int64], share: float) -> float:
    """Return a quantile of ranked distinct values, weighted by their counts."""
    cumulated = np.cumsum(times)
    return float(ranked[np.searchsorted(cumulated, share * cumulated[-1])])


def _far(name: str, ranked: NDArray[np.float64], times: NDArray[np.int64]) -> list[Finding]:
    if times.sum() < FAR_ROWS or _fill_value(f"{ranked[-1]:.0f}"):
        return []
    median, most, ninth = (quantile(ranked, times, share) for share in (0.5, 0.999, 0.9))
    # If the 90th percentile equals the median, many rows contain the same value, and all other values seem far away.
    if ninth <= median or ranked[-1] - median < FAR_FACTOR * (most - median):
        return []
    message = f"the largest value is {_shown(ranked[-1])}, but 99.9% of the values are at most {_shown(most)}"
    return [_far_value(name, message)]


def _far_value(name: str, message: str) -> Finding:
    return Finding("far-value", name, message, "used unchanged; check the data for errors")


def _shown(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= LARGE else f"{number:.3g}"


def _ages(name: str, ranked: NDArray[np.float64], times: NDArray[np.int64]) -> list[Finding]:
    """Report implausible ages in a column whose name and range suggest that it contains the ages of adults."""
    if not _aged(name) or not 15 <= quantile(ranked, times, 0.02) <= quantile(ranked, times, 0.98) <= 100:
        return []
    wrong = (ranked < 1) | (ranked > MAX_AGE)
    if not wrong.any():
        return []
    shown = ", ".join(_shown(age) for age in ranked[wrong][-3:])
    return [_far_value(name, f"contains implausible ages in {times[wrong].sum()} of {times.sum()} rows ({shown})")]


def _zeros(
    name: str, ranked: NDArray[np.float64], times: NDArray[np.int64], *, missing: int, whole: bool
) -> list[Finding]:
    """Report zeros that may stand for missing values: a few zeros, or many zeros in a column with empty cells."""
    zeros, rest = int(times[ranked == 0].sum()), ranked[ranked != 0]
    if not zeros or not len(rest) or rest[0] < 0:
        return []
    rows = int(times.sum()) + missing
    middle = quantile(rest, times[ranked != 0], 0.5)
    few = MIN_REPEATS <= zeros < rows / 20 and rest[0] >= middle / 4 and (not whole or middle >= 10)
    many = zeros >= rows / 20 and missing > rows / 300 and middle >= LARGE
    if few:
        message = f"the value 0, found in {zeros} rows, is far below all other values; it may stand for a missing value"
    elif many:
        message = f"is 0 in {zeros} rows and empty in {missing}; 0 may also stand for a missing value"
    else:
        return []
    return [_sentinel(name, message)]


def named_like_weight(name: str) -> list[Finding]:
    """Report a column whose name suggests that it contains row weights."""
    if not _weight(name):
        return []
    message = "the name suggests that the column contains row weights"
    return [Finding("weight-like", name, message, "used as a feature", Override("weight", name))]


def gaps(name: str, *, missing: int, rows: int, distinct: int) -> list[Finding]:
    """Report a column that is empty in most rows, or that has a single value and empty cells."""
    if distinct == 1:
        message = "has a single value and empty cells"
    elif missing > NEARLY_ALL * rows:
        message = "is empty in more than 90% of the rows"
    elif missing > MOSTLY * rows:
        message = "is empty in more than 50% of the rows"
    else:
        return []
    return [Finding("mostly-missing", name, message, USED)]


def many_levels(name: str, distinct: int, rows: int) -> list[Finding]:
    """Report a column with so many different values that most of them are rare."""
    if distinct < MANY_LEVELS:
        return []
    message = f"has {distinct} different values in {rows} rows"
    return [Finding("many-levels", name, message, "encoded by frequency and mean target")]


def leading_zeros(name: str, values: Sequence[Any]) -> list[Finding]:
    """Report a column that contains whole numbers with leading zeros."""
    text = next((each for each in values if isinstance(each, str) and len(each) > 1 and each.startswith("0")), None)
    if text is None:
        return []
    message = f"contains whole numbers with leading zeros, for example {text!r}; they may be codes"
    return [Finding("leading-zeros", name, message, "treated as numbers", Override("exclude", name))]


def almost_numbers(name: str, values: Sequence[str], counts: Sequence[int]) -> list[Finding]:
    """Report the few non-numeric cells in a column that would otherwise be numeric."""
    distinct = pl.Series(values)
    odd = (~distinct.str.contains(PLAIN_NUMBER)).to_numpy()
    rows = int(np.array(counts)[odd].sum())
    if not rows or rows > ODD_SHARE * sum(counts):
        return []
    shown = ", ".join(repr(value[:SHOWN]) for value in distinct.filter(odd).to_list()[:3])
    message = f"contains numbers, but also text in {rows} of {sum(counts)} rows: {shown}"
    return [Finding("almost-number", name, message, "treated as text; clear these cells to use the column as numbers")]


def unknown_levels(name: str, levels: Sequence[Any], counts: Sequence[int]) -> list[Finding]:
    """Report words such as "unknown" that may stand for missing values."""
    return [
        Finding("unknown-level", name, f"contains {level!r} in {count} rows", "used as a separate value")
        for level, count in zip(levels, counts, strict=True)
        if str(level).casefold() in UNKNOWN_WORDS
    ]


def is_codes(numbers: NDArray[np.float64], counts: Sequence[int]) -> bool:
    """Return whether distinct whole numbers look like codes rather than amounts."""
    times = np.array(counts)
    rows = int(times.sum())
    if rows < CODE_ROWS or len(numbers) < CODE_LEVELS or rows < 2.5 * len(numbers) or numbers.min() < 0:
        return False
    order = np.argsort(numbers)
    ranked, times_ranked = numbers[order], times[order]
    low, middle, high = (quantile(ranked, times_ranked, share) for share in (0.1, 0.5, 0.9))
    dense = np.count_nonzero((ranked >= low) & (ranked <= high)) / (high - low + 1)
    rounded = np.mean(numbers % 10 == 0)
    zeros = times[numbers == 0].sum() / rows
    return bool(middle >= CODE_MIDDLE and dense < 0.1 and rounded < 0.25 and zeros < 0.01)


def second_header(frame: pl.DataFrame) -> bool:
    """Return whether the first row is a second header line, for example with units.

    In such a table, at least half the columns contain only numbers below the first row, and every cell of the first row
    is a label. A row with an empty cell, a number or a value that occurs again is data.
    """
    if frame.height < MIN_REPEATS:
        return False
    numeric = 0
    for series in frame.get_columns():
        cells = series.str.strip_chars(BLANKS)
        label, rest = cells[0], cells[1:].drop_nulls()
        if label is None or label in MISSING_WORDS or number_from_text(label, tuple(NUMBER_FORMS)) is not None:
            return False
        if len(rest) and rest.str.contains(PLAIN_NUMBER).all():
            numeric += 1
        elif any(character.isdigit() for character in label) or bool((rest == label).any()):
            return False
    return numeric > 0 and 2 * numeric >= frame.width
