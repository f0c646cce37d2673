"""Before a number is compared with the range seen in training, it is rounded to float32, as it is for the model."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.schema.encoding import Feature, TensorSpec, own_plan
from rowcast.schema.range_checks import RangeCheck
from rowcast.schema.ranges import seen_range
from rowcast.schema.schema import Column, Schema

NUMBERS = st.floats(-1e30, 1e30) | st.sampled_from([0.0, -0.0, 0.1, -0.1, 1e-44, 16777217.0, 1e-46])


def number(low: float | None, high: float | None) -> Column:
    return Column(name="x", kind="number", low=low, high=high)


@given(NUMBERS, NUMBERS, NUMBERS, st.integers(-3, 3))
def test_a_double_is_in_range_if_its_float32_value_is_in_range(
    first: float, second: float, value: float, steps: int
) -> None:
    low, high = sorted((first, second))
    seen = seen_range(number(low, high))
    near = np.float64(np.float32(high))
    for _ in range(abs(steps)):
        near = np.nextafter(near, np.sign(steps) * np.inf)

    assert seen is not None
    for each in (value, low, high, float(near), *seen, *np.nextafter(seen, [-np.inf, np.inf]).tolist()):
        assert (seen.low <= each <= seen.high) == bool(np.float32(low) <= np.float32(each) <= np.float32(high))


@pytest.mark.parametrize("column", [number(None, 1.0), number(0.0, None), Column(name="x", kind="datetime", low=0.0)])
def test_a_column_with_only_one_known_bound_has_no_range(column: Column) -> None:
    assert seen_range(column) is None


def test_columns_with_numbers_outside_their_range_are_found_in_tensors() -> None:
    schema = Schema(
        (
            Column(name="c", kind="category", levels=("a",)),
            Column(name="b", kind="integer", low=0.0, high=9.0),
            Column(name="a", kind="number", low=0.0, high=0.1),
            Column(name="free", kind="number"),
        )
    )
    rows = np.array([[10, 0.1, -1e9], [9, np.nan, 1e9], [-1, 0.2, 0]], np.float32)

    found = RangeCheck(schema, own_plan(schema)).find({"rowcast_numbers": rows})

    assert [(each.column, each.rows.tolist()) for each in found] == [
        ("b", [True, False, True]),
        ("a", [False, False, True]),
    ]


def test_the_fill_value_of_an_imported_graph_is_not_outside_the_range() -> None:
    plan = (TensorSpec("in", "float64", (), (Feature("x"),), fill=-1.0),)

    found = RangeCheck(Schema((number(0.0, 5.0),)), plan).find({"in": np.array([-1.0, 3.0, 6.0])})

    assert [each.rows.tolist() for each in found] == [[False, False, True]]
