"""Any derived column has the value that its definition states, in plain Python, in NumPy and in ONNX Runtime."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import ExpressionError
from rowcast.schema.derived import Constant, DerivedColumn, Expression, FunctionCall, Negation, NumberColumn, Operation
from rowcast.schema.encoding import NUMBERS, own_plan
from rowcast.schema.expressions import parse_definitions
from rowcast.schema.schema import Column, Schema
from rowcast.training.derivation import derivation_of
from rowcast.training.onnx_graph import FLOAT, GraphBuilder, tensor

NAMES = ("a", "b c", "d")
COLUMNS = tuple(Column(name=name, kind="number") for name in NAMES)
SPECIAL = [0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-45, 1e-38, 1e30, 3.4028234663852886e38, -3.4028234663852886e38, math.nan]
NUMBER = st.one_of(st.sampled_from(SPECIAL), st.floats(width=32, allow_infinity=False))
LEAVES = st.one_of(
    st.sampled_from(NAMES).map(NumberColumn),
    st.floats(min_value=0, max_value=1e300, allow_nan=False).map(Constant),
    st.sampled_from([0.0, 1.0, 2.0, 0.5]).map(Constant),
)
OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
FUNCTIONS: dict[str, Callable[..., float]] = {
    "abs": abs,
    "log": lambda value: rounded(math.log(value)),
    "log1p": lambda value: rounded(math.log1p(value)),
    "max": max,
    "min": min,
    "sqrt": math.sqrt,
}


def larger(children: st.SearchStrategy[Expression]) -> st.SearchStrategy[Expression]:
    one, several = st.tuples(children), st.lists(children, min_size=2, max_size=3).map(tuple)
    return st.one_of(
        children.map(Negation),
        st.builds(Operation, st.sampled_from(sorted(OPERATIONS)), children, children),  # type: ignore[arg-type]
        st.builds(FunctionCall, st.sampled_from(["abs", "log", "log1p", "sqrt"]), one),
        st.builds(FunctionCall, st.sampled_from(["min", "max"]), several),
    )


EXPRESSIONS = st.recursive(LEAVES, larger, max_leaves=8)
WITH_COLUMN = st.builds(
    Operation, st.sampled_from(["+", "/", "<"]), st.sampled_from(NAMES).map(NumberColumn), EXPRESSIONS
)


def rounded(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(value))


def value_of(expression: Expression, row: dict[str, float]) -> float | None:
    """Compute the expression as documented; return None if the value is missing."""
    try:
        match expression:
            case NumberColumn(name=name):
                value = row[name]
            case Constant(value=constant):
                value = constant
            case Negation(operand=operand):
                value = -known(operand, row)
            case Operation(operator=symbol, left=left, right=right):
                value = float(OPERATIONS[symbol](known(left, row), known(right, row)))
            case FunctionCall(function=function, arguments=arguments):
                value = FUNCTIONS[function](*[known(argument, row) for argument in arguments])
    except (ArithmeticError, ValueError):
        return None
    return value if math.isfinite(value) else None


def known(expression: Expression, row: dict[str, float]) -> float:
    value = value_of(expression, row)
    if value is None:
        raise ArithmeticError
    return value


@settings(max_examples=300)
@given(
    st.lists(WITH_COLUMN, min_size=1, max_size=3), st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=1, max_size=9)
)
def test_a_derived_column_is_computed_as_documented(
    expressions: list[Expression], rows: list[tuple[float, float, float]]
) -> None:
    derived = [DerivedColumn(f"x{index}", each) for index, each in enumerate(expressions)]
    derived.append(DerivedColumn("last", Operation("*", NumberColumn("x0"), NumberColumn("a"))))
    schema = Schema(COLUMNS, tuple(derived))
    derivation = derivation_of(schema, own_plan(schema))
    numbers = np.array(rows, np.float32)
    graph = GraphBuilder()
    graph.node("Identity", derivation.emit(graph, NUMBERS), output="out")
    width = len(NAMES) + len(derived)
    model = open_graph(graph.model([tensor(NUMBERS, FLOAT, "N", 3)], tensor("out", FLOAT, "N", width)), "out")

    values = derivation.append(numbers)

    assert np.array_equal(model.run({NUMBERS: numbers}), values, equal_nan=True)
    assert not np.isinf(values).any()
    for cells, row in zip(values.tolist(), numbers.tolist(), strict=True):
        names = dict(zip(NAMES, row, strict=True))
        for column, cell in zip(derived, cells[len(NAMES) :], strict=True):
            value = value_of(column.expression, names)
            expected = math.nan if value is None or math.isinf(rounded(value)) else rounded(value)
            assert np.array_equal(cell, expected, equal_nan=True), (column.text, row)
            names[column.name] = expected


@settings(max_examples=300)
@given(WITH_COLUMN)
def test_parsing_the_text_or_json_form_of_an_expression_returns_the_same_expression(expression: Expression) -> None:
    column = DerivedColumn("x y", expression)

    assert parse_definitions([column.definition], Schema(COLUMNS), {}) == (column,)
    assert msgspec.json.decode(msgspec.json.encode(column), type=DerivedColumn) == column


@settings(max_examples=300)
@given(st.text(alphabet="ab =<>!+-*/(),.`\"'1e_ \t\u00e9^", max_size=40))
def test_any_text_is_parsed_or_rejected_with_a_position_in_the_text(text: str) -> None:
    try:
        (column,) = parse_definitions([text], Schema(COLUMNS), {})
    except ExpressionError as error:
        position = error.position
    else:
        assert parse_definitions([column.definition], Schema(COLUMNS), {}) == (column,)
        position = 1
    assert 1 <= position <= len(text) + 1
