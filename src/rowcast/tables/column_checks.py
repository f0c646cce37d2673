"""What single columns give away about themselves: values that stand for "missing", numbers that are codes.

Only notices; what is done about it is said by whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.schema.values import BLANKS, PLAIN_NUMBER
from rowcast.tables.table import Finding, Override

UNKNOWN_WORDS: Final = frozenset({"unknown", "missing", "not available", "unspecified", "not known"})
LEAST_REPEATS: Final = 3
USED: Final = "used; a gap is a value of its own"
CODE_ROWS: Final = 200
CODE_LEVELS: Final = 10
CODE_MIDDLE: Final = 1000
"""Codes are large, sparse and often repeated, and end in 0 no more often than in 7; amounts and counts are not."""
FAR: Final = 7
"""So many times as far from the middle as 99.9 % of the values are: a wrong unit or a typing mistake, seldom a tail."""
FEW_FAR: Final = 1000
MONEY: Final = 100
OLDEST: Final = 110
MOSTLY: Final = 0.5
NEARLY_ALL: Final = 0.9
MANY_LEVELS: Final = 500
ODD_SHARE: Final = 0.1
SHOWN: Final = 20
_aged = re.compile(r"(^|[ _.\-])age([ _.\-]|$)", re.IGNORECASE).search
_weight = re.compile(
    r"(^|[ _.\-])((fnl|final|sample|sampling|survey|case|person|row)[ _.\-]?(weight|wgt|wt)s?|wgt)$", re.IGNORECASE
).search
_fill_value = re.compile(r"^(9{2,}|8{3,}|6{3}|7{3}|365243)$").match


def sentinels(name: str, numbers: NDArray[np.float64], counts: Sequence[int], whole: bool) -> list[Finding]:
    """Values that likely mean "missing": a lone negative one, or 999 and the like far above all others."""
    if len(numbers) < LEAST_REPEATS or (not whole and not np.all(numbers == np.trunc(numbers))):
        return []
    order = np.argsort(numbers)
    ranked = numbers[order]
    times = np.array(counts)[order]
    found = []
    if ranked[0] < 0 <= ranked[1] and ranked[-1] >= 10 and times[0] >= LEAST_REPEATS:
        found.append((ranked[0], times[0], "is the only value below zero"))
    if _fill_value(f"{ranked[-1]:.0f}") and ranked[-2] >= 0 and ranked[-1] >= 2 * max(ranked[-2], 1.0):
        found.append((ranked[-1], times[-1], "lies far above all others"))
    return [
        Finding(
            "sentinel", name, f"{value:.0f} in {count} rows {why}: does it mean missing?", "used as a number",
            Override("exclude", name),
        )
        for value, count, why in found
    ]  # fmt: skip


def amounts(
    name: str, numbers: NDArray[np.float64], counts: Sequence[int], *, missing: int, whole: bool
) -> list[Finding]:
    """Values far outside, ages nobody has, and zeros that may stand for a missing value."""
    order = np.argsort(numbers)
    ranked, times = numbers[order], np.array(counts)[order]
    return [*_far(name, ranked, times), *_ages(name, ranked, times), *_zeros(name, ranked, times, missing, whole)]


def _at(ranked: NDArray[np.float64], times: NDArray[np.int64], share: float) -> float:
    """The value below which this share of the rows lies."""
    reached = np.cumsum(times)
    return float(ranked[np.searchsorted(reached, share * reached[-1])])


def _far(name: str, ranked: NDArray[np.float64], times: NDArray[np.int64]) -> list[Finding]:
    if times.sum() < FEW_FAR or _fill_value(f"{ranked[-1]:.0f}"):
        return []
    middle, most, low = (_at(ranked, times, share) for share in (0.5, 0.999, 0.9))
    if low <= middle or ranked[-1] - middle < FAR * (most - middle):  # mostly one value: any other is far from it
        return []
    message = f"goes up to {_shown(ranked[-1])}, where 99.9 % of the rows are at most {_shown(most)}"
    return [Finding("far-value", name, message, "used as it is; is it a mistake?")]


def _shown(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= MONEY else f"{number:.3g}"


def _ages(name: str, ranked: NDArray[np.float64], times: NDArray[np.int64]) -> list[Finding]:
    """Among the ages of grown people, told by name and by range, those that nobody has."""
    if not _aged(name) or not 15 <= _at(ranked, times, 0.02) <= _at(ranked, times, 0.98) <= 100:
        return []
    wrong = (ranked < 1) | (ranked > OLDEST)
    if not wrong.any():
        return []
    shown = ", ".join(_shown(age) for age in ranked[wrong][-3:])
    message = f"holds ages that nobody has, in {times[wrong].sum()} of {times.sum()} rows ({shown})"
    return [Finding("far-value", name, message, "used as it is; is it a mistake?")]


def _zeros(
    name: str, ranked: NDArray[np.float64], times: NDArray[np.int64], missing: int, whole: bool
) -> list[Finding]:
    """Zeros apart from all other values: a few of them, or many beside empty cells."""
    zeros, rest = int(times[ranked == 0].sum()), ranked[ranked != 0]
    if not zeros or not len(rest) or rest[0] < 0:
        return []
    rows = int(times.sum()) + missing
    middle = _at(rest, times[ranked != 0], 0.5)
    few = LEAST_REPEATS <= zeros < rows / 20 and rest[0] >= middle / 4 and (not whole or middle >= 10)
    many = zeros >= rows / 20 and missing > rows / 300 and middle >= MONEY
    if few:
        message = f"0 in {zeros} rows lies far below all others: does it mean missing?"
    elif many:
        message = f"is 0 in {zeros} rows and empty in {missing}: does 0 mean missing too?"
    else:
        return []
    return [Finding("sentinel", name, message, "used as a number", Override("exclude", name))]


def named_like_weight(name: str) -> list[Finding]:
    """A column whose name says that it tells how many cases a row stands for."""
    if not _weight(name):
        return []
    message = "is named like a weight, which says how much a row counts"
    return [Finding("weight-like", name, message, "used as a column", Override("weight", name))]


def gaps(name: str, missing: int, rows: int, distinct: int) -> list[Finding]:
    """Columns that are empty in most rows, or hold nothing but gaps and one value."""
    if distinct == 1:
        message = "holds one value and gaps"
    elif missing > NEARLY_ALL * rows:
        message = "is empty in more than nine rows of ten"
    elif missing > MOSTLY * rows:
        message = "is empty in more than half of the rows"
    else:
        return []
    return [Finding("mostly-missing", name, message, USED)]


def many_levels(name: str, distinct: int, rows: int) -> list[Finding]:
    """Texts of so many kinds that each is seldom seen."""
    if distinct < MANY_LEVELS:
        return []
    message = f"has {distinct} different texts in {rows} rows"
    return [Finding("many-levels", name, message, "learnt by how often each occurs, with what target")]


def leading_zeros(name: str, values: Sequence[Any]) -> list[Finding]:
    """Whole numbers written like codes."""
    led = next((text for text in values if isinstance(text, str) and len(text) > 1 and text.startswith("0")), None)
    if led is None:
        return []
    message = f"holds whole numbers with leading zeros, such as {led!r}: are they codes?"
    return [Finding("leading-zeros", name, message, "read as numbers", Override("exclude", name))]


def almost_numbers(name: str, values: Sequence[str], counts: Sequence[int]) -> list[Finding]:
    """Texts that keep a column of numbers from being one."""
    distinct = pl.Series(values)
    odd = (~distinct.str.contains(PLAIN_NUMBER)).to_numpy()
    rows = int(np.array(counts)[odd].sum())
    if not rows or rows > ODD_SHARE * sum(counts):
        return []
    shown = ", ".join(repr(value[:SHOWN]) for value in distinct.filter(odd).to_list()[:3])
    message = f"holds numbers, and in {rows} of {sum(counts)} rows {shown}"
    return [Finding("almost-number", name, message, "taken as text; empty those cells to have it read as numbers")]


def unknown_levels(name: str, levels: Sequence[Any], counts: Sequence[int]) -> list[Finding]:
    """Texts that say "unknown" where a cell could be empty."""
    return [
        Finding("unknown-level", name, f"says {level!r} in {count} rows", "taken as a value of its own")
        for level, count in zip(levels, counts, strict=True)
        if str(level).casefold() in UNKNOWN_WORDS
    ]


def is_codes(numbers: NDArray[np.float64], counts: Sequence[int]) -> bool:
    """Whether distinct whole numbers are names rather than amounts."""
    times = np.array(counts)
    rows = int(times.sum())
    if rows < CODE_ROWS or len(numbers) < CODE_LEVELS or rows < 2.5 * len(numbers) or numbers.min() < 0:
        return False
    order = np.argsort(numbers)
    ranked, reached = numbers[order], np.cumsum(times[order])
    low, middle, high = (ranked[np.searchsorted(reached, share * rows)] for share in (0.1, 0.5, 0.9))
    dense = np.count_nonzero((ranked >= low) & (ranked <= high)) / (high - low + 1)
    rounded = np.mean(numbers % 10 == 0)
    zeros = times[numbers == 0].sum() / rows
    return bool(middle >= CODE_MIDDLE and dense < 0.1 and rounded < 0.25 and zeros < 0.01)


def second_header(frame: pl.DataFrame) -> bool:
    """Whether the first row names units or labels: text above numbers alone, in at least half of the columns."""
    if frame.height < LEAST_REPEATS:
        return False
    above = 0
    for series in frame.get_columns():
        cells = series.str.strip_chars(BLANKS)
        rest = cells[1:].drop_nulls()
        numeric = bool(len(rest)) and bool(rest.str.contains(PLAIN_NUMBER).all())
        above += numeric and cells[0] is not None and not re.match(PLAIN_NUMBER, cells[0])
    return above > 0 and 2 * above >= frame.width
