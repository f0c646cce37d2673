"""Compute derived columns, with bit-identical results in NumPy and in ONNX.

An expression is converted into ONNX operators once. For training, NumPy executes these operators; for serving, they
become nodes of the graph. All values are float64, and the final value is rounded to float32. IEEE 754 defines the
result of every operator except the logarithm. The last bit of a logarithm depends on the library, so logarithms are
rounded to float32 immediately.

A missing operand makes the result missing. Infinity, for example from a division by zero, becomes a missing value and
never reaches a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.derived import (
    COMPARISONS,
    Constant,
    DateColumn,
    DerivedColumn,
    Expression,
    FunctionCall,
    Negation,
    NumberColumn,
    Operation,
    columns_of,
)
from rowcast.schema.encoding import NUMBERS, Plan
from rowcast.schema.schema import Schema
from rowcast.schema.values import DAY_US
from rowcast.training.onnx_graph import DOUBLE, FLOAT, GraphBuilder

Numbers = NDArray[np.float32]
Value = TypeVar("Value")
"""An array, or the name of a tensor in a graph."""

NAN: Final = np.array(np.nan)
ARITHMETIC: Final = {"+": "Add", "-": "Sub", "*": "Mul", "/": "Div"}
RELATIONS: Final = {
    "<": "Less",
    "<=": "LessOrEqual",
    ">": "Greater",
    ">=": "GreaterOrEqual",
    "==": "Equal",
    "!=": "Equal",
}
_DTYPES: Final = {FLOAT: np.float32, DOUBLE: np.float64}
_OPERATORS: Final[Mapping[str, Callable[..., Any]]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Cast": lambda values, to: values.astype(_DTYPES[to]),
    "Concat": lambda *parts, axis: np.concatenate(parts, axis),
    "Div": np.divide,
    "Equal": np.equal,
    "Gather": np.take,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "IsInf": np.isinf,
    "IsNaN": np.isnan,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Log": np.log,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Or": np.logical_or,
    "Sqrt": np.sqrt,
    "Sub": np.subtract,
    "Where": np.where,
}


class Nodes(Protocol[Value]):
    """Accepts ONNX operators. A `GraphBuilder` adds them to a graph; `_Arrays` executes them."""

    def constant(self, array: NDArray[Any]) -> Value: ...

    def node(self, operator: str, *inputs: Value, **attributes: Any) -> Value: ...


class _Arrays:
    """Executes operators on arrays."""

    def constant(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def node(self, operator: str, *inputs: NDArray[Any], **attributes: Any) -> NDArray[Any]:
        return np.asarray(_OPERATORS[operator](*inputs, **attributes))


@dataclass(frozen=True)
class Derivation:
    """The derived columns of a model, with the positions of their operands in the tensor of numbers."""

    columns: tuple[DerivedColumn, ...] = ()
    positions: Mapping[str, int] = field(default_factory=dict)
    """The position of each raw column that an expression uses. For a datetime column, this is the position of its value
    in days.
    """
    origins: Mapping[str, int] = field(default_factory=dict)
    """The origin of each datetime column, in microseconds since the Unix epoch."""

    @property
    def operands(self) -> list[int]:
        """The positions of all raw columns that the expressions use."""
        return sorted(self.positions.values())

    def only(self, column: DerivedColumn) -> Derivation:
        """Return the derivation of one column, preceded by the derived columns on which it depends."""
        needed, used = [column], set(columns_of(column.expression))
        for earlier in reversed(self.columns[: self.columns.index(column)]):
            if earlier.name in used:
                needed.append(earlier)
                used |= set(columns_of(earlier.expression))
        positions = {name: position for name, position in self.positions.items() if name in used}
        return Derivation(tuple(reversed(needed)), positions, self.origins)

    def append(self, numbers: Numbers) -> Numbers:
        """Return the numbers [N, d], followed by one column per derived column."""
        with np.errstate(all="ignore"):  # infinity and NaN are expected and become missing values
            return _append(self, _Arrays(), numbers)

    def emit(self, graph: GraphBuilder, numbers: str) -> str:
        """Add the derived columns to a graph. Return the name of the tensor that contains the numbers and the derived
        columns.
        """
        return _append(self, graph, numbers)


def derivation_of(schema: Schema, plan: Plan) -> Derivation:
    """Return the derivation of a schema's derived columns."""
    used = {name for column in schema.derived for name in columns_of(column.expression)}
    positions = {
        feature.column: position
        for spec in plan
        if spec.name == NUMBERS
        for position, feature in enumerate(spec.columns)
        if feature.column in used and feature.part in ("value", "days")
    }
    origins = {column.name: column.origin for column in schema.columns if column.name in used}
    return Derivation(schema.derived, positions, origins)


def _append(derivation: Derivation, nodes: Nodes[Value], numbers: Value) -> Value:
    if not derivation.columns:
        return numbers
    converter = _Converter(nodes, derivation.origins, _operands(derivation, nodes, numbers))
    referenced = {name for column in derivation.columns for name in columns_of(column.expression)}
    parts = []
    for column in derivation.columns:
        part = nodes.node("Cast", converter.value(column.expression), to=FLOAT)
        parts.append(part)
        if column.name in referenced:
            converter.operands[column.name] = converter.double(_without_infinity(nodes, part, np.float32))
    block = nodes.node("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    return nodes.node("Concat", numbers, _without_infinity(nodes, block, np.float32), axis=1)


def _operands(derivation: Derivation, nodes: Nodes[Value], numbers: Value) -> dict[str, Value]:
    """Return the raw columns that the expressions use, each as float64 [N, 1]."""
    used = derivation.operands
    block = nodes.node("Gather", numbers, nodes.constant(np.array(used)), axis=1)
    block = nodes.node("Cast", block, to=DOUBLE)
    return {
        name: nodes.node("Gather", block, nodes.constant(np.array([used.index(position)])), axis=1)
        for name, position in derivation.positions.items()
    }


def _without_infinity(nodes: Nodes[Value], value: Value, dtype: type[np.floating[Any]]) -> Value:
    """Replace infinity with NaN, which means missing."""
    return nodes.node("Where", nodes.node("IsInf", value), nodes.constant(NAN.astype(dtype)), value)


@dataclass(frozen=True)
class _Converter(Generic[Value]):
    """Converts expressions into operators. Infinity is replaced wherever a later operator could make it finite."""

    nodes: Nodes[Value]
    origins: Mapping[str, int]
    operands: dict[str, Value]
    """The columns by name, each as float64 [N, 1]."""

    def value(self, expression: Expression) -> Value:
        """Return the value as float64. Infinity means that the value is missing."""
        match expression:
            case NumberColumn(name=name) | DateColumn(name=name):
                return self.operands[name]
            case Constant(value=number):
                return self._constant(number)
            case Negation(operand=operand):
                return self.nodes.node("Neg", self.value(operand))
            case FunctionCall():
                return self._call(expression)
            case Operation(operator=operator) if operator in COMPARISONS:
                return self._comparison(expression)
            case Operation(left=DateColumn() as later, right=DateColumn() as earlier):
                return self._days(later, earlier)
            case Operation(operator=operator, left=left, right=right):
                divisor = self._finite(right) if operator == "/" else self.value(right)
                return self.nodes.node(ARITHMETIC[operator], self.value(left), divisor)

    def double(self, value: Value) -> Value:
        return self.nodes.node("Cast", value, to=DOUBLE)

    def _constant(self, number: float) -> Value:
        return self.nodes.constant(np.array(number, np.float64))

    def _finite(self, expression: Expression) -> Value:
        """Return the value with NaN in place of infinity."""
        value = self.value(expression)
        return value if _is_finite(expression) else _without_infinity(self.nodes, value, np.float64)

    def _days(self, later: DateColumn, earlier: DateColumn) -> Value:
        """Return the days between two datetime columns, which are encoded as days since different origins."""
        days = self.operands[later.name]
        shift = (self.origins[later.name] - self.origins[earlier.name]) / DAY_US
        if shift:
            days = self.nodes.node("Add", days, self._constant(shift))
        return self.nodes.node("Sub", days, self.operands[earlier.name])

    def _comparison(self, operation: Operation) -> Value:
        nodes, left, right = self.nodes, operation.left, operation.right
        if isinstance(left, DateColumn) and isinstance(right, DateColumn):
            sides, checked = [self._days(left, right), self._constant(0.0)], 1
        else:
            sides, checked = [self._finite(left), self._finite(right)], 2
        is_negated = operation.operator == "!="
        holds = nodes.node(RELATIONS[operation.operator], *sides)
        result = nodes.node("Where", holds, self._constant(float(not is_negated)), self._constant(float(is_negated)))
        gaps = [nodes.node("IsNaN", side) for side in sides[:checked]]
        return nodes.node("Where", reduce(lambda a, b: nodes.node("Or", a, b), gaps), nodes.constant(NAN), result)

    def _call(self, call: FunctionCall) -> Value:
        if call.function in ("min", "max"):
            order = "Less" if call.function == "min" else "Greater"
            return reduce(lambda a, b: self._choose(order, a, b), map(self._finite, call.arguments))
        value = self.value(call.arguments[0])
        if call.function in ("abs", "sqrt"):
            return self.nodes.node(call.function.capitalize(), value)
        logarithm = self.nodes.node("Log", value) if call.function == "log" else self._log1p(value)
        return self.double(self.nodes.node("Cast", logarithm, to=FLOAT))

    def _choose(self, order: str, first: Value, second: Value) -> Value:
        """Return the first value if the comparison holds or the first value is NaN; otherwise, return the second
        value."""
        nodes = self.nodes
        is_first = nodes.node("Or", nodes.node(order, first, second), nodes.node("IsNaN", first))
        return nodes.node("Where", is_first, first, second)

    def _log1p(self, value: Value) -> Value:
        """Return log(1 + x). The factor x / ((1 + x) - 1) cancels the rounding error of 1 + x (Kahan)."""
        nodes, one = self.nodes, self._constant(1.0)
        shifted = nodes.node("Add", value, one)
        factor = nodes.node("Div", value, nodes.node("Sub", shifted, one))
        logarithm = nodes.node("Mul", nodes.node("Log", shifted), factor)
        return nodes.node("Where", nodes.node("Equal", shifted, one), value, logarithm)


def _is_finite(expression: Expression) -> bool:
    """Return whether the value is certainly finite or NaN."""
    match expression:
        case NumberColumn() | Constant():
            return True
        case Operation(operator=operator):
            return operator in COMPARISONS
        case FunctionCall(function=function):
            return function in ("min", "max")
    return False
