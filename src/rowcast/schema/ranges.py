"""The ranges of numeric columns in training, rounded to float32 like the model's inputs.

Without the rounding, a client that sends 0.1 as float32 (0.10000000149) would seem to exceed a range that ends at 0.1.
"""

from __future__ import annotations

import math
import struct
from typing import NamedTuple

from rowcast.schema.schema import Column
from rowcast.schema.values import FLOAT32_LIMIT

_float32 = struct.Struct("<f")


class Range(NamedTuple):
    """The smallest and the largest float64 that round to a float32 in the range seen in training."""

    low: float
    high: float


def seen_range(column: Column) -> Range | None:
    """Return the range of a numeric column, or None if it is unknown."""
    if column.kind not in ("number", "integer") or column.low is None or column.high is None:
        return None
    if not -FLOAT32_LIMIT < column.low <= column.high < FLOAT32_LIMIT:
        return None
    return Range(-_largest_double(_round(-column.low)), _largest_double(_round(column.high)))


def _round(value: float) -> float:
    rounded: float = _float32.unpack(_float32.pack(value))[0]
    return rounded


def _largest_double(value: float) -> float:
    """Return the largest float64 that rounds to this float32. The midpoint between two float32 values rounds to the
    even value."""
    bits = struct.unpack("<i", _float32.pack(value))[0]
    if value == 0:
        above = math.ldexp(1.0, -149)
    else:
        above = struct.unpack("<f", struct.pack("<i", bits + 1 if value > 0 else bits - 1))[0]
    if math.isinf(above):
        return value
    middle = value / 2 + above / 2
    return middle if _round(middle) == value else math.nextafter(middle, -math.inf)
