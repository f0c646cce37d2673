"""Derived columns: their text form, their JSON form, and the schemas that can contain them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rowcast.errors import InvalidRows
from rowcast.schema.derived import (
    MAX_DEPTH,
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
from rowcast.schema.expressions import parse_definitions
from rowcast.schema.schema import Column, Schema

COLUMNS = (
    Column(name="amount", kind="number"),
    Column(name="annual income", kind="integer", missing=True),
    Column(name="own`er", kind="boolean"),
    Column(name="city", kind="category"),
    Column(name="opened", kind="datetime"),
    Column(name="closed", kind="datetime"),
)
RATIO = DerivedColumn("burden", Operation("/", NumberColumn("amount"), NumberColumn("annual income")))
SCHEMA = Schema(COLUMNS, (RATIO,))
RATIO_JSON = (
    b'{"name":"burden","expression":{"form":"operation","operator":"/",'
    b'"left":{"form":"column","name":"amount"},"right":{"form":"column","name":"annual income"}}}'
)


def parsed(definition: str) -> DerivedColumn:
    (column,) = parse_definitions([definition], Schema(COLUMNS), {})
    return column


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("amount+amount*2", "amount + amount * 2"),
        ("(amount+amount)*2", "(amount + amount) * 2"),
        ("amount-(amount-1)", "amount - (amount - 1)"),
        ("(amount-amount)-1", "amount - amount - 1"),
        ("amount/(2*amount)", "amount / (2 * amount)"),
        ("-(amount+1)*2", "-(amount + 1) * 2"),
        ("-(amount*2)", "-(amount * 2)"),
        ("--amount", "--amount"),
        ("+amount", "amount"),
        ("(amount<2)+(amount>=3)", "(amount < 2) + (amount >= 3)"),
        ("(amount<2)==(amount!=3)", "(amount < 2) == (amount != 3)"),
        ('"annual income"*1e3', "`annual income` * 1000"),
        ('"own`er"', "`own``er`"),
        ("min(amount,(2),.5)", "min(amount, 2, 0.5)"),
        ("(closed-opened)/7", "(closed - opened) / 7"),
        ("closed<opened", "closed < opened"),
        ("amount*0.07", "amount * 0.07"),
    ],
)
def test_an_expression_is_shown_with_the_fewest_parentheses(written: str, shown: str) -> None:
    column = parsed(f"x = {written}")

    assert column.text == shown
    assert parsed(f"x = {shown}") == column


def test_a_definition_quotes_a_name_with_special_characters() -> None:
    assert parsed("debt ratio = amount / 2").definition == "`debt ratio` = amount / 2"
    assert RATIO.definition == "burden = amount / `annual income`"


def test_the_columns_of_an_expression_are_listed_once_and_in_order() -> None:
    expression = parsed("x = max(amount, `annual income`) - (closed - opened) * -amount").expression

    assert columns_of(expression) == ["amount", "annual income", "closed", "opened"]


def test_a_derived_column_is_stored_as_a_tree() -> None:
    assert msgspec.json.encode(RATIO) == RATIO_JSON
    assert msgspec.json.decode(msgspec.json.encode(SCHEMA), type=Schema) == SCHEMA


def test_a_schema_without_derived_columns_is_stored_as_in_older_releases() -> None:
    stored = msgspec.json.encode(Schema(COLUMNS[:1]))

    assert stored == b'{"columns":[{"name":"amount","kind":"number"}]}'
    assert msgspec.json.decode(stored, type=Schema).derived == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"operation"', b'"power"'),
        (b'"/"', b'"%"'),
        (b'"form":"column","name":"amount"', b'"form":"call","function":"exp","arguments":[]'),
        (b'"name":"amount"', b'"name":"amount","scale":2'),
    ],
)
def test_an_unknown_form_is_rejected(old: bytes, new: bytes) -> None:
    stored = msgspec.json.encode(SCHEMA)
    assert old in stored

    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(stored.replace(old, new), type=Schema)


def nested(levels: int) -> Expression:
    expression: Expression = NumberColumn("amount")
    for _ in range(levels - 1):
        expression = Negation(expression)
    return expression


@pytest.mark.parametrize(
    "derived",
    [
        [DerivedColumn("amount", Constant(1.0))],
        [RATIO, RATIO],
        [DerivedColumn("x", NumberColumn("unknown"))],
        [DerivedColumn("x", NumberColumn("x"))],
        [DerivedColumn("x", NumberColumn("burden")), RATIO],
        [DerivedColumn("x", NumberColumn("city"))],
        [DerivedColumn("x", NumberColumn("opened"))],
        [DerivedColumn("x", DateColumn("amount"))],
        [DerivedColumn("x", FunctionCall("log", (NumberColumn("amount"), NumberColumn("amount"))))],
        [DerivedColumn("x", FunctionCall("min", (NumberColumn("amount"),)))],
        [DerivedColumn("x", nested(MAX_DEPTH + 1))],
        [DerivedColumn("x", nested(5000))],
    ],
)
def test_a_schema_rejects_inconsistent_derived_columns(derived: list[DerivedColumn]) -> None:
    with pytest.raises(ValueError, match=r"duplicate|derived column 'x'"):
        Schema(COLUMNS, tuple(derived))


def test_a_derived_column_can_use_an_earlier_derived_column() -> None:
    columns = (RATIO, DerivedColumn("x", Negation(NumberColumn("burden"))), DerivedColumn("y", nested(MAX_DEPTH)))

    assert Schema(COLUMNS, columns).derived == columns


def test_sensitive_and_optional_columns_do_not_change_the_derived_columns() -> None:
    assert SCHEMA.with_sensitive(["amount"]).derived == SCHEMA.derived
    assert SCHEMA.with_optional(["amount"]).derived == SCHEMA.derived


def test_the_error_for_a_derived_column_says_that_the_model_computes_it() -> None:
    row: dict[str, Any] = {"amount": 1, "annual income": 2, "own`er": True, "city": "Ulm", "burden": 0.5}

    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**row, "opened": "2026-01-01", "closed": "2026-01-02"})

    (problem,) = caught.value.problems
    assert (problem.column, problem.code) == ("burden", "unknown-column")
    assert problem.message == "the model computes this column as amount / `annual income`; remove it"


def test_the_json_schema_of_a_row_describes_derived_columns_but_does_not_accept_them() -> None:
    document = SCHEMA.json_schema()

    assert "burden = amount / `annual income`" in document["description"]
    assert "burden" not in document["properties"]
    assert "description" not in Schema(COLUMNS).json_schema()
