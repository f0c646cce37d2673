"""Definitions of derived columns: the grammar, and errors with the position of the problem."""

from __future__ import annotations

import pytest

from rowcast.errors import ExpressionError
from rowcast.schema.derived import MAX_DEPTH, DateColumn, Negation, NumberColumn, Operation
from rowcast.schema.expressions import MAX_CHARACTERS, parse_definitions
from rowcast.schema.schema import Column, Schema

SCHEMA = Schema(
    (
        Column(name="income", kind="number"),
        Column(name="log", kind="integer"),
        Column(name="Größe.cm", kind="number"),
        Column(name='5" pipe', kind="number"),
        Column(name="owner", kind="boolean"),
        Column(name="grade", kind="category"),
        Column(name="opened", kind="datetime"),
        Column(name="closed", kind="datetime"),
    )
)
UNUSABLE = {"id": "is excluded", "status": "is the target"}


def texts(*definitions: str) -> dict[str, str]:
    return {column.name: column.text for column in parse_definitions(definitions, SCHEMA, UNUSABLE)}


def test_multiplication_binds_more_tightly_than_addition_and_operators_associate_to_the_left() -> None:
    one, two = (column.expression for column in parse_definitions(["x=income-log-1", "y=income+log*2"], SCHEMA, {}))

    assert isinstance(one, Operation)
    assert isinstance(one.left, Operation)
    assert (one.operator, one.left.operator) == ("-", "-")
    assert isinstance(two, Operation)
    assert isinstance(two.right, Operation)
    assert (two.operator, two.right.operator) == ("+", "*")


def test_negation_binds_more_tightly_than_multiplication() -> None:
    (column,) = parse_definitions(["x = -income * log"], SCHEMA, {})

    assert column.expression == Operation("*", Negation(NumberColumn("income")), NumberColumn("log"))


def test_names_can_be_plain_quoted_or_the_name_of_a_function() -> None:
    assert texts("a = Größe.cm / log", 'b = `5" pipe` + "5"" pipe" + `income`', "c = log ( log )", "d = owner * 2") == {
        "a": "Größe.cm / log",
        "b": '`5" pipe` + `5" pipe` + income',
        "c": "log(log)",
        "d": "owner * 2",
    }


def test_the_defined_name_can_contain_spaces_and_any_character_in_quotes() -> None:
    assert list(texts("debt-to-income ratio=income", "`a = b` = income", '  "c"\t= income')) == [
        "debt-to-income ratio",
        "a = b",
        "c",
    ]


def test_a_definition_can_use_the_definitions_before_it() -> None:
    assert texts("a = income / 2", "b = a * a") == {"a": "income / 2", "b": "a * a"}


def test_two_datetime_columns_can_be_subtracted_and_compared() -> None:
    (column,) = parse_definitions(["x = closed - opened"], SCHEMA, {})

    assert column.expression == Operation("-", DateColumn("closed"), DateColumn("opened"))
    assert texts("x = (closed - opened) / 7 > 3", "y = (closed) >= opened")["y"] == "closed >= opened"


@pytest.mark.parametrize(
    ("definition", "slug", "position"),
    [
        ("income / 2", "expression", 1),
        ("x == income", "expression", 1),
        ("x <= income", "expression", 1),
        (" = income", "expression", 2),
        ("", "expression", 1),
        ("a\x00b = income", "derived-name", 1),
        ("income = log / 2", "derived-name", 1),
        ("`id` = log / 2", "derived-name", 1),
        ("status = log / 2", "derived-name", 1),
        ("x = ", "expression", 5),
        ("x = income +", "expression", 13),
        ("x = income income", "expression", 12),
        ("x = income * / 2", "expression", 14),
        ("x = 2income", "expression", 6),
        ("x = income ^ 2", "expression", 12),
        ("x = income ** 2", "expression", 13),
        ("x = income = 2", "expression", 12),
        ("x = 'income'", "expression", 5),
        ("x = `income", "expression", 5),
        ('x = "income', "expression", 5),
        ("x = (income", "expression", 12),
        ("x = income)", "expression", 11),
        ("x = ()", "expression", 6),
        ("x = log()", "expression", 9),
        ("x = log(income", "expression", 15),
        ("x = log(income, 2)", "expression", 5),
        ("x = min(income)", "expression", 5),
        ("x = 1 < income < 3", "expression", 16),
        ("x = 1e999 * income", "expression", 5),
        ("x = 1 + 2", "expression", 5),
        ("x = exp(income)", "unknown-function", 5),
        ("x = lgo(income)", "unknown-function", 5),
        ("x = incom / 2", "unknown-column", 5),
        ("x = `log(income)` / 2", "unknown-column", 5),
        ("x = income + min", "unknown-column", 14),
        ("x = income + x", "unknown-column", 14),
        ("x = income * grade", "column-kind", 14),
        ("x = income * id", "column-kind", 14),
        ("x = status * 2", "column-kind", 5),
        ("x = opened", "column-kind", 5),
        ("x = -opened", "column-kind", 6),
        ("x = opened + closed", "column-kind", 5),
        ("x = income + opened", "column-kind", 14),
        ("x = opened - 30", "column-kind", 5),
        ("x = log(opened)", "column-kind", 9),
        ("x = opened < 5", "column-kind", 5),
        ("x = " + "(" * (MAX_DEPTH + 1) + "income" + ")" * (MAX_DEPTH + 1), "expression", 5 + MAX_DEPTH),
        ("x = " + "-" * 1500 + "income", "expression", 5 + MAX_DEPTH),
        ("x = income" + " + 1" * MAX_DEPTH, "expression", 5),
        ("x = income" + " " * MAX_CHARACTERS, "expression", MAX_CHARACTERS + 1),
    ],
)
def test_an_error_has_the_position_of_the_problem(definition: str, slug: str, position: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        parse_definitions([definition], SCHEMA, UNUSABLE)

    assert (caught.value.slug, caught.value.position) == (slug, position), caught.value.message


def message(*definitions: str) -> str:
    with pytest.raises(ExpressionError) as caught:
        parse_definitions(definitions, SCHEMA, UNUSABLE)
    return caught.value.message


def test_an_error_names_the_expression_the_position_and_what_is_allowed() -> None:
    assert message("x = incom / 2") == (
        "option 'derive': 'x = incom / 2', character 5: unknown column 'incom'; did you mean 'income'?"
    )
    assert message("x = grade + 1") == (
        "option 'derive': 'x = grade + 1', character 5: category column 'grade' cannot be used in an expression; "
        "use number, boolean or datetime columns"
    )
    assert message("x = zzzz").endswith(
        "unknown column 'zzzz'; an expression can use income, log, Größe.cm, 5\" pipe, owner, opened, closed"
    )
    assert "the functions abs, log, log1p, max, min, sqrt" in message("x = income % 2")
    assert message("x = lgo(income)").endswith("unknown function 'lgo'; did you mean 'log'?")


def test_a_name_can_be_defined_only_once_and_only_before_its_use() -> None:
    assert "'a' is defined twice" in message("a = income", "a = log")
    assert "derived column 'b' is not defined yet" in message("a = b + 1", "b = income")
    assert "derived column 'a' is not defined yet" in message("a = a + 1")


def test_the_deepest_allowed_expression_is_accepted() -> None:
    levels = MAX_DEPTH - 1

    assert texts("x = income" + " + 1" * levels, "y = " + "(" * MAX_DEPTH + "income" + ")" * MAX_DEPTH)["y"] == "income"


@pytest.mark.parametrize("argument", ["(income)", "-income", "abs(income)"])
def test_an_expression_can_have_more_parts_than_levels(argument: str) -> None:
    parts = ", ".join([argument] * (MAX_DEPTH + 50))

    assert texts(f"x = max({parts})")["x"].count("income") == MAX_DEPTH + 50


def test_a_function_without_arguments_is_not_reported_as_a_misspelled_column() -> None:
    assert message("x = income + min").endswith("character 14: 'min' is a function; write min(...)")
