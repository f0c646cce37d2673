"""Time, group and weight columns have special roles, and a column cannot have conflicting roles."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.errors import TableError
from support.findings import LABELS, RNG, ROWS, findings_of, problem_of

CUSTOMER = RNG.integers(0, 90, ROWS)


@pytest.mark.parametrize("option", ["exclude", "group", "time", "weight"])
def test_the_target_cannot_have_another_role(option: str) -> None:
    with pytest.raises(TableError) as caught:
        problem_of({}, **{option: ("y",) if option == "exclude" else "y"})

    assert caught.value.slug == "target-column"


def test_a_column_cannot_be_both_kept_and_excluded() -> None:
    with pytest.raises(TableError) as caught:
        problem_of({"x": CUSTOMER}, keep=("x",), exclude=("x",))

    assert caught.value.slug == "kept-and-excluded"


@pytest.mark.parametrize("option", ["group", "time", "weight"])
def test_an_unknown_column_is_rejected_with_a_suggestion(option: str) -> None:
    with pytest.raises(TableError, match="'customer'") as caught:
        problem_of({"customer": CUSTOMER}, **{option: "custmer"})

    assert "custmer" in caught.value.message


@pytest.mark.parametrize("option", ["group", "weight"])
def test_a_group_or_weight_column_is_a_feature_only_if_it_is_kept(option: str) -> None:
    columns, role = {"extra": CUSTOMER + 1}, {option: "extra"}

    alone, combined = findings_of(option, columns, **role), findings_of(option, columns, **role, keep=("extra",))

    assert [str(finding.override) for finding in (*alone, *combined)] == ["keep=extra", "exclude=extra"]
    assert "extra" not in problem_of(columns, **role).schema.names()
    assert "extra" in problem_of(columns, **role, keep=("extra",)).schema.names()


def test_a_time_column_is_a_feature_unless_it_is_excluded() -> None:
    columns = {"day": RNG.permutation(ROWS) // 2}

    assert "day" in problem_of(columns, time="day").schema.names()
    assert "day" not in problem_of(columns, time="day", exclude=("day",)).schema.names()
    assert [str(finding.override) for finding in findings_of("time", columns, time="day")] == ["exclude=day"]


@pytest.mark.parametrize(
    ("option", "values", "slug"),
    [
        ("weight", [-1.0, *[1.0] * (ROWS - 1)], "negative-weight"),
        ("weight", [0] * ROWS, "zero-weights"),
        ("weight", [None, *[1.5] * (ROWS - 1)], "missing-values"),
        ("weight", [None] * ROWS, "empty-column"),
        ("weight", ["heavy", *["1"] * (ROWS - 1)], "column-kind"),
        ("weight", ["2026-01-01", "2026-01-02"] * (ROWS // 2), "column-kind"),
        ("weight", [True, False] * (ROWS // 2), "column-kind"),
        ("time", ["a", "b"] * (ROWS // 2), "column-kind"),
        ("time", [None, *range(ROWS - 1)], "missing-values"),
        ("group", [None, *[str(each) for each in CUSTOMER[1:]]], "missing-values"),
        ("group", ["?", *[str(each) for each in CUSTOMER[1:]]], "missing-values"),
    ],
)
def test_an_unsuitable_column_is_rejected(option: str, values: list[Any], slug: str) -> None:
    with pytest.raises(TableError, match=f"option '{option}': column 'extra'") as caught:
        problem_of({"extra": values}, **{option: "extra"})

    assert caught.value.slug == slug


def test_the_error_for_a_negative_weight_contains_the_row_number() -> None:
    with pytest.raises(TableError) as caught:
        problem_of({"w": [1.0, 2.0, -1.0, *[1.0] * (ROWS - 3)]}, weight="w")

    assert (
        caught.value.message == "option 'weight': column 'w' has a negative value in row 2; weights must be 0 or more"
    )


def test_rows_with_a_weight_of_zero_are_excluded() -> None:
    weight = np.where(np.arange(ROWS) % 10 == 0, 0.0, 1.5)

    problem = problem_of({"w": weight}, weight="w")

    assert problem.frame.height == ROWS * 9 // 10
    assert [finding.column for finding in problem.findings if finding.code == "weightless"] == ["w"]
    assert problem.training.weight is not None
    assert problem.training.weight == pytest.approx(1.0)


def test_a_repeated_identifier_is_suggested_as_a_group_column() -> None:
    findings = findings_of("repeated-id", {"customer_id": CUSTOMER})

    assert [str(finding.override) for finding in findings] == ["group=customer_id"]
    assert f"{len(np.unique(CUSTOMER))} distinct values" in findings[0].message
    assert not findings_of("repeated-id", {"customer_id": CUSTOMER}, group="customer_id")
    assert not findings_of("repeated-id", {"paid": CUSTOMER, "valid": CUSTOMER})


def test_row_order_is_not_reported_for_a_time_split() -> None:
    drifting = RNG.random(ROWS) < np.linspace(0.1, 0.9, ROWS)
    columns = {"day": np.arange(ROWS) // 2}

    assert findings_of("ordered-rows", columns, drifting)
    assert not findings_of("ordered-rows", columns, drifting, time="day")
    assert not findings_of("ordered-rows", columns, LABELS, time="day")
