"""Stacking: encoded rows are combined into the input tensors of a graph."""

from __future__ import annotations

import math

from rowcast.schema.encoding import NUMBERS, TEXTS, Feature, RowEncoder, TensorSpec, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows


def test_rows_are_stacked_in_order() -> None:
    schema = Schema(
        (
            Column(name="city", kind="category", levels=("Ulm",)),
            Column(name="income", kind="number", missing=True),
            Column(name="since", kind="datetime", origin=1_767_225_600_000_000),
            Column(name="owner", kind="boolean", words={"yes": True, "no": False}),
            Column(name="plan", kind="category", missing=True),
            Column(name="children", kind="integer"),
        )
    )
    body = b'{"city":"Ulm","income":1.5,"since":"2026-02-01T18:00:00Z","owner":"no","plan":null,"children":2}'
    encoder = RowEncoder(schema, own_plan(schema))

    tensors = stack_rows(encoder.plan, [encoder.read(body), encoder.read(body.replace(b"1.5", b"null"))])

    assert tensors[NUMBERS].dtype == "float32"
    assert tensors[NUMBERS][0].tolist() == [1.5, 31.75, 2, 6, 18, 0, 2]
    assert math.isnan(tensors[NUMBERS][1][0])
    assert tensors[TEXTS].tolist() == [["Ulm", ""], ["Ulm", ""]]


def test_tensors_match_the_plan_in_type_shape_and_fill_value() -> None:
    schema = Schema(
        (
            Column(name="a", kind="integer"),
            Column(name="b", kind="boolean"),
            Column(name="c", kind="category", missing=True),
            Column(name="d", kind="number", missing=True),
        )
    )
    plan = (
        TensorSpec("wide", "float64", (2,), (Feature("d"), Feature("a")), -1.0),
        TensorSpec("flag", "bool", (), (Feature("b"),)),
        TensorSpec("count", "int64", (1,), (Feature("a"),)),
        TensorSpec("text", "string", (), (Feature("c"),), ""),
    )
    encoder = RowEncoder(schema, plan)

    rows = [encoder.read(b'{"a":7,"b":true,"c":"x","d":0.1}'), encoder.read(b'{"a":9,"b":false}')]
    tensors = stack_rows(encoder.plan, rows)

    assert {name: (str(tensor.dtype), tensor.tolist()) for name, tensor in tensors.items()} == {
        "wide": ("float64", [[0.1, 7.0], [-1.0, 9.0]]),
        "flag": ("bool", [True, False]),
        "count": ("int64", [[7], [9]]),
        "text": ("object", ["x", ""]),
    }
