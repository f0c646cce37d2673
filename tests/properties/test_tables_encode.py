"""Tables and rows are encoded identically, bit for bit, for all cells and all column types."""
# ruff: noqa: DTZ001 - some tests use naive datetimes

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from rowcast.errors import InvalidRows
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows
from rowcast.schema.values import BLANKS, MISSING_WORDS, NUMBER_FORMS
from rowcast.tables.encode import encode_all

SCHEMA = Schema(
    (
        Column(name="n", kind="number", missing=True),
        Column(name="form", kind="number", missing=True, forms=tuple(NUMBER_FORMS)),
        Column(name="i", kind="integer", missing=True),
        Column(name="b", kind="boolean", missing=True, words={"yes": True, "no": False, "0": False, "1": True}),
        Column(name="c", kind="category", missing=True, levels=("red", "caf\u00e9", "1", "true")),
        Column(name="closed", kind="category", missing=True, levels=("a", "b"), closed=True),
        Column(name="d", kind="datetime", missing=True, forms=("%d/%m/%Y", "%b-%Y"), origin=86_400_000_000),
        Column(name="zoned", kind="datetime", missing=True, zone="Europe/Berlin"),
        Column(name="needed", kind="category"),
    )
)
NAMES = SCHEMA.names()

numbers = st.one_of(
    st.sampled_from(["0", "-0", "-0.0", "5.", ".5", "+7", "1e3", "1E-45", "1e999", "-1e38", "3.4028235e38", "3.5e38"]),
    st.sampled_from(["9007199254740993", "16777217", "0.1", "1_000", "0x10", "inf", "nan", "١", "1 2", "--1", "."]),
    st.sampled_from(["$1,250.00", "95%", "3+", "1,000", "1,00", "$ 5", "-€3", "5 %", "£1,2"]),
    st.floats(allow_nan=False).map(repr),
    st.floats(width=32, allow_nan=False).map(repr),
    st.integers().map(str),
)
words = st.sampled_from(["Yes", "NO", "true", "FALSE", "t", "0", "1", "maybe", "T\u0052UE"])
texts = st.one_of(
    st.sampled_from(["red", "blue", "cafe\u0301", "caf\u00e9", "1", "1.0", "a", "b", "Red", "tr\u0000ue"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
dates = st.one_of(
    st.sampled_from(["2026-01-31", "2026-02-30", "2026-01-31T09:30:00Z", "2026-01-31 09:30:00.123456+02:00"]),
    st.sampled_from(["31/01/2026", "1/2/2026", "Mar-2018", "mar-2018", "20260131", "2026-1-31", "31.01.2026"]),
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(str),
)
blanks = st.text(st.sampled_from(BLANKS), max_size=2)
cells = st.one_of(
    st.none(),
    st.sampled_from(sorted(MISSING_WORDS)),
    st.tuples(blanks, st.one_of(numbers, words, texts, dates), blanks).map("".join),
)
fitting = {"number": numbers, "integer": numbers, "boolean": words, "category": texts, "datetime": dates}


def one_by_one(schema: Schema, rows: list[dict[str, Any]]) -> tuple[dict[str, np.ndarray], list[Any]]:
    """Encode rows one by one; exclude invalid rows from the tensors."""
    encoder = RowEncoder(schema, own_plan(schema))
    encoded, problems = [], []
    for index, row in enumerate(rows):
        try:
            encoded.append(encoder.parse(row, text=True))
        except InvalidRows as error:
            problems += [(index, problem.column, problem.code, problem.message) for problem in error.problems]
    return stack_rows(encoder.plan, encoded) if encoded else {}, problems


def assert_alike(schema: Schema, frame: pl.DataFrame) -> None:
    tensors, problems = one_by_one(schema, frame.to_dicts())
    encoded = encode_all(frame, schema, own_plan(schema))

    assert [(each.row, each.column, each.code, each.message) for each in encoded.problems()] == problems
    valid = ~encoded.rejected()
    for name, expected in tensors.items():
        tensor = encoded.tensors[name][valid]
        assert tensor.dtype == expected.dtype
        if expected.dtype == object:
            assert tensor.tolist() == expected.tolist()
        else:
            assert tensor.tobytes() == expected.tobytes()


@st.composite
def text_columns(draw: st.DrawFn) -> tuple[Schema, pl.DataFrame]:
    """Draw string cells for a column of the schema; most cells are valid."""
    column = draw(st.sampled_from(SCHEMA.columns))
    matching = st.tuples(blanks, fitting[column.kind], blanks).map("".join)
    values = draw(st.lists(st.one_of(matching, matching, matching, cells), min_size=1, max_size=25))
    return Schema((column,)), pl.DataFrame({column.name: pl.Series(values, dtype=pl.String)})


@settings(max_examples=400)
@given(text_columns())
def test_string_cells_are_encoded_identically_in_tables_and_rows(table: tuple[Schema, pl.DataFrame]) -> None:
    assert_alike(*table)


@settings(max_examples=60)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(NAMES, cells)), min_size=1, max_size=6))
def test_tables_with_all_columns_are_encoded_like_their_rows(rows: list[dict[str, Any]]) -> None:
    assert_alike(SCHEMA, pl.DataFrame(rows, schema=dict.fromkeys(NAMES, pl.String)))


moments = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
typed = {
    pl.Int64: st.integers(-(1 << 63), (1 << 63) - 1),
    pl.Float64: st.floats(allow_nan=False) | st.integers(-5, 5).map(float),
    pl.Boolean: st.booleans(),
    pl.Datetime("us"): moments,
    pl.Datetime("us", "UTC"): moments.map(lambda moment: moment.replace(tzinfo=UTC)),
}


@st.composite
def typed_columns(draw: st.DrawFn) -> tuple[Schema, pl.DataFrame]:
    """Draw typed cells for a column of the schema; their type may not match the kind of the column."""
    column = draw(st.sampled_from(SCHEMA.columns))
    kind = draw(st.sampled_from(list(typed)))
    values = draw(st.lists(st.none() | typed[kind], min_size=1, max_size=25))
    return Schema((column,)), pl.DataFrame({column.name: pl.Series(values, dtype=kind)})


@settings(max_examples=300)
@given(typed_columns())
def test_typed_cells_are_encoded_identically_in_tables_and_rows(table: tuple[Schema, pl.DataFrame]) -> None:
    assert_alike(*table)
