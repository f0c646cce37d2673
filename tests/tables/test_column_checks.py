"""Checks on individual columns: placeholders for missing values, codes, implausible values and sparse columns."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import polars as pl
import pytest

from rowcast.tables import column_checks
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Finding
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import build_problem
from support.findings import LABELS, NOISE, RNG, ROWS, findings_of, problem_of


def far_values(columns: dict[str, list[Any]]) -> list[Finding]:
    findings = build_problem(table_from_memory(columns), TrainingOptions(target="y", name="x")).findings
    return [finding for finding in findings if finding.code == "far-value"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (np.where(LABELS, -1, np.arange(ROWS) % 90), "-1"),
        (np.where(LABELS, 999, np.arange(ROWS) % 40), "999"),
        (np.where(LABELS, 365243, np.arange(ROWS) % 9000), "365243"),
        (np.where(LABELS, -100000.0, 1000.0 * (np.arange(ROWS) % 90)), "-100000"),
    ],
)
def test_placeholders_for_missing_values_are_reported(column: Any, value: str) -> None:
    findings = findings_of("sentinel", {"days": column}, RNG.permutation(LABELS))

    assert [finding.column for finding in findings] == ["days"]
    assert findings[0].message.startswith(f"the value {value}, found in 150 rows, ")


@pytest.mark.parametrize(
    "column",
    [np.arange(ROWS) % 999 + 1, np.arange(ROWS) % 50 - 9, np.where(LABELS, -1, np.arange(ROWS) % 3), NOISE],
    ids=["all up to 999", "many negatives", "small codes", "decimals"],
)
def test_ordinary_numbers_are_not_reported_as_placeholders(column: Any) -> None:
    assert not findings_of("sentinel", {"x": column}, RNG.permutation(LABELS))


def test_isolated_zeros_are_reported_as_possible_placeholders() -> None:
    size = np.where(np.arange(ROWS) % 60 == 1, 0.0, 3.5 + RNG.random(ROWS))
    assets = [None if row % 50 == 3 else 0 if row % 3 == 0 else 1000 + 10 * row for row in range(ROWS)]

    findings = findings_of("sentinel", {"size": size, "assets": assets, "rooms": RNG.integers(0, 5, ROWS)})

    messages = {finding.column: finding.message for finding in findings}
    assert messages.keys() == {"size", "assets"}
    assert "the value 0, found in 10 rows" in messages["size"]
    assert "0 in 196 rows" in messages["assets"]


def test_words_such_as_unknown_are_reported_with_their_count() -> None:
    column = np.where(np.arange(ROWS) % 3 == 0, "Unknown", np.where(np.arange(ROWS) % 2 == 0, "a", "b"))

    (finding,) = findings_of("unknown-level", {"job": column})

    assert "'Unknown' in 200 rows" in finding.message


def test_integers_that_look_like_codes_are_treated_as_categories_unless_the_column_is_kept() -> None:
    codes = RNG.choice(RNG.integers(4000, 300_000, 60), ROWS)

    inferred, unchanged = problem_of({"manager": codes}), problem_of({"manager": codes}, keep=("manager",))

    assert inferred.schema.columns[1].kind == "category"
    assert [str(finding.override) for finding in inferred.findings if finding.code == "code"] == ["keep=manager"]
    assert unchanged.schema.columns[1].kind == "integer"


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
def test_a_column_of_amounts_is_not_treated_as_codes(column: Any) -> None:
    assert problem_of({"x": column}).schema.columns[1].kind == "integer"


@pytest.mark.parametrize(
    ("column", "value"),
    [
        (np.where(np.arange(1200) == 7, 2207, 1950 + RNG.integers(0, 60, 1200)), "2,207"),
        (np.where(np.arange(1200) == 7, 144, RNG.integers(20, 70, 1200)), "1 of 1200 rows (144)"),
    ],
    ids=["year", "age"],
)
def test_values_far_from_all_other_values_are_reported(column: Any, value: str) -> None:
    findings = far_values({"age": column.tolist(), "y": (np.arange(1200) % 2).tolist()})

    assert any(value in finding.message for finding in findings)


@pytest.mark.parametrize(
    "column",
    [RNG.lognormal(10, 1, 4000), RNG.exponential(3, 4000), RNG.integers(0, 120, 4000), np.arange(4000) % 500 == 3],
    ids=["incomes", "waits", "ages of houses", "mostly zero"],
)
def test_a_long_tail_is_not_reported(column: Any) -> None:
    columns = {"age": column.astype(float).tolist(), "x": RNG.random(4000).tolist()}

    assert not far_values({**columns, "y": (np.arange(4000) % 2).tolist()})


def test_text_in_a_column_of_numbers_is_reported() -> None:
    cells = ["n.a. yet" if row == 3 else str(row % 90) for row in range(ROWS)]

    (finding,) = findings_of("almost-number", {"days": cells})

    assert "1 of 600 rows" in finding.message
    assert "'n.a. yet'" in finding.message


def test_weights_sparse_columns_and_zero_padded_numbers_are_reported() -> None:
    columns = {
        "fnlwgt": NOISE * 2,
        "weight": NOISE * 3,
        "mostly": [float(row) if row % 3 == 0 else None for row in range(ROWS)],
        "one": [1 if row % 3 else None for row in range(ROWS)],
        "n": [f"{row % 70:05d}" for row in range(ROWS)],
    }

    codes = {finding.column: finding.code for finding in problem_of(columns).findings if finding.column != "y"}

    assert codes == {"fnlwgt": "weight-like", "mostly": "mostly-missing", "one": "mostly-missing", "n": "leading-zeros"}


@pytest.mark.parametrize(
    ("name", "is_weight"), [("fnlwgt", True), ("sample_weight", True), ("weight", False), ("body weight", False)]
)
def test_names_of_weight_columns_are_recognized(name: str, is_weight: bool) -> None:
    assert bool(column_checks.named_like_weight(name)) == is_weight


@pytest.mark.parametrize(
    ("missing", "distinct", "is_reported"), [(10, 1, True), (95, 3, True), (51, 3, True), (50, 3, False)]
)
def test_columns_with_many_missing_values_are_reported(missing: int, distinct: int, is_reported: bool) -> None:
    assert bool(column_checks.gaps("x", missing=missing, rows=100, distinct=distinct)) == is_reported


def test_a_column_with_a_lot_of_text_is_not_treated_as_numeric() -> None:
    assert column_checks.almost_numbers("x", ["1", "2", "inf"], [60, 39, 1])
    assert not column_checks.almost_numbers("x", ["1", "2", "red"], [30, 30, 40])


def test_a_line_of_units_below_the_header_is_treated_as_a_second_header() -> None:
    def frame(*rows: str) -> pl.DataFrame:
        return pl.DataFrame([row.split(",") for row in rows], schema=["a", "b"], orient="row")

    assert column_checks.second_header(frame("km/h,kg", "1,2", "3,4"))
    assert not column_checks.second_header(frame("1,2", "3,4", "5,6"))
    assert not column_checks.second_header(frame("km/h,kg", "1,2"))


@pytest.mark.parametrize(
    "first", ["bad,1", "bad,", "NA,kg", "?,?", '"1,000",kg', "bad,red", "bad,2026-01-31", "bad,x7"], ids=str
)
def test_a_first_row_with_a_cell_that_is_not_a_label_is_treated_as_data(first: str) -> None:
    second = {"bad,red": "red", "bad,2026-01-31": "2026-02-01", "bad,x7": "x8"}.get(first, "2")
    rows = "".join(f"{number},{second}\n" for number in range(5))
    frame = pl.read_csv(io.StringIO(f"a,b\n{first}\n{rows}"), infer_schema=False)

    assert not column_checks.second_header(frame)
