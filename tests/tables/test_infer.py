"""What a column means is decided by its cells alone."""
# ruff: noqa: DTZ001 - naive moments are what some of these tests are about

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from rowcast import tables
from rowcast.errors import TableError
from rowcast.schema.schema import Column

MICROSECONDS_A_DAY = 86_400_000_000


def column(values: list[Any]) -> Column:
    """The column inferred from these cells, beside another that keeps the table alive."""
    profile = tables.infer(tables.from_memory({"x": values, "other": [index % 2 for index in range(len(values))]}))
    return profile.schema.columns[0]


def codes(columns: dict[str, list[Any]]) -> list[tuple[str, str]]:
    return [(finding.code, finding.column) for finding in tables.infer(tables.from_memory(columns)).findings]


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "2", " 30 "], "integer"),
        (["1", "2.5", "1e3"], "number"),
        (["22.0", "23.0"], "number"),
        (["0", "1", "1"], "integer"),
        (["Yes", "no", "YES"], "boolean"),
        (["t", "f"], "boolean"),
        (["TRUE", "False"], "boolean"),
        (["yes", "maybe", "no"], "category"),
        (["red", "blue"], "category"),
        (["1", "2", "three"], "category"),
        (["2026-01-31", "2026-02-01T10:00:00Z"], "datetime"),
        (["31/12/2025", "01/01/2026"], "datetime"),
        (["Mar-2018", "Feb-2018"], "datetime"),
        (["2001", "1996"], "integer"),
        (["10001", "02134", "90210"], "category"),
        (["00202", "00043", "00000"], "integer"),
        (["01", "06", "11"], "integer"),
        (["123456789012345678", "123456789012345679", "123456789012345678"], "category"),
        ([1, 2, 3], "integer"),
        ([1.0, 2.0], "number"),
        ([True, False], "boolean"),
        ([datetime(2026, 1, 1), datetime(2026, 1, 2)], "datetime"),
        ([123456789012345678, 123456789012345679, 5], "category"),
    ],
)
def test_kinds(cells: list[Any], kind: str) -> None:
    assert column(cells).kind == kind


def test_boolean_words_are_kept_in_lower_case() -> None:
    assert column(["Yes", "Yes ", "no", None]) == Column(
        name="x", kind="boolean", missing=True, words={"no": False, "yes": True}, example="Yes"
    )


def test_levels_come_most_frequent_first_and_ties_by_text() -> None:
    found = column(["b", "a ", "c", "a", "?", "", "cafe\u0301", "caf\u00e9"])

    assert found.levels == ("a", "caf\u00e9", "b", "c")
    assert found.missing
    assert found.example == "a"


def test_numbers_know_their_range_and_their_median() -> None:
    found = column(["5", "1", "9", "9", "9"])

    assert (found.low, found.high, found.example) == (1.0, 9.0, 9)


@pytest.mark.parametrize(
    ("cells", "forms", "low", "high"),
    [
        (["$1,250.00", "$3", "4.5"], ("currency",), 3.0, 1250.0),
        (["95%", "7.5 %"], ("percent",), 7.5, 95.0),
        (["0", "1", "3+"], ("plus",), 0.0, 3.0),
        (["1,250", "1,250,000", "7"], ("thousands",), 7.0, 1_250_000.0),
        (["1,250", "$5", "7%"], ("thousands", "currency", "percent"), 5.0, 1250.0),
    ],
)
def test_written_numbers_are_numbers(cells: list[str], forms: tuple[str, ...], low: float, high: float) -> None:
    found = column(cells)

    assert (found.forms, found.low, found.high) == (forms, low, high)
    assert found.kind in ("number", "integer")


@pytest.mark.parametrize(
    ("cells", "forms"),
    [
        (["2026-01-31", "2026-02-01"], ()),
        (["31/12/2025", "01/02/2026"], ("%d/%m/%Y",)),
        (["12/31/2025", "01/02/2026"], ("%m/%d/%Y",)),
        (["31.12.2025", "01.02.2026"], ("%d.%m.%Y",)),
        (["Mar-2018", "Feb-2018"], ("%b-%Y",)),
        (["31/12/2025 10:30", "01/02/2026 00:00"], ("%d/%m/%Y %H:%M",)),
        (["Jan 5, 2026", "Feb 14, 2026"], ("%b %d, %Y",)),
        (["31/12/2025", "2026-01-01", "5 Jan 2026"], ("%d/%m/%Y", "%d %b %Y")),
    ],
)
def test_dates_in_their_formats(cells: list[str], forms: tuple[str, ...]) -> None:
    found = column(cells)

    assert (found.kind, found.forms) == ("datetime", forms)
    assert found.origin == min(int(found.parse(cell, text=True) or 0) for cell in cells)


def test_dates_that_can_be_read_two_ways_are_said() -> None:
    assert ("ambiguous-dates", "x") in codes({"x": ["01/02/2026", "03/04/2026"], "y": [1, 2]})


def test_columns_without_use_are_left_out_and_named() -> None:
    rows = 40
    columns = {
        "counter": list(range(rows)),
        "shuffled": [(7 * index) % rows for index in range(rows)],
        "customer_id": [1000 + index * index for index in range(rows)],
        "uuid": [f"row-{index}" for index in range(rows)],
        "notes": [f"note {index // 2 if index < 4 else index}" for index in range(rows)],
        "empty": [None] * rows,
        "blank": ["?"] * rows,
        "same": ["x"] * rows,
        "area": [1000 + index * index for index in range(rows)],
        "kept": [index % 3 for index in range(rows)],
    }

    profile = tables.infer(tables.from_memory(columns))

    assert profile.schema.names() == ["area", "kept"]
    assert {finding.column: finding.code for finding in profile.findings} == {
        "counter": "id",
        "shuffled": "id",
        "customer_id": "id",
        "uuid": "id",
        "notes": "free-text",
        "empty": "all-missing",
        "blank": "all-missing",
        "same": "constant",
    }
    assert all(finding.action for finding in profile.findings)
    assert all(finding.override for finding in profile.findings if finding.code != "all-missing")


def test_a_constant_with_gaps_still_says_something() -> None:
    assert column(["x", None, "x"]).missing


def test_repeated_rows_and_large_integers_are_said() -> None:
    assert codes({"x": [16_777_217, 5, 5], "y": [1, 2, 2]}) == [("duplicate-rows", ""), ("large-integer", "x")]


def test_the_target_is_no_column_of_the_schema() -> None:
    table = tables.from_memory({"x": [1, 2, 3], "y": [0, 1, 0]})

    assert tables.infer(table, target="y").schema.names() == ["x"]


def test_tables_that_cannot_be_learnt_from_are_refused() -> None:
    with pytest.raises(TableError, match="named 'rows'"):
        tables.infer(tables.from_memory({"rows": [1, 2], "y": [0, 1]}), target="y")
    with pytest.raises(TableError, match="numbers beyond"):
        tables.infer(tables.from_memory({"x": [1.0, float("inf")], "y": [0, 1]}), target="y")
    with pytest.raises(TableError, match="no column to learn from"):
        tables.infer(tables.from_memory({"x": [1, 1], "y": [0, 1]}), target="y")


def test_a_two_day_column_starts_at_its_first_day() -> None:
    assert column([datetime(1970, 1, 3), datetime(1970, 1, 2)]).origin == MICROSECONDS_A_DAY


@pytest.mark.parametrize(
    ("cells", "high"),
    [(["1,5", "2,25", "3"], 3.0), (["1.250,50", "7,5"], 1250.5), (["1,250", "2,5"], 2.5), (["1,250", "2,500"], 2500.0)],
)
def test_a_comma_is_the_decimal_point_where_no_other_reading_fits(cells: list[str], high: float) -> None:
    found = column(cells)

    assert found.high == high
    assert found.parse(cells[0], text=True) == found.parse(cells[0])
