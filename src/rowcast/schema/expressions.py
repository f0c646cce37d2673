"""Parse the definitions of derived columns, such as `burden = loan_amount / annual_income`.

The grammar consists of these rules, from weakest to strongest binding:

    comparison    sum [(< | <= | > | >= | == | !=) sum]      1 if true, otherwise 0
    sum           product {(+ | -) product}
    product       unary {(* | /) unary}
    unary         (- | +) unary | operand
    operand       number | column | function(comparison, ...) | (comparison)

A column name with special characters is written in backticks or double quotes. Every expression is checked against the
schema while it is being parsed, so that an error can report its position.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple, cast

from rowcast.errors import ExpressionError
from rowcast.schema.derived import (
    ARGUMENTS,
    COMPARISONS,
    MAX_DEPTH,
    NUMERIC,
    Constant,
    DateColumn,
    DerivedColumn,
    Expression,
    Function,
    FunctionCall,
    Negation,
    NumberColumn,
    Operation,
    Operator,
    columns_of,
    depth_of,
    takes,
)
from rowcast.schema.schema import Schema, list_names
from rowcast.schema.values import BLANKS
from rowcast.suggestions import did_you_mean

MAX_CHARACTERS: Final = 2000
ALLOWED: Final = (
    "an expression consists of numbers, columns, + - * /, comparisons (< <= > >= == !=), parentheses and the functions "
    f"{', '.join(ARGUMENTS)}"
)
_next_token = re.compile(
    r"(?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)"
    r"|(?P<name>[^\W\d][\w.]*)"
    r'|(?P<quoted>`(?:[^`]|``)*`|"(?:[^"]|"")*")'
    r"|(?P<symbol><=|>=|==|!=|[-+*/()<>,])"
).match
_has_operator = re.compile(r"[<>!+*/(),`\"]").search


class _Token(NamedTuple):
    kind: str
    """`number`, `name`, `quoted`, `symbol`, or `end` after the last token."""
    text: str
    position: int
    """The index of the first character in the definition."""


class _Operand(NamedTuple):
    """A parsed part of an expression, and where it starts."""

    expression: Expression
    position: int


def parse_definitions(
    definitions: Sequence[str], schema: Schema, unusable: Mapping[str, str]
) -> tuple[DerivedColumn, ...]:
    """Return the derived columns; raise ExpressionError for the first invalid definition.

    `unusable` maps each of the table's columns that is not in the schema to the reason why it cannot be used. A
    definition can use the derived columns that are defined before it.
    """
    derived: list[DerivedColumn] = []
    for index, definition in enumerate(definitions):
        later = [name for name in map(_name_or_nothing, definitions[index:]) if name]
        names = _Names(schema, unusable, [column.name for column in derived], later)
        derived.append(_Parser(definition, names).parse())
    return tuple(derived)


def _name_or_nothing(definition: str) -> str:
    """Return the name that a definition defines, or an empty string if the definition has no valid name."""
    try:
        return _split(definition)[0]
    except ExpressionError:
        return ""


class _Names(NamedTuple):
    """The names that an expression can and cannot use."""

    schema: Schema
    unusable: Mapping[str, str]
    derived: Sequence[str]
    later: Collection[str]
    """The derived column that is being defined, and the derived columns after it."""

    def usable(self) -> list[str]:
        return [column.name for column in self.schema.columns if column.kind != "category"] + list(self.derived)


class _Parser:
    """A recursive-descent parser of one definition."""

    def __init__(self, definition: str, names: _Names) -> None:
        self._definition = definition
        self._names = names
        self._name, start = _split(definition)
        self._check_name()
        self._tokens = _tokens(definition, start)
        self._index = 0
        self._level = 0

    def parse(self) -> DerivedColumn:
        operand = self._comparison()
        token = self._peek()
        if token.kind != "end":
            raise self._error(token.position, f"expected an operator, got {token.text!r}; {ALLOWED}")
        expression = self._number(operand)
        if depth_of(expression) > MAX_DEPTH:
            raise self._too_deep(operand.position)
        if not columns_of(expression):
            raise self._error(operand.position, "the expression uses no column")
        return DerivedColumn(self._name, expression)

    def _check_name(self) -> None:
        taken = (*self._names.schema.names(), *self._names.unusable)
        if self._name in taken:
            raise self._error(0, f"the table already has a column {self._name!r}; choose another name", "derived-name")
        if self._name in self._names.derived:
            raise self._error(0, f"{self._name!r} is defined twice; choose another name", "derived-name")

    def _comparison(self) -> _Operand:
        left = self._sum()
        token = self._peek()
        if token.text not in COMPARISONS:
            return left
        self._advance()
        compared = self._operation(left, token, self._sum())
        if self._peek().text in COMPARISONS:
            raise self._error(self._peek().position, "comparisons cannot be chained; use parentheses")
        return compared

    def _sum(self) -> _Operand:
        return self._chain(self._product, "+-")

    def _product(self) -> _Operand:
        return self._chain(self._unary, "*/")

    def _chain(self, operand: Callable[[], _Operand], operators: str) -> _Operand:
        left = operand()
        while (token := self._peek()).kind == "symbol" and token.text in operators:
            self._advance()
            left = self._operation(left, token, operand())
        return left

    def _operation(self, left: _Operand, token: _Token, right: _Operand) -> _Operand:
        operator = cast(Operator, token.text)
        dates = [isinstance(side.expression, DateColumn) for side in (left, right)]
        if all(dates) and (operator == "-" or operator in COMPARISONS):
            return _Operand(Operation(operator, left.expression, right.expression), left.position)
        return _Operand(Operation(operator, self._number(left), self._number(right)), left.position)

    def _number(self, operand: _Operand) -> Expression:
        """Return the operand's expression; fail if it is a datetime column."""
        if isinstance(operand.expression, DateColumn):
            name = operand.expression.name
            raise self._error(
                operand.position,
                f"datetime column {name!r} is not a number; it can only be subtracted from another datetime column "
                "(the result is in days) or compared with one",
                "column-kind",
            )
        return operand.expression

    def _unary(self) -> _Operand:
        token = self._peek()
        if token.text not in ("-", "+") or token.kind != "symbol":
            return self._operand()
        self._advance()
        self._enter(token)
        operand = self._unary()
        self._level -= 1
        number = self._number(operand)
        return _Operand(Negation(number) if token.text == "-" else number, token.position)

    def _operand(self) -> _Operand:
        token = self._advance()
        if token.kind == "number":
            value = float(token.text)
            if not math.isfinite(value):
                raise self._error(token.position, f"the number {token.text} is too large")
            return _Operand(Constant(value), token.position)
        if token.kind == "name" and self._peek().text == "(":
            return self._call(token)
        if token.kind in ("name", "quoted"):
            return _Operand(self._column(token), token.position)
        if token.text == "(":
            self._enter(token)
            inner = self._comparison()
            self._level -= 1
            self._expect(")")
            return _Operand(inner.expression, token.position)
        got = "the end" if token.kind == "end" else repr(token.text)
        raise self._error(token.position, f"expected a number, a column or a function, got {got}; {ALLOWED}")

    def _call(self, token: _Token) -> _Operand:
        if token.text not in ARGUMENTS:
            hint = did_you_mean(token.text, tuple(ARGUMENTS)) or f"the functions are {', '.join(ARGUMENTS)}"
            raise self._error(token.position, f"unknown function {token.text!r}; {hint}", "unknown-function")
        function = cast(Function, token.text)
        self._advance()
        self._enter(token)
        arguments = [self._number(self._comparison())]
        while self._peek().text == ",":
            self._advance()
            arguments.append(self._number(self._comparison()))
        self._level -= 1
        self._expect(")")
        if not takes(function, len(arguments)):
            expected = "1 argument" if ARGUMENTS[function] == 1 else "at least 2 arguments"
            raise self._error(token.position, f"{function} takes {expected}, got {len(arguments)}")
        return _Operand(FunctionCall(function, tuple(arguments)), token.position)

    def _column(self, token: _Token) -> Expression:
        name = _unquoted(token.text) if token.kind == "quoted" else token.text
        if name in self._names.derived:
            return NumberColumn(name)
        kind = next((column.kind for column in self._names.schema.columns if column.name == name), None)
        if kind in NUMERIC:
            return NumberColumn(name)
        if kind == "datetime":
            return DateColumn(name)
        if kind is not None:
            message = f"{kind} column {name!r} cannot be used in an expression; use number, boolean or datetime columns"
            raise self._error(token.position, message, "column-kind")
        if name in self._names.unusable:
            raise self._error(token.position, f"column {name!r} {self._names.unusable[name]}", "column-kind")
        if name in self._names.later:
            message = f"derived column {name!r} is not defined yet; an expression can use only earlier derived columns"
            raise self._error(token.position, message, "unknown-column")
        if name in ARGUMENTS:
            raise self._error(token.position, f"{name!r} is a function; write {name}(...)", "unknown-column")
        usable = self._names.usable()
        columns = f"an expression can use {list_names(usable)}" if usable else "no column can be used in an expression"
        hint = did_you_mean(name, tuple(usable)) or columns
        raise self._error(token.position, f"unknown column {name!r}; {hint}", "unknown-column")

    def _peek(self) -> _Token:
        return self._tokens[self._index]

    def _advance(self) -> _Token:
        token = self._tokens[self._index]
        self._index = min(self._index + 1, len(self._tokens) - 1)
        return token

    def _expect(self, symbol: str) -> None:
        token = self._advance()
        if token.text != symbol or token.kind != "symbol":
            got = "the end" if token.kind == "end" else repr(token.text)
            raise self._error(token.position, f"expected an operator or {symbol!r}, got {got}")

    def _enter(self, token: _Token) -> None:
        """Count one more level of nesting; the caller must decrement `_level` when the level ends."""
        self._level += 1
        if self._level > MAX_DEPTH:
            raise self._too_deep(token.position)

    def _too_deep(self, position: int) -> ExpressionError:
        message = f"the expression has more than {MAX_DEPTH} levels; split it into several derived columns"
        return self._error(position, message)

    def _error(self, position: int, message: str, slug: str | None = None) -> ExpressionError:
        return ExpressionError(self._definition, position + 1, message, slug=slug)


def _split(definition: str) -> tuple[str, int]:
    """Return the name that is defined and the index at which the expression starts."""
    if len(definition) > MAX_CHARACTERS:
        message = f"the definition has {len(definition)} characters; the limit is {MAX_CHARACTERS}"
        raise ExpressionError(definition, MAX_CHARACTERS + 1, message)
    start = len(definition) - len(definition.lstrip(BLANKS))
    quoted = _next_token(definition, start)
    if quoted is not None and quoted.lastgroup == "quoted":
        name, end = _unquoted(quoted.group()), quoted.end()
        end += len(definition[end:]) - len(definition[end:].lstrip(BLANKS))
    else:
        end = definition.find("=")
        name = definition[:end].strip(BLANKS) if end >= 0 else ""
        if _has_operator(name):
            name = ""
    if not name or definition[end : end + 1] != "=" or definition[end : end + 2] == "==":
        message = "expected NAME = EXPRESSION, for example burden = loan_amount / annual_income"
        raise ExpressionError(definition, start + 1, message)
    if not name.isprintable():
        raise ExpressionError(definition, start + 1, "the name contains control characters", slug="derived-name")
    return name, end + 1


def _tokens(definition: str, start: int) -> list[_Token]:
    tokens = []
    position = start
    while position < len(definition):
        if definition[position] in BLANKS:
            position += 1
            continue
        match = _next_token(definition, position)
        if match is None:
            raise ExpressionError(definition, position + 1, _unexpected(definition[position]))
        tokens.append(_Token(str(match.lastgroup), match.group(), position))
        position = match.end()
    return [*tokens, _Token("end", "", len(definition))]


def _unexpected(character: str) -> str:
    if character in '`"':
        return f"the quoted name has no closing {character}"
    hint = {"=": "use == to compare", "'": "write column names in backticks or double quotes"}.get(character, ALLOWED)
    return f"unexpected character {character!r}; {hint}"


def _unquoted(text: str) -> str:
    """Return the name in a quoted token; a doubled quotation mark in the name stands for one."""
    mark = text[0]
    return text[1:-1].replace(mark * 2, mark)
