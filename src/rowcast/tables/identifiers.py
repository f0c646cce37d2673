"""Recognize identifiers among columns of whole numbers, mainly by their content.

An identifier has a different number in every row. The same can be true of a measurement: numbers from a wide range may
be unique by chance, and a table may have one row for each distance or year. The name of a column matters only if its
content is ambiguous.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MIN_ROWS: Final = 20
"""The minimum number of rows for detecting identifiers. In smaller tables, values are often unique by chance."""
EXPECTED_REPEATS: Final = 10
"""The minimum number of repetitions that would be expected if unique numbers had been drawn at random from their range.

If at least this many repetitions would be expected, the numbers are not unique by chance: the probability of drawing no
number twice is at most about exp(-10).
"""
CONTENT_ROWS: Final = 100
"""The minimum number of rows for treating numbers as identifiers because of their content alone.

A smaller table can be an aggregate with one row for each distance or year.
"""
ORDERED_STEPS: Final = 0.95
ROUND_SHARE: Final = 0.25
"""The share of multiples of 10 above which numbers look like rounded amounts. In identifiers, this share is about
10%.
"""
EPOCHS: Final = ((630_000_000, 2_210_000_000), (630_000_000_000, 2_210_000_000_000))
"""Timestamps of the years 1990 to 2039, in seconds and in milliseconds since the Unix epoch."""
YEARS: Final = (1500, 2200)
UNIQUE: Final = "contains a different whole number in every row"
_is_id_name = re.compile(r"(^|[ _.\-])(?i:id|pid|uid|guid|uuid|key|index|rownum|row_number)$").search
_is_number_name = re.compile(
    r"(^|[ _.\-])(?i:no|nr|num|number|code|ref|reference|serial|record|account|acct|rownames)\.?$"
).search
_find_camel_case = re.compile(r"(?<=[a-z0-9])(?=[A-Z])").sub
_is_measure_name = re.compile(
    r"(^|[ _.\-])(?i:time|timestamp|date|days?|weeks?|months?|quarter|years?|yr|hours?|minutes?|mins?|seconds?|secs?"
    r"|ms|epoch|elapsed|duration|period|price|amount|cost|fee|value|income|salary|revenue|sales|balance|total|sum|dist|distance"
    r"|length|width|height|depth|weight|area|volume|speed|temperature|pressure|population|size|km|miles|kg|usd|eur)"
    r"([ _.\-]|$)"
).search


class Evidence(NamedTuple):
    """The evidence that a column is an identifier."""

    message: str
    is_certain: bool
    """Whether the column is treated as an identifier; otherwise, it may be a measurement."""


def examine(name: str, values: NDArray[np.float64]) -> Evidence | None:
    """Return the evidence that whole numbers, in row order, are identifiers; return None if there is none."""
    ranked = np.sort(values)
    gaps = np.diff(ranked)
    if len(values) < MIN_ROWS or gaps.min() <= 0:
        return None
    name = _find_camel_case(" ", name)
    is_measured = _is_measure_name(name) is not None or _is_calendar(ranked)
    if gaps.max() == 1 and (ranked[0] in (0, 1) or not is_measured):
        return Evidence("contains consecutive row numbers", is_certain=True)
    if _is_id_name(name):
        return Evidence(UNIQUE, is_certain=True)
    steps = np.diff(values)
    is_ordered = max((steps > 0).mean(), (steps < 0).mean()) >= ORDERED_STEPS
    repeats = len(values) * (len(values) - 1) / 2 / (ranked[-1] - ranked[0] + 1)
    message = f"{UNIQUE}, in the order of the rows" if is_ordered else UNIQUE
    if not is_ordered and repeats < EXPECTED_REPEATS and not _is_number_name(name):
        return None  # numbers in a wide range are often unique by chance
    if is_measured or gaps.min() == gaps.max():  # evenly spaced numbers are a scale, such as times or wavelengths
        return Evidence(message, is_certain=False)
    if _is_number_name(name):
        return Evidence(message, is_certain=is_ordered or bool(np.mean(values % 10 == 0) < ROUND_SHARE))
    if len(values) < CONTENT_ROWS:
        return Evidence(message, is_certain=False)
    if repeats >= EXPECTED_REPEATS:
        return Evidence(f"{message}, although random numbers in this range would contain duplicates", is_certain=True)
    return Evidence(message, is_certain=_is_sample(ranked, gaps))


def _is_sample(ranked: NDArray[np.float64], gaps: NDArray[np.float64]) -> bool:
    """Return whether sorted numbers look like a random sample of a counter, which is evenly distributed.

    The gaps in such a sample are independent of each other. Sorted measurements are denser in the middle or at one
    end, or follow a trend, so that neighboring gaps are similar.
    """
    line = np.linspace(ranked[0], ranked[-1], len(ranked))
    distance = float(np.abs(ranked - line).max()) / (ranked[-1] - ranked[0])
    if distance > 0.1 + 0.5 / len(ranked) ** 0.5:
        return False
    first, second = gaps[:-1] - gaps[:-1].mean(), gaps[1:] - gaps[1:].mean()
    scale = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return scale == 0 or abs(float((first * second).sum())) < 0.5 * scale


def _is_calendar(ranked: NDArray[np.float64]) -> bool:
    """Return whether sorted whole numbers can be years, dates written as YYYYMM or YYYYMMDD, or timestamps."""
    low, high = ranked[0], ranked[-1]
    if YEARS[0] <= low and high <= YEARS[1]:
        return True
    if any(first <= low and high <= last for first, last in EPOCHS):
        return True
    for scale in (1, 100):  # YYYYMM and YYYYMMDD
        months, days = ranked // scale % 100, ranked % 100
        years = ranked // scale // 100
        is_date = (months >= 1) & (months <= 12) & (years >= YEARS[0]) & (years <= YEARS[1])
        if (is_date & ((scale == 1) | ((days >= 1) & (days <= 31)))).all():
            return True
    return False
