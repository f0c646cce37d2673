"""Learning problems: columns, holdout and class weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.errors import ExpressionError, TableError
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Override
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import run_data_check
from support.training import customers, learning_problem, weighted_loans

ROWS = 60


def columns(**more: list[Any]) -> dict[str, list[Any]]:
    """Return a table with a useful column, a constant column, a row counter and a target."""
    base = {
        "amount": [index % 7 for index in range(ROWS)],
        "same": ["x"] * ROWS,
        "number": list(range(ROWS)),
        "y": ["good" if index % 3 else "bad" for index in range(ROWS)],
    }
    return {**base, **more}


def test_excluded_columns_are_dropped() -> None:
    table = columns(other=[index % 5 for index in range(ROWS)], third=[index % 4 for index in range(ROWS)])

    assert learning_problem(table, exclude=("other, third",)).schema.names() == ["amount"]
    assert learning_problem(table, exclude=("other", "third")).schema.names() == ["amount"]


def test_a_column_name_can_contain_a_comma() -> None:
    table = columns(**{"rate, yearly": [index % 5 for index in range(ROWS)]})

    assert learning_problem(table, exclude=("rate, yearly",)).schema.names() == ["amount"]


def test_a_kept_column_is_used_even_if_it_is_constant_or_an_identifier() -> None:
    problem = learning_problem(columns(), keep=("same", "number"))

    assert problem.schema.names() == ["amount", "same", "number"]
    assert not {"constant", "id"} & {finding.code for finding in problem.findings}


def test_values_of_optional_columns_can_be_missing_even_if_none_are_missing_in_the_table() -> None:
    table = columns(other=[index % 5 for index in range(ROWS)], text=["a", "b", "c"] * (ROWS // 3))

    def optional(*names: str) -> list[str]:
        schema = learning_problem(table, optional=names).schema
        return [column.name for column in schema.columns if column.missing]

    assert optional() == []
    assert optional("other, number") == ["other"]
    assert optional("all") == ["amount", "other", "text"]
    for name, slug in (("othr", "unknown-column"), ("y", "target-column")):
        with pytest.raises(TableError) as caught:
            optional(name)
        assert caught.value.slug == slug


def test_a_column_named_all_does_not_stand_for_every_column() -> None:
    problem = learning_problem(columns(all=[index % 5 for index in range(ROWS)]), optional=("all",))

    assert [column.name for column in problem.schema.columns if column.missing] == ["all"]


def test_a_finding_names_the_option_that_overrides_its_action() -> None:
    problem = learning_problem(columns(**{"Region's name": ["x"] * ROWS}))

    assert Override("keep", "Region's name") in [finding.override for finding in problem.findings]


@pytest.mark.parametrize(
    ("options", "column", "suggestion"),
    [
        ({"exclude": ("amuont",)}, "amuont", "amount"),
        ({"keep": ("sam",)}, "sam", "same"),
        ({"sensitive": ("numbr",)}, "numbr", "number"),
        ({"target": "z"}, "z", ""),
        ({"keep": ("empty",)}, "empty", ""),
    ],
)
def test_options_with_unknown_or_empty_columns_are_rejected(
    options: dict[str, Any], column: str, suggestion: str
) -> None:
    with pytest.raises(TableError, match=f"'{column}'.*{suggestion}") as caught:
        learning_problem(columns(empty=[None] * ROWS), **options)

    assert "\n" not in caught.value.message


def test_a_table_must_have_at_least_twenty_labeled_rows() -> None:
    with pytest.raises(TableError) as caught:
        learning_problem({"x": [1.5, 2.5] * 5, "y": ["a", "b"] * 5})

    assert caught.value.slug == "too-few-rows"


def test_the_holdout_is_stratified_by_class_and_depends_on_the_seed() -> None:
    labels = ["a"] * 100 + ["b"] * 20 + ["c"] * 5 + ["d"] * 2
    table = {"x": [float(index % 17) for index in range(len(labels))], "y": labels}

    first, again, other = (learning_problem(table, seed=seed) for seed in (0, 0, 1))

    assert np.bincount(first.holdout.target, minlength=4).tolist() == [20, 4, 1, 0]
    assert not set(first.holdout.places) & set(first.training.places)
    assert first.holdout.places.tolist() == again.holdout.places.tolist() != other.holdout.places.tolist()


def test_a_group_split_depends_on_the_seed() -> None:
    first, again, other = (learning_problem(customers(), group="customer", seed=seed) for seed in (0, 0, 1))

    assert first.holdout.places.tolist() == again.holdout.places.tolist() != other.holdout.places.tolist()


def test_a_regression_problem_can_be_split_by_group() -> None:
    table = customers()
    table["y"] = [value * 7.3 for value in table["x"]]

    problem = learning_problem(table, group="customer")
    sides = [{table["customer"][place] for place in rows.places} for rows in (problem.training, problem.holdout)]

    assert problem.task == "regression"
    assert not sides[0] & sides[1]


def days(order: list[int]) -> list[str]:
    """Convert each number to a date; a larger number is a later date."""
    return [f"2026-{1 + place // 28:02d}-{1 + place % 28:02d}" for place in order]


@pytest.mark.parametrize("times", [days, list], ids=["dates", "numbers"])
def test_a_time_split_puts_the_latest_rows_into_the_holdout(times: Any) -> None:
    order = [(7 * index) % ROWS for index in range(ROWS)]

    problem = learning_problem(columns(when=times(order)), time="when")

    assert sorted(order[place] for place in problem.holdout.places) == list(range(48, 60))
    assert len(problem.training) == 48


def test_rows_with_equal_times_stay_on_the_same_side_of_the_split() -> None:
    problem = learning_problem(columns(year=[2020 + index // 13 for index in range(ROWS)]), time="year")

    assert {2020 + place // 13 for place in problem.holdout.places} == {2024}


def test_a_time_column_splits_the_rows_even_if_it_is_excluded() -> None:
    feature, excluded = (learning_problem(customers(), time="day", **each) for each in ({}, {"exclude": ("day",)}))

    assert "day" not in excluded.schema.names()
    assert feature.holdout.places.tolist() == excluded.holdout.places.tolist()


def test_ordered_rows_are_reported_only_for_a_random_split() -> None:
    table = columns(y=["good" if index % (2 + index // 8) else "bad" for index in range(ROWS)] * 20)
    table = {name: cells if name == "y" else cells * 20 for name, cells in table.items()}
    table["y"] = [label if index > 600 else "bad" for index, label in enumerate(table["y"])]
    table["number"] = list(range(20 * ROWS))

    random = {finding.code for finding in learning_problem(table).findings}
    by_time = {finding.code for finding in learning_problem(table, time="number").findings}

    assert random - by_time == {"ordered-rows"}


@pytest.mark.parametrize("options", [{}, {"weight": "w"}])
def test_balanced_classes_have_the_same_total_weight(options: dict[str, str]) -> None:
    problem = learning_problem(weighted_loans(), class_weight="balanced", **options)
    rows = problem.training

    assert rows.emphasis is not None
    emphasis = [rows.emphasis[rows.target == label].sum() for label in (0, 1)]
    assert emphasis[0] == pytest.approx(emphasis[1])
    assert (rows.weight is None) == (not options)
    assert problem.class_weights[1] > 1 > problem.class_weights[0]


def test_class_weights_require_a_classification_target() -> None:
    loans = weighted_loans()

    with pytest.raises(TableError) as caught:
        learning_problem({**loans, "y": [value * 3.7 for value in loans["a"]]}, class_weight="balanced")

    assert caught.value.slug == "target-kind"


def test_the_data_check_lists_every_column_with_its_kind() -> None:
    table = table_from_memory(columns(), "loans")

    result = run_data_check(table, TrainingOptions(target="y", name="check"))

    assert {column.name: column.kind for column in result.columns} == {"amount": "integer", "same": "", "number": ""}
    assert (result.rows, result.target, result.task, result.classes) == (ROWS, "y", "binary", ("bad", "good"))
    assert {"constant", "id"} <= {finding.code for finding in result.findings}


def derivable() -> dict[str, list[Any]]:
    """Return the table with two more columns: numbers, which are 0 in 20 of 60 rows, and strings."""
    return columns(
        income=[index % 3 for index in range(ROWS)], grade=["a" if index % 2 else "b" for index in range(ROWS)]
    )


def test_derived_columns_are_part_of_the_schema_but_not_of_the_inputs() -> None:
    problem = learning_problem(derivable(), derive=("burden = amount / income", "heavy = burden > 1"))

    assert [column.definition for column in problem.schema.derived] == [
        "burden = amount / income",
        "heavy = burden > 1",
    ]
    assert problem.schema.names() == ["amount", "income", "grade"]
    assert problem.training.numbers.shape[1] == 2
    assert problem.derivation.append(problem.training.numbers).shape[1] == 4


@pytest.mark.parametrize(
    ("definition", "slug", "message"),
    [
        ("x = amuont / 2", "unknown-column", "did you mean 'amount'"),
        ("x = grade * 2", "column-kind", "category column 'grade'"),
        ("x = y", "column-kind", "is the target"),
        ("x = number * 2", "column-kind", "add it to the option 'keep'"),
        ("y = amount", "derived-name", "already has a column 'y'"),
        ("same = amount", "derived-name", "already has a column 'same'"),
    ],
)
def test_a_definition_is_checked_against_the_table(definition: str, slug: str, message: str) -> None:
    with pytest.raises(ExpressionError, match=message) as caught:
        learning_problem(derivable(), derive=(definition,))

    assert caught.value.slug == slug


def test_the_data_check_shows_every_derived_column_with_its_missing_values() -> None:
    derive = (
        "burden = amount / income",
        "constant = income > 5",
        "rare = log(income - 1)",
        "never = amount / (income > 5)",
    )
    table = table_from_memory(derivable(), "t")

    result = run_data_check(table, TrainingOptions(target="y", name="t", derive=derive))

    findings = [finding for finding in result.findings if finding.code.startswith("derived")]
    assert [(finding.code, finding.column, finding.message) for finding in findings] == [
        ("derived-missing", "rare", "number, computed as log(income - 1); missing in 40 of 60 rows"),
        ("derived-missing", "never", "number, computed as amount / (income > 5); missing in 60 of 60 rows"),
        (
            "derived-constant",
            "constant",
            "number, computed as income > 5; missing in 0 of 60 rows; all values are equal",
        ),
        ("derived", "burden", "number, computed as amount / income; missing in 20 of 60 rows"),
    ]
    assert [(column.name, column.expression) for column in result.derived][:1] == [("burden", "amount / income")]
    assert "burden" not in [column.name for column in result.columns]
