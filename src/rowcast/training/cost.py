"""What mistakes cost: read from `false_positive=5,false_negative=1`, and counted along a threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import TrainingError


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one mistake of each kind costs, in any unit; only the ratio moves the threshold."""

    false_positive: float = 1.0
    """A negative row taken for a positive one."""
    false_negative: float = 1.0
    """A positive row that is missed."""

    def __post_init__(self) -> None:
        prices = (self.false_positive, self.false_negative)
        if not all(0 <= price < np.inf for price in prices) or not any(prices):
            given = f"false_positive={prices[0]:g}, false_negative={prices[1]:g}"
            raise TrainingError(f"--cost needs two numbers of at least 0, one of them above 0, not {given}")

    def of(self, alarms: Any, missed: Any) -> Any:
        """What so many false positives and false negatives cost together."""
        return self.false_positive * alarms + self.false_negative * missed


EVEN = Cost()
"""Every mistake counts the same."""


def parse(given: str | Mapping[str, Any] | Cost) -> Cost:
    """Costs from `NAME=NUMBER,...` or a mapping; a mistake that is not named costs 1."""
    if isinstance(given, Cost):
        return given
    pairs = _pairs(given) if isinstance(given, str) else given.items()
    prices: dict[str, float] = {}
    for name, price in pairs:
        if name not in Cost.__struct_fields__:
            raise TrainingError(f"--cost knows {' and '.join(Cost.__struct_fields__)}, not {name!r}")
        if name in prices:
            raise TrainingError(f"--cost names {name!r} twice")
        prices[name] = _price(name, price)
    return Cost(**prices)


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for part in text.split(","):
        name, separator, price = part.partition("=")
        if not separator:
            raise TrainingError(f"--cost takes false_positive=NUMBER,false_negative=NUMBER, not {text!r}")
        yield name.strip().replace("-", "_"), price.strip()


def _price(name: str, price: Any) -> float:
    try:
        return float(price)
    except (TypeError, ValueError):
        raise TrainingError(f"--cost: {name} must be a number, not {price!r}") from None


def mistakes(score: NDArray[Any], positive: NDArray[np.bool_], cuts: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """False positives and false negatives when a row is positive from each of these thresholds on."""
    above, below = np.sort(score[~positive]), np.sort(score[positive])
    return len(above) - np.searchsorted(above, cuts), np.searchsorted(below, cuts)
