"""Fixtures for the data check tests."""

from __future__ import annotations

import numpy as np
import pytest

from support.findings import RNG


@pytest.fixture(autouse=True)
def same_random_numbers() -> None:
    """Give each test the same random numbers, regardless of the tests that ran before it."""
    RNG.bit_generator.state = np.random.default_rng(1).bit_generator.state
