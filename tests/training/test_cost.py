"""Costs: parsing, validation and the number of errors at each threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.errors import TrainingError
from rowcast.training import cost
from rowcast.training.cost import Cost


@pytest.mark.parametrize(
    "value",
    [
        "false_positive=5,false_negative=1",
        " false-positive = 5.0 ",
        {"false_positive": 5},
        Cost(false_positive=5.0, false_negative=1.0),
    ],
)
def test_costs_are_parsed_from_strings_and_mappings(value: Any) -> None:
    assert cost.parse(value) == Cost(false_positive=5.0, false_negative=1.0)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("5,1", "expected 'false_positive=NUMBER,false_negative=NUMBER', got '5,1'"),
        ("false_positives=5", "unknown error type 'false_positives'"),
        ("false_positive=much", "false_positive must be a number, got 'much'"),
        ("false_positive=1,false_positive=2", "'false_positive' is set twice"),
        ("false_positive=-1", "0 or more"),
        ("false_positive=0,false_negative=0", "not both 0"),
        ("false_positive=inf", "0 or more"),
        ("false_positive=nan", "0 or more"),
        ({"false_negative": None}, "must be a number, got None"),
    ],
)
def test_invalid_costs_are_rejected(value: Any, reason: str) -> None:
    with pytest.raises(TrainingError, match=f"option 'cost': .*{reason}"):
        cost.parse(value)


def test_errors_are_counted_at_every_threshold() -> None:
    scores, positive = np.array([0.1, 0.4, 0.4, 0.8], np.float32), np.array([False, True, False, True])

    false_positives, false_negatives = cost.count_mistakes(scores, positive, np.array([0.0, 0.4, 0.5, 0.9]))

    assert false_positives.tolist() == [2, 1, 0, 0]
    assert false_negatives.tolist() == [0, 0, 1, 2]
