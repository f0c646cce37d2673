"""The profile of a column is exact, whatever notation its cells use and wherever an unusual cell occurs."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.tables import profile
from rowcast.tables.profile import ColumnProfile, ValueCount


def profiled(cells: Any, *, is_sensitive: bool = False, **series: Any) -> ColumnProfile:
    return profile.profile_column(pl.Series("x", cells, **series), is_sensitive=is_sensitive)


@given(st.lists(st.none() | st.integers(-50, 50), min_size=1, max_size=60), st.booleans())
def test_the_profile_of_whole_numbers_is_exact(values: list[int | None], are_texts: bool) -> None:
    cells: list[Any] = [None if value is None else str(value) for value in values] if are_texts else values
    present = sorted(value for value in values if value is not None)

    result = profiled(cells, dtype=pl.String if are_texts else pl.Int64)

    assert (result.missing, result.distinct) == (len(values) - len(present), len(set(present)))
    if present:
        assert (result.kind, result.low, result.high) == ("integer", present[0], present[-1])
        assert result.median == present[(len(present) - 1) // 2]
        assert result.histogram is not None
        assert sum(result.histogram.rows) == len(present)
    else:
        assert (result.kind, result.low, result.histogram, result.missing_share) == (None, None, None, 1.0)


def test_the_bins_of_a_histogram_have_equal_width() -> None:
    values = np.random.default_rng(0).normal(size=5000)

    histogram = profiled(values).histogram

    assert histogram is not None
    assert list(histogram.rows) == np.histogram(values, profile.BINS)[0].tolist()
    assert (histogram.low, histogram.high) == (values.min(), values.max())


def test_each_whole_number_in_a_small_range_has_its_own_bin() -> None:
    histogram = profiled([1, 1, 3, 5, 5, 5]).histogram

    assert histogram is not None
    assert list(histogram.rows) == [2, 0, 1, 0, 3]


@pytest.mark.parametrize(
    ("cells", "kind", "low", "high", "distinct"),
    [
        (["$1,250.00", "$8", " $8.0 "], "number", 8.0, 1250.0, 2),
        (["1", "1.0", "2.5"], "number", 1.0, 2.5, 2),
        (["2025-03-01", "2025-03-01T12:30:00", "NA"], "datetime", "2025-03-01", "2025-03-01T12:30:00", 2),
        ([date(2025, 3, 1), date(2024, 1, 2)], "datetime", "2024-01-02", "2025-03-01", 2),
        ([datetime(2025, 3, 1, 8, tzinfo=UTC), None], "datetime", "2025-03-01T08:00:00", "2025-03-01T08:00:00", 1),
        (["3/14/2025", "12/31/2024"], "datetime", "2024-12-31", "2025-03-14", 2),
    ],
)
def test_numbers_and_dates_are_compared_by_value(
    cells: list[Any], kind: str, low: Any, high: Any, distinct: int
) -> None:
    series = pl.Series("x", cells)
    series = series.cast(pl.Datetime("us")) if series.dtype == pl.Date else series

    result = profile.profile_column(series, is_sensitive=False)

    assert (result.kind, result.low, result.high, result.distinct) == (kind, low, high, distinct)


def test_the_most_frequent_strings_are_counted() -> None:
    result = profiled(["b", " a", "a", "c", "?", "d", "d", "d", "", None])

    assert (result.kind, result.missing, result.distinct) == ("category", 3, 4)
    assert list(result.frequent) == [ValueCount("d", 3), ValueCount("a", 2)]
    assert list(result.examples) == ["b", "a", "c"]
    assert (result.low, result.histogram) == (None, None)


def test_ties_among_the_most_frequent_strings_are_in_alphabetical_order() -> None:
    letters = [letter for letter in "hgfedcba" for _ in range(2)]

    assert [each.value for each in profiled(letters).frequent] == list("abcde")


def test_a_column_of_unique_strings_has_no_frequent_values() -> None:
    result = profiled([f"text {number}" for number in range(50)])

    assert (list(result.frequent), result.distinct) == ([], 50)


@pytest.mark.parametrize("cells", [["Yes", "no", "YES", "Yes", "NA"], [True, False, True, True, None]])
def test_words_that_mean_yes_and_no_are_treated_as_booleans(cells: list[Any]) -> None:
    result = profiled(cells)

    assert (result.kind, result.missing, result.distinct) == ("boolean", 1, 2)
    assert [each.rows for each in result.frequent] == [3]


@pytest.mark.parametrize("odd", ["n.a.", "inf", "12 apples"])
def test_a_single_string_among_numbers_makes_the_column_a_category(odd: str) -> None:
    cells = [str(number % 700) for number in range(20_000)]
    cells[13_577] = odd

    result = profiled(cells)

    assert (result.kind, result.distinct, result.missing) == ("category", 701, 0)


def test_a_notation_that_occurs_late_is_recognized() -> None:
    cells = [str(number % 700) for number in range(20_000)]
    cells[13_577] = "$1,250.50"

    result = profiled(cells)

    assert (result.kind, result.high, result.distinct) == ("number", 1250.5, 701)


def test_numbers_beyond_the_range_of_a_model_are_shown_as_strings() -> None:
    assert profiled(["1e60", "2", "1e60"]).frequent == [ValueCount("1e60", 2)]


def test_a_sensitive_column_shows_no_values() -> None:
    for cells in (["a", "a", None], ["1", "2", None], ["2025-01-01", "2025-01-02", None]):
        result = profiled(cells, is_sensitive=True)

        assert (result.sensitive, result.missing) == (True, 1)
        assert (result.low, result.median, result.high, result.histogram) == (None,) * 4
        assert (list(result.frequent), list(result.examples)) == ([], [])
