"""What the caller decides about columns and labels: left out, kept, mended, brought in a file of their own."""

from __future__ import annotations

from typing import Any

import pytest

from rowcast import tables
from rowcast.errors import TableError
from rowcast.tables import Override, Table
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem, build_problem

ROWS = 60


def posed(columns: dict[str, list[Any]], **options: Any) -> LearningProblem:
    return build_problem(tables.from_memory(columns, "loans"), TrainingOptions(target="y", name="loans", **options))


def columns(**more: list[Any]) -> dict[str, list[Any]]:
    """A table with a column of use, a constant, a counter, and a target."""
    plain = {
        "amount": [index % 7 for index in range(ROWS)],
        "same": ["x"] * ROWS,
        "number": list(range(ROWS)),
        "y": ["good" if index % 3 else "bad" for index in range(ROWS)],
    }
    return {**plain, **more}


def test_excluded_columns_are_not_learnt_from() -> None:
    table = columns(other=[index % 5 for index in range(ROWS)], third=[index % 4 for index in range(ROWS)])

    assert posed(table, exclude=("other, third",)).schema.names() == ["amount"]
    assert posed(table, exclude=("other", "third")).schema.names() == ["amount"]


def test_a_name_with_a_comma_is_one_column() -> None:
    table = columns(**{"rate, yearly": [index % 5 for index in range(ROWS)]})

    assert posed(table, exclude=("rate, yearly",)).schema.names() == ["amount"]


def test_kept_columns_stay_though_the_check_would_drop_them() -> None:
    found = posed(columns(), keep=("same", "number"))

    assert found.schema.names() == ["amount", "same", "number"]
    assert not {"constant", "id"} & {finding.code for finding in found.findings}


def test_a_finding_names_the_option_that_overrides_its_action() -> None:
    found = posed(columns(**{"Region's name": ["x"] * ROWS}))

    assert Override("keep", "Region's name") in [finding.override for finding in found.findings]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"exclude": ("amuont",)}, "option 'exclude'.*'amuont'.*did you mean 'amount'"),
        ({"keep": ("sam",)}, "option 'keep'.*'sam'.*did you mean 'same'"),
        ({"map": ("good",)}, "OLD=NEW"),
        ({"map": ("goood=good",)}, "meets no label of 'y'; did you mean 'good'"),
        ({"keep": ("empty",)}, "nothing to keep"),
    ],
)
def test_mistakes_name_the_column_and_the_close_ones(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TableError, match=sentence) as caught:
        posed(columns(empty=[None] * ROWS), **options)

    assert "\n" not in caught.value.message


def test_labels_are_mended_where_the_rule_meets_one() -> None:
    labels = ["<=50K", ">50K", "<=50K.", ">50K."] * (ROWS // 4)

    untouched = posed(columns(y=labels))
    mended = posed(columns(y=labels), map=("<=50K.=<=50K", ">50K.=>50K"))

    assert len(untouched.classes) == 4
    alike = [finding.override for finding in untouched.findings if finding.code == "alike-labels"]
    assert alike == [Override("map", "<=50K.=<=50K"), Override("map", ">50K.=>50K")]
    assert mended.classes == ("<=50K", ">50K")
    assert set(mended.frame["y"].to_list()) == {"<=50K", ">50K"}


def test_labels_can_be_mended_into_numbers_and_away() -> None:
    labels = ["1", "2", "x"] * (ROWS // 3)

    found = posed(columns(y=labels), map=("x=",))

    assert found.classes == (1, 2)
    assert len(found.training) + len(found.holdout) == 40


def test_plus_and_minus_are_two_labels() -> None:
    found = posed(columns(y=["+", "-"] * (ROWS // 2)))

    assert "alike-labels" not in {finding.code for finding in found.findings}


def labels_file(**columns: list[Any]) -> Table:
    return tables.from_memory(columns, "labels.csv")


def test_labels_of_another_file_stand_beside_the_rows() -> None:
    table, name = tables.with_target(tables.from_memory({"x": [1, 2]}, "rows.csv"), labels_file(y=[0, 1]), None)

    assert (name, table.frame.columns, table.frame["y"].to_list()) == ("y", ["x", "y"], [0, 1])


def test_labels_that_do_not_fit_the_rows_are_refused() -> None:
    rows = tables.from_memory({"x": [1, 2]}, "rows.csv")

    with pytest.raises(TableError, match="3 labels for the 2 rows"):
        tables.with_target(rows, labels_file(y=[0, 1, 1]), None)
    with pytest.raises(TableError, match=r"has 2 columns.*option 'target'"):
        tables.with_target(rows, labels_file(y=[0, 1], z=[0, 1]), None)
    with pytest.raises(TableError, match=r"labels\.csv has no column 'yy'; did you mean 'y'"):
        tables.with_target(rows, labels_file(y=[0, 1], z=[0, 1]), "yy")
    with pytest.raises(TableError, match="has a column 'x' too"):
        tables.with_target(rows, labels_file(x=[0, 1]), None)


def days(order: list[int]) -> list[str]:
    """One day a row, in the order given."""
    return [f"2026-{1 + place // 28:02d}-{1 + place % 28:02d}" for place in order]


@pytest.mark.parametrize("shown", [days, list], ids=["dates", "numbers"])
def test_split_by_time_the_rows_kept_aside_are_the_last(shown: Any) -> None:
    order = [(7 * index) % ROWS for index in range(ROWS)]

    found = posed(columns(when=shown(order)), time="when")

    assert sorted(order[place] for place in found.holdout.places) == list(range(48, 60))
    assert len(found.training) == 48


def test_equal_moments_are_on_one_side() -> None:
    found = posed(columns(year=[2020 + index // 13 for index in range(ROWS)]), time="year")

    assert {2020 + place // 13 for place in found.holdout.places} == {2024}


def test_a_random_split_of_drifting_rows_is_said_and_a_split_by_time_is_not() -> None:
    table = columns(y=["good" if index % (2 + index // 8) else "bad" for index in range(ROWS)] * 20)
    table = {name: cells if name == "y" else cells * 20 for name, cells in table.items()}
    table["y"] = [label if index > 600 else "bad" for index, label in enumerate(table["y"])]
    table["number"] = list(range(20 * ROWS))

    at_random = {finding.code for finding in posed(table).findings}
    by_time = {finding.code for finding in posed(table, time="number").findings}

    assert at_random - by_time == {"ordered-rows"}


@pytest.mark.parametrize(
    ("when", "sentence"),
    [
        ([1] * ROWS, "share the last moment"),
        ([ROWS if index % 3 else index for index in range(ROWS)], "share the last moment"),
        ([index % 3 * ROWS + index for index in range(ROWS)], "do not hold every class"),
    ],
)
def test_a_time_that_cannot_split_is_refused(when: list[Any], sentence: str) -> None:
    with pytest.raises(TableError, match=sentence):
        posed(columns(when=when), time="when")
    with pytest.raises(TableError, match="did you mean 'when'"):
        posed(columns(when=when), time="whn")
