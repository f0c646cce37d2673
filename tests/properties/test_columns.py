"""Columns are encoded exactly like rows. Malformed tensors never cause crashes or large allocations."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowcast.errors import InvalidRows
from rowcast.schema import tensors
from rowcast.schema.column_encoding import ColumnEncoder, TextLookup
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.range_checks import RangeCheck
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows
from rowcast.schema.tensors import Tensor, TensorHeader, length_prefixed
from support import fuzzing, v2

NUMBERS = st.one_of(
    st.floats(width=32, allow_nan=False),
    st.floats(),
    st.integers(-(2**53), 2**53).map(float),
    st.sampled_from([0.0, -0.0, 0.1, 1e39, 3.4028235677973366e38, 3.4028235e38, 16777217.0]),
)
WHOLE = st.integers(-(2**63), 2**63 - 1)
WORDS = st.sampled_from(["Yes", "no", "YES", "maybe", "", "true"])
LEVELS = st.sampled_from(["a", "bb", "", "NA", "new", " a", "é", "a" * 300])
MOMENTS = st.sampled_from(["2026-01-31T09:30:00Z", "2020-02-29", "31.12.2021", "never", ""])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Schema, dict[str, Any]]:
    """Draw a schema with every kind of column, and mostly valid cells."""
    missing = draw(st.booleans())
    count = draw(st.integers(1, 12))
    schema = Schema(
        (
            Column(name="n", kind="number", missing=missing, low=-1000.1, high=1e6),
            Column(name="i", kind="integer", missing=missing, low=0.0, high=1e6),
            Column(name="f", kind="boolean", missing=missing),
            Column(name="w", kind="boolean", words={"yes": True, "no": False}, missing=missing),
            Column(name="c", kind="category", levels=("a", "bb", "é", "a" * 300, "NA"), missing=missing),
            Column(name="d", kind="datetime", forms=("%d.%m.%Y",), origin=1_500_000_000_000_000, missing=missing),
        )
    )
    tame = draw(st.booleans())

    def cells(strategy: Any, tame_strategy: Any) -> list[Any]:
        return draw(st.lists(tame_strategy if tame else strategy, min_size=count, max_size=count))

    small = st.integers(-(10**6), 10**6)
    columns = {
        "n": ("FP64", cells(NUMBERS, st.floats(width=32, allow_nan=missing, allow_infinity=False))),
        "i": draw(st.sampled_from([("INT64", cells(WHOLE, small)), ("FP64", cells(NUMBERS, small.map(float)))])),
        "f": ("BOOL", cells(st.booleans(), st.booleans())),
        "w": ("BYTES", cells(WORDS, st.sampled_from(["Yes", "no"]))),
        "c": ("BYTES", cells(LEVELS, st.sampled_from(["a", "bb", "é"]))),
        "d": ("BYTES", cells(MOMENTS, st.sampled_from(["2026-01-31T09:30:00Z", "2020-02-29"]))),
    }
    return schema, columns


def as_tensors(columns: dict[str, Any]) -> dict[str, Tensor]:
    parsed = {}
    for name, (kind, cells) in columns.items():
        raw = v2.packed(kind, cells)
        parsed[name] = tensors.from_bytes(TensorHeader(name, [len(cells), 1], kind), memoryview(raw))
    return parsed


@given(batches())
@settings(max_examples=600)
def test_columns_that_the_fast_path_accepts_are_valid_and_encoded_like_rows(batch: tuple[Schema, Any]) -> None:
    schema, columns = batch
    plan = own_plan(schema)
    raw = as_tensors(columns)
    fast = ColumnEncoder(schema, plan).read(raw)
    encoder = RowEncoder(schema, plan)
    cells = {name: tensor.cells() for name, tensor in raw.items()}
    rows = [dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True)]
    try:
        encoded = [encoder.parse(row) for row in rows]
    except InvalidRows:
        assert fast is None
        return
    if fast is None:
        return
    outside = RangeCheck(schema, plan).find(fast)
    for index, row in enumerate(encoded):
        assert [(each.column, each.code) for each in row.warnings] == [
            (each.column, "out-of-range") for each in outside if each.rows[index]
        ]
    slow = stack_rows(encoder.plan, encoded)
    assert fast.keys() == slow.keys()
    for name, tensor in fast.items():
        assert tensor.dtype == slow[name].dtype
        assert tensor.tobytes() == slow[name].tobytes() if tensor.dtype != object else (tensor == slow[name]).all()


@pytest.mark.parametrize("seed", range(3))
def test_random_binary_tensors_are_rejected_or_read_as_declared(seed: int) -> None:
    """A shorter version of `make fuzz-tensors`."""
    counts = fuzzing.run(2000, random.Random(seed))

    assert counts["refused"] > 200
    assert counts["read"] > 100
    assert counts["largest_bytes"] < 2_000_000


KNOWN = st.sets(st.text(alphabet="ab\x00\x01é", max_size=3) | st.just("a" * 300), min_size=1, max_size=8)


@given(KNOWN, st.data())
def test_known_strings_are_looked_up_by_their_bytes(known: set[str], data: st.DataObject) -> None:
    values = {text: text.upper() for text in known}
    supported = [text for text in known if 0 < len(text.encode()) < 256 and "\0" not in text]
    texts = data.draw(st.lists(st.sampled_from(sorted(known)), min_size=1, max_size=20))

    result = TextLookup(values).read(b"".join(map(length_prefixed, texts)), len(texts))

    if set(texts) <= set(supported):
        assert result is not None
    assert result is None or result.tolist() == [values[text] for text in texts]


@given(
    st.lists(st.sampled_from([b"\0", b"\1", b"\2", b"\0\0\0", b"a", b"ab", b"\1\0\0\0a"]), max_size=12),
    st.integers(1, 4),
)
def test_encoding_strings_read_from_arbitrary_bytes_produces_the_same_bytes(pieces: list[bytes], count: int) -> None:
    data = b"".join(pieces)

    result = TextLookup({text: text for text in ("a", "ab", "aa", "b")}).read(data, count)

    assert result is None or b"".join(map(length_prefixed, result.tolist())) == data
