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

from rowcast.domain.values import BLANKS, PLAIN_NUMBER
from rowcast.tables.table import Finding, flag

UNKNOWN_WORDS: Final = frozenset({"unknown", "missing", "not available", "unspecified", "not known"})
LEAST_REPEATS: Final = 3
CODE_ROWS: Final = 200
CODE_LEVELS: Final = 10
CODE_MIDDLE: Final = 1000
"""Codes are large, sparse and often repeated, and end in 0 no more often than in 7; amounts and counts are not."""
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
            flag("--exclude", name),
        )
        for value, count, why in found
    ]  # fmt: skip


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
    if rows < CODE_ROWS or len(numbers) < CODE_LEVELS or rows < 4 * len(numbers) or numbers.min() < 0:
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
