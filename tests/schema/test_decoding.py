"""Decoding: input tensors are converted back to the raw cells of columns."""

from __future__ import annotations

import pytest

from rowcast.errors import BodyError, InvalidRows
from rowcast.schema.decoding import decode_columns
from rowcast.schema.encoding import NUMBERS, TEXTS, Feature, TensorSpec, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import Tensor
from rowcast.schema.values import DATE_PARTS

SCHEMA = Schema(
    (
        Column(name="n", kind="number", missing=True),
        Column(name="i", kind="integer"),
        Column(name="b", kind="boolean"),
        Column(name="d", kind="datetime", origin=1_767_225_600_000_000, missing=True),
        Column(name="c", kind="category", missing=True),
    )
)
PLAN = own_plan(SCHEMA)


def tensors(numbers: list[list[float | None]], texts: list[str]) -> dict[str, Tensor]:
    rows, width = len(numbers), len(numbers[0])
    return {
        NUMBERS: Tensor(NUMBERS, "FP32", (rows, width), [cell for row in numbers for cell in row]),
        TEXTS: Tensor(TEXTS, "BYTES", (rows, 1), texts),
    }


def test_tensors_are_decoded_into_raw_cells() -> None:
    columns = decode_columns(
        SCHEMA, PLAN, tensors([[1.5, 7.0, 1.0, 31.75, 2, 6, 18], [None, 8.0, 0.0, None, None, None, None]], ["x", ""])
    )

    assert columns == {
        "n": [1.5, None],
        "i": [7, 8],
        "b": [True, False],
        "d": ["2026-02-01T18:00:00Z", None],
        "c": ["x", None],
    }


def test_contradictory_date_parts_are_reported_with_their_row_and_column() -> None:
    with pytest.raises(InvalidRows) as caught:
        decode_columns(SCHEMA, PLAN, tensors([[1.5, 7.0, 1.0, 31.75, 3, 6, 18]], ["x"]))

    assert [(problem.row, problem.column, problem.code) for problem in caught.value.problems] == [
        (0, "d", "bad-datetime")
    ]


def test_the_hour_feature_corrects_a_datetime_that_rounding_moved_across_an_hour_boundary() -> None:
    schema = Schema((Column(name="d", kind="datetime"),))
    almost_noon = [20_000 + 0.4999999, 10, 4, 12]

    columns = decode_columns(
        schema, own_plan(schema), {NUMBERS: Tensor(NUMBERS, "FP32", (1, len(DATE_PARTS)), almost_noon)}
    )

    assert columns == {"d": ["2024-10-04T12:00:00Z"]}


def test_a_tensor_that_does_not_match_the_plan_is_rejected() -> None:
    fitting = tensors([[1.5, 7.0, 1.0, 31.75, 2, 6, 18]], ["x"])

    for wrong in (Tensor(TEXTS, "FP32", (1, 1), [1.0]), Tensor(TEXTS, "BYTES", (1,), ["x"])):
        with pytest.raises(BodyError):
            decode_columns(SCHEMA, PLAN, {**fitting, TEXTS: wrong})


def test_tensors_cannot_be_decoded_if_the_plan_lacks_the_days_feature_of_a_date() -> None:
    plan = (TensorSpec("hour", "float32", (1,), (Feature("d", "hour"),)),)

    with pytest.raises(BodyError):
        decode_columns(SCHEMA, plan, {"hour": Tensor("hour", "FP32", (1, 1), [18.0])})
