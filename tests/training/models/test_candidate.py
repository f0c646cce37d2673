"""The settings that all candidates share."""

from __future__ import annotations

import numpy as np
import pytest

from rowcast.training.models.candidate import FEWEST_POSITIVE, is_count


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 1.0, 2.0], True),
        ([1.0, 2.0, 3.0], True),
        ([0.0, 1.0, 1.0], False),
        ([0.0, 1.5, 2.0], False),
        ([-1.0, 1.0, 2.0], False),
    ],
    ids=["counts", "without zero", "0 and 1", "a fraction", "a negative number"],
)
def test_a_target_is_a_count_if_all_values_are_whole_and_not_negative(values: list[float], *, expected: bool) -> None:
    assert is_count(np.repeat(values, 100)) is expected


@pytest.mark.parametrize(("zeros", "positive", "expected"), [(0, 49, False), (0, 50, True), (9900, 50, False)])
def test_a_target_with_few_positive_values_is_not_treated_as_a_count(
    zeros: int, positive: int, *, expected: bool
) -> None:
    assert FEWEST_POSITIVE == 50
    assert is_count(np.array([0.0] * zeros + [2.0] * positive)) is expected
