"""Encoding tables. Property tests in `properties/test_tables_encode.py` compare encoded tables with encoded rows."""
# ruff: noqa: DTZ001 - some tests use naive datetimes

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest

from rowcast.errors import InvalidRows, TableError
from rowcast.schema.encoding import Feature, TensorSpec, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.tables.encode import encode_all, encode_table

SCHEMA = Schema(
    (
        Column(name="n", kind="number", missing=True),
        Column(name="zoned", kind="datetime", missing=True, zone="Europe/Berlin"),
        Column(name="needed", kind="category"),
    )
)
PLAN = own_plan(SCHEMA)


def test_nan_in_a_typed_column_is_treated_as_missing() -> None:
    frame = pl.DataFrame({"n": [float("nan"), 1.0], "needed": ["x", "y"]})

    assert np.isnan(encode_table(frame, SCHEMA, PLAN)["rowcast_numbers"][0, 0])


def test_invalid_cells_are_reported_with_their_row_and_column() -> None:
    frame = pl.DataFrame({"n": ["1", "x", "2"], "needed": ["a", "b", None]})

    with pytest.raises(InvalidRows) as caught:
        encode_table(frame, SCHEMA, PLAN)

    assert [(problem.row, problem.column, problem.code) for problem in caught.value.problems] == [
        (1, "n", "wrong-type"),
        (2, "needed", "missing"),
    ]


def test_an_absent_column_is_rejected_unless_it_allows_missing_values() -> None:
    frame = pl.DataFrame({"n": ["1"], "needed": ["a"]})

    assert np.isnan(encode_table(frame.drop("n"), SCHEMA, PLAN)["rowcast_numbers"][0, 0])
    with pytest.raises(TableError) as caught:
        encode_table(frame.drop("needed"), SCHEMA, PLAN)
    with pytest.raises(TableError, match="if 'Zoned' is the same column, rename it"):
        encode_table(frame.with_columns(Zoned=None), SCHEMA, PLAN)

    assert caught.value.slug == "missing-column"


def test_the_number_of_reported_invalid_cells_is_limited() -> None:
    frame = pl.DataFrame({"n": ["x"] * 1000, "needed": ["a"] * 1000})

    with pytest.raises(InvalidRows) as caught:
        encode_table(frame, SCHEMA, PLAN)
    assert len(caught.value.problems) == 20
    assert encode_all(frame, SCHEMA, PLAN).rejected().all()


def test_tables_are_encoded_with_the_types_and_fill_values_of_an_imported_graph() -> None:
    schema = Schema((Column(name="i", kind="integer", missing=True), Column(name="b", kind="boolean")))
    plan = (
        TensorSpec("ints", "int64", (), (Feature("i"),), -1),
        TensorSpec("both", "float64", (2,), (Feature("b"), Feature("i"))),
    )

    tensors = encode_table(pl.DataFrame({"i": ["7", None], "b": ["true", "false"]}), schema, plan)

    assert tensors["ints"].tolist() == [7, -1]
    assert tensors["ints"].dtype == np.int64
    np.testing.assert_array_equal(tensors["both"], [[1.0, 7.0], [0.0, np.nan]])


def test_naive_datetimes_are_interpreted_in_the_time_zone_of_the_column() -> None:
    summer = datetime(2026, 7, 1, 0, 30)
    frame = pl.DataFrame({"zoned": [summer, summer + timedelta(days=180)], "needed": ["x", "x"]})

    hours = encode_table(frame, SCHEMA, PLAN)["rowcast_numbers"][:, -1]

    assert hours.tolist() == [22.0, 23.0]
