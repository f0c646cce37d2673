"""Derived columns: numbers that a model computes from the columns of a row, described by typed expressions.

`schema/expressions.py` parses expressions. The model's graph computes them (`training/derivation.py`), so clients never
send a derived column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec

from rowcast.schema.values import Kind

Operator = Literal["+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="]
Function = Literal["abs", "log", "log1p", "max", "min", "sqrt"]

COMPARISONS: Final = frozenset({"<", "<=", ">", ">=", "==", "!="})
ARGUMENTS: Final[Mapping[Function, int | None]] = {
    "abs": 1,
    "log": 1,
    "log1p": 1,
    "max": None,
    "min": None,
    "sqrt": 1,
}
"""The functions and their numbers of arguments; None means two or more."""
MAX_DEPTH: Final = 100
NUMERIC: Final = frozenset({"number", "integer", "boolean"})
"""The kinds of columns that count as numbers. A boolean is 1 or 0."""

_is_plain_name = re.compile(r"[^\W\d][\w.]*").fullmatch
_TIGHTEST: Final = 4
"""The precedence of expressions that are not operations."""
_PRECEDENCE: Final[Mapping[Operator, int]] = {"+": 2, "-": 2, "*": 3, "/": 3} | dict.fromkeys(COMPARISONS, 1)  # type: ignore[assignment]


class _Node(msgspec.Struct, frozen=True, tag_field="form", forbid_unknown_fields=True):
    """One node of an expression. In JSON, the field `form` identifies the kind of node."""


class NumberColumn(_Node, frozen=True, tag="column"):
    """A numeric or boolean column, or an earlier derived column."""

    name: str


class DateColumn(_Node, frozen=True, tag="datetime"):
    """A datetime column, which can only be subtracted from or compared with another datetime column."""

    name: str


class Constant(_Node, frozen=True, tag="constant"):
    value: float


class Negation(_Node, frozen=True, tag="negation"):
    operand: Expression


class Operation(_Node, frozen=True, tag="operation"):
    """An arithmetic operation or a comparison. The difference between two datetime columns is a number of days."""

    operator: Operator
    left: Expression
    right: Expression


class FunctionCall(_Node, frozen=True, tag="call"):
    function: Function
    arguments: tuple[Expression, ...]


Expression = NumberColumn | DateColumn | Constant | Negation | Operation | FunctionCall


class DerivedColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A number that the model computes from other columns of the row."""

    name: str
    expression: Expression

    @property
    def text(self) -> str:
        """The expression as a string that can be parsed again."""
        return _render(self.expression, 0)

    @property
    def definition(self) -> str:
        """The definition as the user would write it: `NAME = EXPRESSION`."""
        return f"{quote_name(self.name)} = {self.text}"


def columns_of(expression: Expression) -> list[str]:
    """Return the names of the columns that an expression uses, in order and without duplicates."""
    used = [node.name for node, _ in _walk(expression) if isinstance(node, NumberColumn | DateColumn)]
    return list(dict.fromkeys(used))


def depth_of(expression: Expression) -> int:
    """Return the number of levels of an expression; a column or a constant has one level."""
    return max(depth for _, depth in _walk(expression))


def check_derived(derived: Sequence[DerivedColumn], kinds: Mapping[str, Kind]) -> None:
    """Raise ValueError unless names are unique and every expression uses existing columns of the right kinds."""
    numbers = {name for name, kind in kinds.items() if kind in NUMERIC}
    names = set(kinds)
    for column in derived:
        if column.name in names:
            raise ValueError(f"duplicate column name: {column.name}")
        for node, depth in _walk(column.expression):
            if depth > MAX_DEPTH:
                raise ValueError(f"derived column {column.name!r}: more than {MAX_DEPTH} levels")
            problem = _problem(node, numbers, kinds)
            if problem:
                raise ValueError(f"derived column {column.name!r}: {problem}")
        names.add(column.name)
        numbers.add(column.name)


def quote_name(name: str) -> str:
    """Return a column name as it is written in an expression: in backticks if it contains special characters."""
    return name if _is_plain_name(name) else "`" + name.replace("`", "``") + "`"


def _problem(node: Expression, numbers: set[str], kinds: Mapping[str, Kind]) -> str:
    if isinstance(node, NumberColumn) and node.name not in numbers:
        return f"{node.name!r} is not a numeric column"
    if isinstance(node, DateColumn) and kinds.get(node.name) != "datetime":
        return f"{node.name!r} is not a datetime column"
    if isinstance(node, FunctionCall) and not takes(node.function, len(node.arguments)):
        return f"wrong number of arguments for {node.function}"
    return ""


def takes(function: Function, count: int) -> bool:
    """Return whether the function accepts this number of arguments."""
    expected = ARGUMENTS[function]
    return count >= 2 if expected is None else count == expected


def _walk(expression: Expression) -> Iterator[tuple[Expression, int]]:
    """Yield every node with its level, from left to right. The loop needs no recursion, so any depth is safe."""
    stack = [(expression, 1)]
    while stack:
        node, depth = stack.pop()
        yield node, depth
        stack.extend((child, depth + 1) for child in reversed(_children(node)))


def _children(node: Expression) -> tuple[Expression, ...]:
    if isinstance(node, Operation):
        return node.left, node.right
    if isinstance(node, Negation):
        return (node.operand,)
    return node.arguments if isinstance(node, FunctionCall) else ()


def _render(node: Expression, least: int) -> str:
    """Return the node as a string, in parentheses if its precedence is below `least`."""
    text, precedence = _text(node)
    return f"({text})" if precedence < least else text


def _text(node: Expression) -> tuple[str, int]:
    if isinstance(node, NumberColumn | DateColumn):
        return quote_name(node.name), _TIGHTEST
    if isinstance(node, Constant):
        return repr(node.value).removesuffix(".0"), _TIGHTEST
    if isinstance(node, Negation):
        return f"-{_render(node.operand, _TIGHTEST)}", _TIGHTEST
    if isinstance(node, FunctionCall):
        return f"{node.function}({', '.join(_render(argument, 0) for argument in node.arguments)})", _TIGHTEST
    precedence = _PRECEDENCE[node.operator]
    left = _render(node.left, precedence + 1 if node.operator in COMPARISONS else precedence)
    return f"{left} {node.operator} {_render(node.right, precedence + 1)}", precedence
