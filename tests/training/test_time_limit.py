"""The time needed by the steps after the search."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from rowcast.training import time_limit
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS
from support.training import learning_problem, weighted_loans

OPTIONS = TrainingOptions(target="y", name="loans", preset="best", timeout=100.0)


def is_refitted(options: TrainingOptions, seconds_left: float) -> bool:
    problem = learning_problem(weighted_loans(), exclude=("w",))
    return time_limit.is_refitted(options, problem, fit_seconds=8.0, row_microseconds=50.0, seconds_left=seconds_left)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"timeout": None}, True),
        ({"refit": True}, True),
        ({"refit": False, "timeout": None}, False),
        ({"preset": "balanced", "timeout": None}, False),
        ({"preset": "balanced", "refit": True}, True),
    ],
)
def test_only_a_refit_that_is_enabled_by_default_depends_on_the_remaining_time(
    change: dict[str, Any], *, expected: bool
) -> None:
    assert is_refitted(msgspec.structs.replace(OPTIONS, **change), 0.0) is expected


def test_a_refit_that_is_enabled_by_default_needs_time_for_the_fits_and_the_steps_after_them() -> None:
    problem = learning_problem(weighted_loans(), exclude=("w",))
    finishing = time_limit.finishing_seconds(problem, 100.0, PRESETS["best"], 50.0)
    fits = 8.0 / (1 - OPTIONS.holdout)

    assert is_refitted(OPTIONS, finishing + fits + 0.2)
    assert not is_refitted(OPTIONS, finishing + fits - 0.2)


def test_a_wide_table_needs_more_time_after_the_search() -> None:
    rng = np.random.default_rng(0)
    narrow, wide = (
        learning_problem({**{f"x{index}": rng.normal(size=60).tolist() for index in range(width)}, "y": [0, 1] * 30})
        for width in (5, 400)
    )

    seconds = [time_limit.finishing_seconds(problem, 1000.0, PRESETS["best"], 600.0) for problem in (narrow, wide)]

    assert seconds[1] > seconds[0] + 1
    assert time_limit.finishing_seconds(wide, 1.0, PRESETS["best"], 600.0) == 0.5
