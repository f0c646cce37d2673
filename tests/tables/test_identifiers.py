"""Identifiers are recognized by their content; names matter only in doubtful cases."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from rowcast.tables.identifiers import examine

ROWS = 400
RNG = np.random.default_rng(7)
DENSE_IDS = 10_000 + np.cumsum(RNG.integers(1, 9, ROWS))
SPARSE_IDS = 1_000_000 + np.cumsum(RNG.integers(1, 20_000, ROWS))
BURSTS = 5000 + np.cumsum(np.round(RNG.lognormal(2, 2.5, ROWS)) + 1)
PRICES = RNG.permutation(np.unique(np.round(RNG.lognormal(12, 0.6, 2 * ROWS)))[:ROWS])


def numbers(values: NDArray[np.generic]) -> NDArray[np.float64]:
    return values.astype(np.float64)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x", np.arange(ROWS)),
        ("x", RNG.permutation(ROWS) + 501),
        ("customer_no", DENSE_IDS),
        ("Loan No", SPARSE_IDS),
        ("x7", DENSE_IDS),
        ("x7", RNG.permutation(DENSE_IDS)),
        ("x7", SPARSE_IDS),
        ("x7", SPARSE_IDS[::-1]),
        ("Account", BURSTS),
        ("customerNumber", RNG.permutation(SPARSE_IDS)),
        ("customer_id", PRICES),
        ("customer_no", DENSE_IDS[:30]),
        ("x7", DENSE_IDS[:100]),
        ("HorseID", SPARSE_IDS[:30]),
        ("x7", np.concatenate([SPARSE_IDS[:200], SPARSE_IDS[:199:-1][:4], SPARSE_IDS[200:-4]])),
    ],
)
def test_numbers_that_only_an_identifier_would_have_are_identified_with_certainty(
    name: str, values: NDArray[np.generic]
) -> None:
    evidence = examine(name, numbers(values))

    assert evidence is not None
    assert evidence.is_certain


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("price", PRICES),
        ("x7", PRICES),
        ("x7", RNG.permutation(SPARSE_IDS)),
        ("population", RNG.permutation(SPARSE_IDS)),
        ("x7", RNG.integers(0, 1000, ROWS)),
    ],
)
def test_measurements_that_are_unique_by_chance_are_not_identifiers(name: str, values: NDArray[np.generic]) -> None:
    assert examine(name, numbers(values)) is None


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("price", np.sort(PRICES)),
        ("x7", np.sort(PRICES)),
        ("elapsed_seconds", np.cumsum(RNG.integers(1, 9, ROWS))),
        ("x7", np.arange(0, 3600 * ROWS, 3600)),
        ("x7", np.arange(350, 350 + 5 * ROWS, 5)),
        ("year", np.arange(1700, 1700 + ROWS)),
        ("x7", np.arange(1750, 1750 + ROWS)),
        ("x7", 1_700_000_000 + np.cumsum(RNG.integers(1, 5000, ROWS))),
        ("x7", 1_700_000_000_000 + np.cumsum(RNG.integers(1, 5000, ROWS))),
        ("x7", np.array([20_240_000 + 100 * month + day for month in range(1, 13) for day in range(1, 29)])),
        ("x7", np.array([100 * year + month for year in range(1990, 2020) for month in range(1, 13)])),
        ("x7", 1000 + np.cumsum(np.arange(ROWS) // 4 + 1)),
        ("monthsSinceStart", np.arange(ROWS) + np.arange(ROWS) // 9),
        ("x7", DENSE_IDS[:99]),
        ("x7", SPARSE_IDS[:99]),
    ],
)
def test_unique_numbers_that_may_be_measurements_are_reported_as_uncertain(
    name: str, values: NDArray[np.generic]
) -> None:
    evidence = examine(name, numbers(values))

    assert evidence is not None
    assert not evidence.is_certain


def test_a_column_of_a_very_small_table_is_not_examined() -> None:
    assert examine("customer_no", np.arange(19, dtype=np.float64)) is None
