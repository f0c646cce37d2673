"""The costs of false positives and false negatives, and the error counts at each threshold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import TrainingError


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """The costs of a false positive and a false negative, in any unit. The threshold depends only on their ratio."""

    false_positive: float = 1.0
    """The cost of predicting the positive class for a negative row."""
    false_negative: float = 1.0
    """The cost of predicting the negative class for a positive row."""

    def __post_init__(self) -> None:
        prices = (self.false_positive, self.false_negative)
        if not all(0 <= price < np.inf for price in prices) or not any(prices):
            values = f"false_positive={prices[0]:g}, false_negative={prices[1]:g}"
            raise TrainingError(f"option 'cost': costs must be 0 or more, and not both 0; got {values}")

    def total(self, false_positives: Any, false_negatives: Any) -> Any:
        """Return the total cost of the given numbers of false positives and false negatives."""
        return self.false_positive * false_positives + self.false_negative * false_negatives


EVEN = Cost()
"""The default costs: each error costs 1."""


def parse(value: str | Mapping[str, Any] | Cost) -> Cost:
    """Parse costs from a mapping or from a string of the form `NAME=NUMBER,...`. Each cost defaults to 1."""
    if isinstance(value, Cost):
        return value
    pairs = _pairs(value) if isinstance(value, str) else value.items()
    prices: dict[str, float] = {}
    for name, price in pairs:
        if name not in Cost.__struct_fields__:
            names = " and ".join(Cost.__struct_fields__)
            raise TrainingError(f"option 'cost': unknown error type {name!r}; known types: {names}")
        if name in prices:
            raise TrainingError(f"option 'cost': {name!r} is set twice")
        prices[name] = _price(name, price)
    return Cost(**prices)


def _pairs(text: str) -> Iterable[tuple[str, str]]:
    for part in text.split(","):
        name, separator, price = part.partition("=")
        if not separator:
            raise TrainingError(f"option 'cost': expected 'false_positive=NUMBER,false_negative=NUMBER', got {text!r}")
        yield name.strip().replace("-", "_"), price.strip()


def _price(name: str, price: Any) -> float:
    try:
        return float(price)
    except (TypeError, ValueError):
        raise TrainingError(f"option 'cost': {name} must be a number, got {price!r}") from None


def count_mistakes(
    scores: NDArray[Any], positive: NDArray[np.bool_], thresholds: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the number of false positives and the number of false negatives at each threshold."""
    negatives, positives = np.sort(scores[~positive]), np.sort(scores[positive])
    return len(negatives) - np.searchsorted(negatives, thresholds), np.searchsorted(positives, thresholds)
