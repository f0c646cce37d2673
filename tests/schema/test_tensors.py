"""Tensors in requests: declarations are checked against the data."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from rowcast.errors import BodyError
from rowcast.schema import tensors
from rowcast.schema.tensors import TensorHeader


@pytest.mark.parametrize(
    ("shape", "data"), [([4], [1, 2, None, 4]), ([2, 2], [1, 2, None, 4]), ([2, 2], [[1, 2], [None, 4]])]
)
def test_json_data_can_be_flat_or_nested(shape: list[int], data: list[Any]) -> None:
    tensor = tensors.from_json(TensorHeader("x", shape, "INT64", data=data))

    assert (tensor.rows, tensor.width, tensor.cells()) == (shape[0], 4 // shape[0], [1, 2, None, 4])


@pytest.mark.parametrize(
    ("shape", "datatype", "data"),
    [
        ([2], "INT64", [1]),
        ([2, 2], "INT64", [[1, 2], [3]]),
        ([1], "INT64", [1.5]),
        ([1], "INT64", [True]),
        ([1], "UINT8", [256]),
        ([1], "BYTES", [1]),
        ([1], "BOOL", [1]),
        ([1], "DECIMAL", [1]),
        ([], "INT64", [1]),
        ([-1], "INT64", [1]),
        ([1, 1, 1], "INT64", [1]),
        ([1], "INT64", msgspec.UNSET),
    ],
)
def test_json_data_that_contradicts_its_declaration_is_rejected(shape: list[int], datatype: str, data: Any) -> None:
    with pytest.raises(BodyError):
        tensors.from_json(TensorHeader("x", shape, datatype, data=data))


@pytest.mark.parametrize("datatype", ["INT64", "INT8", "UINT16"])
def test_a_whole_float_in_json_is_an_integer(datatype: str) -> None:
    data = [2.0, -0.0, None, 3]

    cells = tensors.from_json(TensorHeader("x", [4], datatype, data=data)).cells()

    assert [(cell, type(cell)) for cell in cells] == [(2, int), (0, int), (None, type(None)), (3, int)]
    assert data[0].__class__ is float


@pytest.mark.parametrize("cell", [1e300, 2.0**63, 1e999])
def test_a_float_beyond_the_range_of_an_integer_datatype_is_rejected(cell: float) -> None:
    with pytest.raises(BodyError):
        tensors.from_json(TensorHeader("x", [1], "INT64", data=[cell]))


def test_binary_data_is_read_from_the_end_of_the_body_in_order() -> None:
    texts, numbers = tensors.to_bytes("BYTES", ["a", "é"]), tensors.to_bytes("FP32", [1.5, float("nan")])
    headers = [
        TensorHeader("t", [2], "BYTES", {"binary_data_size": len(texts)}),
        TensorHeader("j", [2], "BOOL", data=[True, None]),
        TensorHeader("n", [2], "FP32", {"binary_data_size": len(numbers)}),
    ]

    parsed = tensors.read_tensors(headers, memoryview(texts + numbers))

    assert [tensor.cells() for tensor in parsed] == [["a", "é"], [True, None], [1.5, None]]


@pytest.mark.parametrize("size", [-1, 3, 5, True, "4", 2**62])
def test_declared_sizes_must_match_the_binary_data(size: Any) -> None:
    header = TensorHeader("x", [1], "INT32", {"binary_data_size": size})

    with pytest.raises(BodyError):
        tensors.read_tensors([header], memoryview(b"\0\0\0\0"))


def test_a_tensor_with_both_json_and_binary_data_is_rejected() -> None:
    header = TensorHeader("x", [1], "INT32", {"binary_data_size": 4}, data=[1])

    with pytest.raises(BodyError):
        tensors.read_tensors([header], memoryview(b"\0\0\0\0"))


def test_a_boolean_in_binary_data_must_be_zero_or_one() -> None:
    with pytest.raises(BodyError):
        tensors.from_bytes(TensorHeader("x", [2], "BOOL"), memoryview(b"\1\2"))


@pytest.mark.parametrize("data", [b"\1\0\0\0a\0", b"\2\0\0\0a", b"\1\0\0\0", b"\1\0\0\0\xff"])
def test_malformed_binary_strings_are_rejected(data: bytes) -> None:
    with pytest.raises(BodyError):
        tensors.from_bytes(TensorHeader("x", [1], "BYTES"), memoryview(data)).cells()


def test_arrays_are_encoded_in_the_layout_of_the_datatype() -> None:
    assert tensors.to_array("UINT8", [1, 2]).dtype == np.uint8
    assert tensors.to_bytes("INT16", [1, 2]) == b"\1\0\2\0"


def test_a_huge_shape_is_rejected_before_memory_is_allocated() -> None:
    for shape in ([2**62, 2**62], [2**31], [0, 2**60]):
        with pytest.raises(BodyError):
            tensors.from_bytes(TensorHeader("x", shape, "BYTES"), memoryview(b"\x00" * 9)).cells()
    with pytest.raises(BodyError):
        tensors.read_tensors([TensorHeader("x", [1], "INT64", {"binary_data_size": 2**62})], memoryview(b"1"))
