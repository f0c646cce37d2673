"""Derived columns have the documented values, in NumPy and in ONNX Runtime alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.schema.encoding import NUMBERS, own_plan
from rowcast.schema.expressions import parse_definitions
from rowcast.schema.schema import Column, Schema
from rowcast.tables.encode import encode_table
from rowcast.tables.infer import infer_schema
from rowcast.tables.read import table_from_memory
from rowcast.training.derivation import Derivation, derivation_of
from rowcast.training.onnx_graph import FLOAT, GraphBuilder, tensor

LARGEST = 3.4028234663852886e38
GAP = math.nan


def derivation(*definitions: str, columns: str = "ab") -> Derivation:
    schema = Schema(tuple(Column(name=name, kind="number") for name in columns))
    schema = Schema(schema.columns, parse_definitions(definitions, schema, {}))
    return derivation_of(schema, own_plan(schema))


def computed(derived: Derivation, numbers: Any) -> Any:
    """Return the derived columns; check that the graph computes the same bits for every row, alone and in a batch."""
    numbers = np.asarray(numbers, np.float32)
    expected = derived.append(numbers)
    graph = GraphBuilder()
    graph.node("Identity", derived.emit(graph, NUMBERS), output="out")
    inputs = [tensor(NUMBERS, FLOAT, "N", numbers.shape[1])]
    model = open_graph(graph.model(inputs, tensor("out", FLOAT, "N", expected.shape[1])), "out")

    assert np.array_equal(model.run({NUMBERS: numbers}), expected, equal_nan=True)
    for row in range(min(len(numbers), 20)):
        alone = model.run({NUMBERS: numbers[row : row + 1]})
        assert np.array_equal(alone, expected[row : row + 1], equal_nan=True)
    assert np.array_equal(expected[:, : numbers.shape[1]], numbers, equal_nan=True)
    return expected[:, numbers.shape[1] :]


@pytest.mark.parametrize(
    ("expression", "a", "b", "value"),
    [
        ("a + b * 2", 3, 4, 11),
        ("-(a - b)", 3, 5, 2),
        ("a / b", 1, 3, np.float32(1 / 3)),
        ("a / b", 1, 0, GAP),
        ("a / b", 0, 0, GAP),
        ("a / b", 1, -0.0, GAP),
        ("a / b", GAP, 2, GAP),
        ("a / b", 2, GAP, GAP),
        ("1 / (a / b)", 2, 0, GAP),
        ("0 * (a / b)", 2, 0, GAP),
        ("(a / b) > 5", 2, 0, GAP),
        ("min(a / b, 5)", 2, 0, GAP),
        ("max(5, -1 * (a / b))", 2, 0, GAP),
        ("abs(a / b)", -2, 0, GAP),
        ("sqrt(a / b)", 2, 0, GAP),
        ("log(a / b)", 2, 0, GAP),
        ("log1p(a / b)", 2, 0, GAP),
        ("a * b", LARGEST, 2, GAP),
        ("a * b / b", LARGEST, 1e30, LARGEST),
        ("1 / (a * a * a * a * a * a * a * a * a)", LARGEST, 0, GAP),
        ("a - b", 16777216, 0.5, 16777216),
        ("(a - b) - a", 16777216, 0.5, -0.5),
        ("log(a)", 1, 0, 0),
        ("log(a)", 0, 0, GAP),
        ("log(a)", -1, 0, GAP),
        ("log(a)", 10, 0, np.float32(math.log(10))),
        ("(log(a) - 2.302585092994046) * 1e10", 10, 0, (float(np.float32(math.log(10))) - math.log(10)) * 1e10),
        ("log1p(a)", 1e-20, 0, np.float32(1e-20)),
        ("log1p(a)", 3e-10, 0, np.float32(math.log1p(float(np.float32(3e-10))))),
        ("log1p(a)", -1, 0, GAP),
        ("log1p(a)", -1.5, 0, GAP),
        ("log1p(a)", GAP, 0, GAP),
        ("sqrt(a)", 2, 0, np.float32(math.sqrt(2))),
        ("sqrt(a)", -1, 0, GAP),
        ("abs(a)", -3, 0, 3),
        ("min(a, b, 1)", 3, 2, 1),
        ("max(a, b, 1)", 3, 2, 3),
        ("min(a, b)", GAP, 2, GAP),
        ("max(a, b)", 2, GAP, GAP),
        ("a < b", 1, 2, 1),
        ("a <= b", 2, 2, 1),
        ("a > b", 2, 2, 0),
        ("a >= b", 2, 2, 1),
        ("a == b", 2, 2, 1),
        ("a != b", 2, 2, 0),
        ("a != b", 2, 1, 1),
        ("a != b", GAP, 1, GAP),
        ("a == b", 1, GAP, GAP),
        ("a < 5", GAP, 0, GAP),
        ("(2 > 1) + a", 1, 0, 2),
        ("(a < b) * 10 + (a > b)", 1, 2, 10),
    ],
)
def test_an_expression_has_the_documented_value(expression: str, a: float, b: float, value: float) -> None:
    (result,) = computed(derivation(f"x = {expression}"), [[a, b]])[0]

    assert np.array_equal(result, np.float32(value), equal_nan=True)


def test_a_derived_column_uses_the_rounded_value_of_an_earlier_one() -> None:
    derived = derivation("third = a / 3", "error = (third - 0.3333333333333333) * 1e10", "gap = 1 / third > 0")

    values = computed(derived, [[1, 0], [0, 0], [LARGEST, 0]])

    rounded = np.float32(1 / 3)
    assert values[0].tolist() == [rounded, np.float32((float(rounded) - 0.3333333333333333) * 1e10), 1]
    assert values[0, 1] > 90
    assert np.isnan(values[1, 2])


def test_a_single_column_is_derived_with_the_columns_on_which_it_depends() -> None:
    derived = derivation("x = a / b", "other = c * 2", "y = log(x)", "z = y + c", columns="abc")
    numbers = np.array([[3, 2, 5], [1, 0, 5]], np.float32)

    single = derived.only(derived.columns[3])

    assert [column.name for column in single.columns] == ["x", "y", "z"]
    assert (derived.operands, single.operands, derived.only(derived.columns[2]).operands) == (
        [0, 1, 2],
        [0, 1, 2],
        [0, 1],
    )
    assert np.array_equal(single.append(numbers)[:, -1], derived.append(numbers)[:, -1], equal_nan=True)
    assert computed(derived.only(derived.columns[1]), numbers).tolist() == [[10], [10]]


def test_logarithms_of_many_values_agree_between_numpy_and_the_graph() -> None:
    rng = np.random.default_rng(5)
    numbers = np.exp(rng.uniform(-87, 88, (30_000, 2))).astype(np.float32)
    numbers[:10_000] = rng.uniform(0.99, 1.01, (10_000, 2))

    values = computed(derivation("x = log(a)", "y = log(a / b)", "z = log1p(a)"), numbers)

    exact = numbers.astype(np.float64)
    assert values[:, 0] == pytest.approx(np.log(exact[:, 0]), rel=6e-8, abs=1e-45)
    assert values[:, 2] == pytest.approx(np.log1p(exact[:, 0]), rel=6e-8)


def dates(later: list[str], earlier: list[str], *definitions: str) -> Any:
    """Return the derived columns of a table with two date columns and a column of numbers."""
    count = len(later)
    table = table_from_memory({"n": [index % 7 for index in range(count)], "closed": later, "opened": earlier})
    schema = infer_schema(table, keep=["n"]).schema
    schema = Schema(schema.columns, parse_definitions(definitions, schema, {}))
    plan = own_plan(schema)
    return computed(derivation_of(schema, plan), encode_table(table, schema, plan)[NUMBERS])


def test_the_difference_between_two_dates_is_an_exact_number_of_days() -> None:
    opened = [f"{1950 + year}-{1 + year % 12:02}-28" for year in range(70)]
    closed = [f"{1953 + 2 * year}-02-{1 + year % 28:02}" for year in range(70)]
    days = (np.array(closed, "datetime64[D]") - np.array(opened, "datetime64[D]")).astype(int)

    values = dates(closed, opened, "age = closed - opened", "weeks = (closed - opened) / 7", "late = opened > closed")

    assert values[:, 0].tolist() == days.tolist()
    assert values[:, 1].tolist() == (days / 7).astype(np.float32).tolist()
    assert values[:, 2].tolist() == (days < 0).tolist()


def test_the_difference_between_two_times_is_exact_to_two_minutes_within_forty_years() -> None:
    opened = [f"{1985 + index}-03-05T{index % 24:02}:17:03" for index in range(40)]
    closed = [f"{1986 + index}-01-02T0{index % 10}:59:59" for index in range(39)] + ["1985-01-01T10:01:00"]
    days = (np.array(closed, "datetime64[s]") - np.array(opened, "datetime64[s]")).astype(float) / 86400

    values = dates(closed, opened, "age = closed - opened")[:, 0]

    assert np.abs(values - days).max() * 1440 < 2


def test_equal_dates_compare_as_equal_even_if_their_columns_have_different_origins() -> None:
    opened = [f"2020-01-{day:02}" for day in range(1, 31)]
    closed = ["2020-01-05"] * 15 + opened[15:]

    values = dates(closed, opened, "same = closed == opened", "other = closed != opened", "least = closed >= opened")

    same = [first == second for first, second in zip(closed, opened, strict=True)]
    assert values[:, 0].tolist() == same
    assert values[:, 1].tolist() == [not each for each in same]
    assert values[:, 2].tolist() == [first >= second for first, second in zip(closed, opened, strict=True)]


def test_without_derived_columns_the_numbers_and_the_graph_are_unchanged() -> None:
    numbers = np.ones((3, 2), np.float32)

    assert Derivation().append(numbers) is numbers
    assert Derivation().emit(GraphBuilder(), NUMBERS) == NUMBERS
