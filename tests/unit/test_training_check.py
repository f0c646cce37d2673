"""What the data check says of a table and its target: leaks, order, codes, stand-ins for missing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast import tables
from rowcast.tables import Finding
from rowcast.training.problem import Problem, pose
from rowcast.training.story import Options

ROWS = 600
RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.arange(ROWS) % 4 == 0)
NOISE = RNG.normal(size=ROWS)


def posed(columns: dict[str, Any], target: Any = LABELS, **options: Any) -> Problem:
    cells = {name: list(values) for name, values in {"noise": NOISE, **columns, "y": target}.items()}
    return pose(tables.from_memory(cells, "loans"), Options(target="y", name="loans", **options))


def found(code: str, columns: dict[str, Any], target: Any = LABELS) -> list[Finding]:
    return [finding for finding in posed(columns, target).findings if finding.code == code]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (np.where(LABELS, 0.0, 1 + RNG.random(ROWS)), "alone predicts"),
        (np.where(LABELS, "yes", "no"), "alone predicts"),
        (
            [None if label else float(value) for label, value in zip(LABELS, NOISE, strict=True)],
            "its gaps alone predict",
        ),
    ],
    ids=["number", "copy of the target", "gaps"],
)
def test_a_column_that_alone_predicts_the_target_is_named_and_kept(column: Any, says: str) -> None:
    problem = posed({"late": column})
    leaks = [finding for finding in problem.findings if finding.code == "leak"]

    assert [(finding.column, finding.flag) for finding in leaks] == [("late", "--exclude late")]
    assert says in leaks[0].message
    assert "late" in problem.schema.names()


def test_a_leak_of_a_value_is_named_too() -> None:
    value = RNG.random(ROWS) * 100

    assert [finding.column for finding in found("leak", {"bucket": np.floor(value / 10)}, value)] == ["bucket"]


def test_a_column_that_stands_out_is_named_as_such() -> None:
    strong = LABELS * 2.0 + RNG.normal(size=ROWS)

    assert not found("leak", {"strong": strong})
    assert [finding.column for finding in found("dominant", {"strong": strong})] == ["strong"]


def test_noise_is_no_leak() -> None:
    many = {f"c{index}": RNG.normal(size=ROWS) for index in range(30)}
    many["code"] = RNG.integers(0, 300, ROWS).astype(str)

    codes = {finding.code for finding in posed(many).findings}

    assert codes == {"positive-class"}


def test_a_value_that_decides_alone_is_named() -> None:
    before = np.where(LABELS, False, np.arange(ROWS) % 2 == 0)

    assert "in all of" in found("certain-value", {"before": before})[0].message


def test_a_name_that_tells_of_later_facts_is_named() -> None:
    assert [finding.column for finding in found("later-fact", {"paid_total": NOISE, "unpaid": NOISE})] == ["paid_total"]


def test_rows_in_the_order_of_the_target_are_said() -> None:
    assert found("target-ordered", {}, np.sort(LABELS))
    assert found("ordered-rows", {}, RNG.random(ROWS) < np.linspace(0, 1, ROWS))
    assert found("ordered-rows", {}, NOISE + np.linspace(0, 5, ROWS))


def test_equal_rows_with_unequal_labels_are_counted() -> None:
    cells = {"x": [*range(1, 41), 7, 8], "z": [1, 2] * 21, "y": [*[0, 0, 1, 1] * 10, 0, 0]}

    findings = pose(tables.from_memory(cells), Options(target="y", name="loans")).findings

    assert "4 rows" in next(finding.message for finding in findings if finding.code == "conflicting-rows")


def test_rare_classes_are_said() -> None:
    assert "True (5)" in found("rare-class", {}, np.arange(ROWS) % 120 == 0)[0].message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (np.where(LABELS, -1, np.arange(ROWS) % 90), "-1"),
        (np.where(LABELS, 999, np.arange(ROWS) % 40), "999"),
        (np.where(LABELS, 365243, np.arange(ROWS) % 9000), "365243"),
        (np.where(LABELS, -100000.0, 1000.0 * (np.arange(ROWS) % 90)), "-100000"),
    ],
)
def test_values_that_stand_for_missing_are_named(column: Any, value: str) -> None:
    said = found("sentinel", {"days": column}, RNG.permutation(LABELS))

    assert [finding.column for finding in said] == ["days"]
    assert said[0].message.startswith(f"{value} in 150 rows")


@pytest.mark.parametrize(
    "column",
    [np.arange(ROWS) % 999 + 1, np.arange(ROWS) % 50 - 9, np.where(LABELS, -1, np.arange(ROWS) % 3), NOISE],
    ids=["all up to 999", "many negatives", "small codes", "decimals"],
)
def test_ordinary_numbers_are_no_sentinels(column: Any) -> None:
    assert not found("sentinel", {"x": column}, RNG.permutation(LABELS))


def test_texts_that_say_unknown_are_named() -> None:
    column = np.where(np.arange(ROWS) % 3 == 0, "Unknown", np.where(np.arange(ROWS) % 2 == 0, "a", "b"))

    assert [finding.message for finding in found("unknown-level", {"job": column})] == ["says 'Unknown' in 200 rows"]


def test_large_sparse_repeated_integers_are_codes_unless_kept() -> None:
    codes = RNG.choice(RNG.integers(4000, 300_000, 60), ROWS)

    taken, kept = posed({"manager": codes}), posed({"manager": codes}, keep=("manager",))

    assert taken.schema.columns[1].kind == "category"
    assert [finding.flag for finding in taken.findings if finding.code == "code"] == ["--keep manager"]
    assert kept.schema.columns[1].kind == "integer"


@pytest.mark.parametrize(
    "column",
    [
        RNG.integers(20, 90, ROWS) * 1000,
        1900 + RNG.integers(0, 120, ROWS),
        RNG.integers(300, 850, ROWS),
        np.where(LABELS, RNG.integers(3000, 40_000, ROWS) // 700 * 701, 0),
        RNG.integers(0, 12, ROWS),
    ],
    ids=["round incomes", "years", "scores", "mostly zero", "small"],
)
def test_amounts_stay_numbers(column: Any) -> None:
    assert posed({"x": column}).schema.columns[1].kind == "integer"
