"""The data check reports leaks, post-outcome columns, row order, conflicting rows and rare classes.

The check never drops a column.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Finding
from rowcast.training.data_check.check import SEVERITY, sort_by_severity
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import build_problem
from support.findings import LABELS, NOISE, RNG, ROWS, findings_of, problem_of


@pytest.mark.parametrize(
    ("column", "by_missing"),
    [
        (np.where(LABELS, 0.0, 1 + RNG.random(ROWS)), False),
        (np.where(LABELS, "yes", "no"), False),
        ([None if label else float(value) for label, value in zip(LABELS, NOISE, strict=True)], True),
    ],
    ids=["number", "copy of the target", "missing values"],
)
def test_a_column_that_predicts_the_target_on_its_own_is_reported_but_not_dropped(
    column: Any, by_missing: bool
) -> None:
    problem = problem_of({"late": column})
    leaks = [finding for finding in problem.findings if finding.code == "leak"]

    assert [(finding.column, str(finding.override)) for finding in leaks] == [("late", "exclude=late")]
    assert ("missing" in leaks[0].message) == by_missing
    assert "late" in problem.schema.names()


def test_a_column_that_leaks_a_regression_target_is_reported() -> None:
    value = RNG.random(ROWS) * 100

    assert [finding.column for finding in findings_of("leak", {"bucket": np.floor(value / 10)}, value)] == ["bucket"]


def test_a_column_far_more_predictive_than_any_other_column_is_reported_as_dominant() -> None:
    strong = LABELS * 2.0 + RNG.normal(size=ROWS)

    assert not findings_of("leak", {"strong": strong})
    assert [finding.column for finding in findings_of("dominant", {"strong": strong})] == ["strong"]


def test_a_noise_column_is_not_reported_as_a_leak() -> None:
    columns = {f"c{index}": RNG.normal(size=ROWS) for index in range(30)}
    columns["code"] = RNG.integers(0, 300, ROWS).astype(str)

    assert {finding.code for finding in problem_of(columns).findings} == {"positive-class"}


def test_a_value_that_determines_the_target_on_its_own_is_reported() -> None:
    before = np.where(LABELS, False, np.arange(ROWS) % 2 == 0)

    (finding,) = findings_of("certain-value", {"before": before})

    assert finding.column == "before"
    assert f"({int(before.sum())} rows)" in finding.message


def test_a_value_that_determines_one_of_several_classes_is_reported() -> None:
    kind = RNG.integers(0, 3, ROWS)
    island = np.where((kind == 0) & (NOISE > 0), "north", RNG.choice(["south", "west"], ROWS))

    (finding,) = findings_of("certain-value", {"island": island}, np.array(["a", "b", "c"])[kind])

    assert "'north'" in finding.message
    assert "'a'" in finding.message


def test_a_column_named_after_a_payment_is_reported_as_a_post_outcome_column() -> None:
    findings = findings_of("later-fact", {"paid_total": NOISE, "unpaid": NOISE})

    assert [finding.column for finding in findings] == ["paid_total"]


def test_a_column_with_final_status_values_is_reported_as_a_post_outcome_column() -> None:
    status = RNG.choice(["Current", "Fully Paid", "Charged Off"], ROWS)
    history = RNG.choice(["all credits paid back duly", "none"], ROWS)

    findings = findings_of("later-fact", {"status": status, "history": history})

    assert [finding.column for finding in findings] == ["status"]


def test_rows_ordered_by_the_target_are_reported() -> None:
    assert findings_of("target-ordered", {}, np.sort(LABELS))
    assert findings_of("ordered-rows", {}, RNG.random(ROWS) < np.linspace(0, 1, ROWS))
    assert findings_of("ordered-rows", {}, NOISE + np.linspace(0, 5, ROWS))


def test_rows_ordered_by_a_date_are_reported() -> None:
    days = np.datetime_as_string(np.datetime64("2024-01-01") + np.arange(ROWS) // 2)

    in_order, shuffled = (findings_of("ordered-rows", {"day": each}) for each in (days, RNG.permutation(days)))

    assert [str(finding.override) for finding in in_order] == ["time=day"]
    assert not shuffled


def test_a_counter_that_restarts_is_reported_because_it_reveals_the_row_order() -> None:
    counter = {"number": np.arange(ROWS) % 200 + 1}

    assert [finding.column for finding in findings_of("row-order", counter)] == ["number"]
    assert not findings_of("row-order", {"hour": np.arange(ROWS) % 24})


def test_identical_rows_with_different_labels_are_counted() -> None:
    cells = {"x": [*range(1, 41), 7, 8], "z": [1, 2] * 21, "y": [*[0, 0, 1, 1] * 10, 0, 0]}

    findings = build_problem(table_from_memory(cells), TrainingOptions(target="y", name="loans")).findings

    assert "4 rows" in next(finding.message for finding in findings if finding.code == "conflicting-rows")


def test_rare_classes_are_counted() -> None:
    assert "True (5)" in findings_of("rare-class", {}, np.arange(ROWS) % 120 == 0)[0].message


def test_findings_are_sorted_by_severity() -> None:
    findings = [Finding(code, "x", "message", "action") for code in ("id", *reversed(SEVERITY), "constant")]

    assert [finding.code for finding in sort_by_severity(findings)] == [*SEVERITY, "id", "constant"]


def test_the_most_severe_finding_of_a_table_comes_first() -> None:
    columns = {"id": np.arange(ROWS), "late": np.where(LABELS, 1, 0), "days": np.where(NOISE > 1, -1, ROWS // 9)}

    codes = [finding.code for finding in problem_of(columns).findings]

    assert codes[0] == "leak"
    assert codes[-1] in ("id", "positive-class")
