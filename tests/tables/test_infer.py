"""Schema inference: the kind of a column depends only on its cells."""
# ruff: noqa: DTZ001 - some tests use naive datetimes

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from rowcast.errors import TableError
from rowcast.schema.schema import Column
from rowcast.tables.infer import infer_schema
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Override

MICROSECONDS_A_DAY = 86_400_000_000


def column(values: list[Any]) -> Column:
    """Return the column inferred from these cells, in a table that also has a second column."""
    profile = infer_schema(table_from_memory({"x": values, "other": [index % 2 for index in range(len(values))]}))
    return profile.schema.columns[0]


def codes(columns: dict[str, list[Any]]) -> list[tuple[str, str]]:
    return [(finding.code, finding.column) for finding in infer_schema(table_from_memory(columns)).findings]


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
def test_the_kind_of_a_column_is_inferred_from_all_of_its_cells(cells: list[Any], kind: str) -> None:
    assert column(cells).kind == kind


def test_boolean_words_are_stored_in_lower_case() -> None:
    assert column(["Yes", "Yes ", "no", None]) == Column(
        name="x", kind="boolean", missing=True, words={"no": False, "yes": True}, example="Yes"
    )


def test_levels_are_sorted_by_frequency_and_then_by_text() -> None:
    inferred = column(["b", "a ", "c", "a", "?", "", "cafe\u0301", "caf\u00e9"])

    assert inferred.levels == ("a", "caf\u00e9", "b", "c")
    assert inferred.missing
    assert inferred.example == "a"


def test_the_range_of_a_number_column_is_inferred_and_its_example_is_the_median() -> None:
    inferred = column(["5", "1", "9", "9", "9"])

    assert (inferred.low, inferred.high, inferred.example) == (1.0, 9.0, 9)


@pytest.mark.parametrize(
    ("cells", "forms", "low", "high"),
    [
        (["$1,250.00", "$3", "4.5"], ("currency",), 3.0, 1250.0),
        (["95%", "7.5 %"], ("percent",), 7.5, 95.0),
        (["0", "1", "3+"], ("plus",), 0.0, 3.0),
        (["1,250", "1,250,000", "7"], ("thousands",), 7.0, 1_250_000.0),
        (["1,250", "$5", "7%"], ("thousands", "currency", "percent"), 5.0, 1250.0),
        (["614.00 $", "£5", "₹ 1,250"], ("currency",), 5.0, 1250.0),
        (["12k", "1.5M", "900"], ("magnitude",), 900.0, 1_500_000.0),
        (["(1,250)", "$7.50", "($3)"], ("currency", "parentheses"), -1250.0, 7.5),
        (["1.234,50 €", "3.400 €", "€ 7"], ("comma",), 7.0, 3400.0),
        (["8,9 %", "12 %"], ("comma",), 8.9, 12.0),
        (["1.250,50", "3.400", "7,5"], ("comma", "points"), 7.5, 3400.0),
        (["2,5", "3.75", "3.400"], ("comma",), 2.5, 3.75),
    ],
)
def test_number_notations_are_recognized(cells: list[str], forms: tuple[str, ...], low: float, high: float) -> None:
    inferred = column(cells)

    assert (inferred.forms, inferred.low, inferred.high) == (forms, low, high)
    assert inferred.kind in ("number", "integer")


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
def test_date_formats_are_recognized(cells: list[str], forms: tuple[str, ...]) -> None:
    inferred = column(cells)

    assert (inferred.kind, inferred.forms) == ("datetime", forms)
    assert inferred.origin == min(int(inferred.parse(cell, text=True) or 0) for cell in cells)


def test_ambiguous_dates_are_reported_as_a_finding() -> None:
    assert ("ambiguous-dates", "x") in codes({"x": ["01/02/2026", "03/04/2026"], "y": [1, 2]})


def test_unusable_columns_are_excluded_and_reported_as_findings() -> None:
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

    profile = infer_schema(table_from_memory(columns))

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
        "area": "unique-numbers",
    }
    assert all(finding.action for finding in profile.findings)
    assert all(finding.override for finding in profile.findings if finding.code != "all-missing")


@pytest.mark.parametrize("name", ["customer_no", "Loan No"])
@pytest.mark.parametrize("cell", [int, str, float])
def test_a_column_of_ascending_numbers_with_gaps_is_excluded_unless_it_is_kept(name: str, cell: Any) -> None:
    numbers = [cell(20_000 + 7 * index + index * index % 5) for index in range(300)]
    table = table_from_memory({name: numbers, "x": [index % 3 for index in range(300)]})

    profile = infer_schema(table)

    assert profile.schema.names() == ["x"]
    (finding,) = [finding for finding in profile.findings if finding.column == name]
    assert (finding.code, finding.action, finding.override) == ("id", "excluded", Override("keep", name))
    assert infer_schema(table, keep=[name]).schema.names() == [name, "x"]


def test_a_constant_column_with_missing_values_is_kept() -> None:
    assert column(["x", None, "x"]).missing


def test_duplicate_rows_and_large_integers_are_reported_as_findings() -> None:
    assert codes({"x": [16_777_217, 5, 5], "y": [1, 2, 2]}) == [("duplicate-rows", ""), ("large-integer", "x")]


def test_the_schema_does_not_contain_the_target() -> None:
    table = table_from_memory({"x": [1, 2, 3], "y": [0, 1, 0]})

    assert infer_schema(table, target="y").schema.names() == ["x"]


@pytest.mark.parametrize(
    ("columns", "keep", "slug"),
    [
        ({"rows": [1, 2], "y": [0, 1]}, (), "column-name"),
        ({"x": [1.0, float("inf")], "y": [0, 1]}, (), "too-large"),
        ({"x": [1, 1], "y": [0, 1]}, (), "no-columns"),
        ({"x": [None, None], "z": [1, 2], "y": [0, 1]}, ("x",), "empty-column"),
    ],
)
def test_an_unusable_table_is_rejected(columns: dict[str, list[Any]], keep: tuple[str, ...], slug: str) -> None:
    with pytest.raises(TableError) as caught:
        infer_schema(table_from_memory(columns), target="y", keep=keep)

    assert caught.value.slug == slug


def test_the_origin_of_a_date_column_is_its_earliest_value() -> None:
    assert column([datetime(1970, 1, 3), datetime(1970, 1, 2)]).origin == MICROSECONDS_A_DAY


@pytest.mark.parametrize(
    ("cells", "high"),
    [(["1,5", "2,25", "3"], 3.0), (["1.250,50", "7,5"], 1250.5), (["1,250", "2,5"], 2.5), (["1,250", "2,500"], 2500.0)],
)
def test_a_comma_is_a_decimal_separator_if_the_cells_allow_no_other_interpretation(
    cells: list[str], high: float
) -> None:
    inferred = column(cells)

    assert inferred.high == high
    assert inferred.parse(cells[0], text=True) == inferred.parse(cells[0])
