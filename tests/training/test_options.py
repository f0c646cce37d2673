"""Validation of training options."""

from __future__ import annotations

from typing import Any

import pytest

from rowcast.errors import TrainingError
from rowcast.training.options import TrainingOptions


@pytest.mark.parametrize(
    ("option", "value"),
    [("holdout", 0.0), ("holdout", 1.0), ("folds", 1), ("trials", 0), ("jobs", 0), ("class_weight", "even")],
)
def test_out_of_range_values_are_rejected(option: str, value: Any) -> None:
    with pytest.raises(TrainingError, match=f"option '{option}' must be .* got {value!r}"):
        TrainingOptions(target="y", name="x", **{option: value})


def test_the_options_group_and_time_cannot_be_combined() -> None:
    with pytest.raises(TrainingError, match="options 'group' and 'time' cannot be combined"):
        TrainingOptions(target="y", name="x", group="customer", time="day")
