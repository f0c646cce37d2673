"""Column encoding, the fast path for many rows. Property tests are in `properties/test_columns.py`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.schema import tensors
from rowcast.schema.column_encoding import MAX_LOOKUP_TEXTS, ColumnEncoder, TextLookup
from rowcast.schema.encoding import own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import Tensor, TensorHeader, length_prefixed
from support import v2


def test_common_columns_are_encoded_on_the_fast_path() -> None:
    schema = Schema(
        (
            Column(name="n", kind="number", missing=True),
            Column(name="i", kind="integer"),
            Column(name="w", kind="boolean", words={"yes": True, "no": False}),
            Column(name="c", kind="category", levels=("a", "bb")),
        )
    )
    columns = {
        "n": ("FP64", [1.5, None]),
        "i": ("INT64", [1, 2]),
        "w": ("BYTES", ["Yes", "no"]),
        "c": ("BYTES", ["bb", "a"]),
    }

    raw = {
        name: tensors.from_bytes(TensorHeader(name, [2, 1], kind), memoryview(v2.packed(kind, cells)))
        for name, (kind, cells) in columns.items()
    }

    encoded = ColumnEncoder(schema, own_plan(schema)).read(raw)

    assert encoded is not None
    assert np.array_equal(encoded["rowcast_numbers"], [[1.5, 1, 1], [np.nan, 2, 0]], equal_nan=True)
    assert encoded["rowcast_texts"].tolist() == [["bb"], ["a"]]


@pytest.mark.parametrize(
    ("kind", "datatype", "cell"),
    [
        ("number", "FP64", 1e39),
        ("number", "FP64", float("nan")),
        ("number", "BOOL", True),
        ("integer", "FP64", 1.5),
        ("boolean", "INT64", 1),
        ("category", "BYTES", "unseen"),
        ("datetime", "BYTES", "soon"),
    ],
)
def test_columns_with_unsupported_values_are_left_to_the_row_encoder(kind: Any, datatype: str, cell: Any) -> None:
    schema = Schema((Column(name="x", kind=kind, levels=("a",)),))
    header = TensorHeader("x", [1, 1], datatype)
    tensor = tensors.from_bytes(header, memoryview(v2.packed(datatype, [cell])))

    assert ColumnEncoder(schema, own_plan(schema)).read({"x": tensor}) is None


def test_requests_with_absent_or_unknown_columns_are_left_to_the_row_encoder() -> None:
    schema = Schema((Column(name="x", kind="number"), Column(name="y", kind="number")))
    encoder = ColumnEncoder(schema, own_plan(schema))
    numbers = Tensor("x", "FP64", (1, 1), np.array([1.5]))

    assert encoder.read({"x": numbers}) is None
    assert encoder.read({"x": numbers, "y": numbers, "z": numbers}) is None
    assert encoder.read({}) is None


def test_a_lookup_table_with_too_many_strings_is_not_used() -> None:
    texts = [f"{number:03}" for number in range(MAX_LOOKUP_TEXTS + 1)]
    data = length_prefixed("001")

    assert TextLookup(dict.fromkeys(texts[:-1], 1.0)).read(data, 1) is not None
    assert TextLookup(dict.fromkeys(texts, 1.0)).read(data, 1) is None


def test_negative_zero_in_an_integer_column_is_encoded_as_zero() -> None:
    schema = Schema((Column(name="x", kind="integer"),))
    tensor = Tensor("x", "FP64", (1, 1), np.array([-0.0]))

    encoded = ColumnEncoder(schema, own_plan(schema)).read({"x": tensor})

    assert encoded is not None
    assert not np.signbit(encoded["rowcast_numbers"]).any()
