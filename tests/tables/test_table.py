"""Tables: column names, and labels from another file."""

from __future__ import annotations

import pytest

from rowcast.errors import TableError
from rowcast.schema.schema import Column, Schema
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Override, Table, misspellings, with_target

TABLE = table_from_memory({"loan_status": [1, 0], "amount": [2, 3], "a,b": [4, 5]}, "loans.csv")


@pytest.mark.parametrize(("name", "hint"), [("Loan_Stat", "'loan_status'"), ("zzz", "loan_status, amount")])
def test_the_error_for_an_unknown_column_includes_a_hint(name: str, hint: str) -> None:
    with pytest.raises(TableError) as caught:
        TABLE.require(name)

    assert caught.value.slug == "unknown-column"
    assert hint in caught.value.message


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["INCOME_2024", "income_2025"], {}),
        (["income_2024", "income_2025"], {"INCOME_2024": "income_2024"}),
        (["INCOME_2024", "incone_2025"], {"income_2025": "incone_2025"}),
        (["INCOME_2024"], {}),
        (["INCOME_2024", "outcome"], {}),
        ([], {}),
    ],
)
def test_a_name_counts_as_misspelled_only_if_it_resembles_the_name_of_an_absent_column(
    names: list[str], found: dict[str, str]
) -> None:
    schema = Schema((Column(name="INCOME_2024", kind="number"), Column(name="income_2025", kind="number")))

    assert misspellings(names, schema) == found


@pytest.mark.parametrize(
    ("texts", "columns"),
    [
        ((" amount ",), ["amount"]),
        (("amount,loan_status",), ["amount", "loan_status"]),
        (("a,b", "amount"), ["a,b", "amount"]),
        (("amount", "amount"), ["amount"]),
        ((), []),
    ],
)
def test_columns_can_be_given_separately_or_as_a_comma_separated_list(
    texts: tuple[str, ...], columns: list[str]
) -> None:
    assert TABLE.resolve_columns(texts, "exclude") == columns


def test_the_error_for_an_unknown_column_in_an_option_names_the_option() -> None:
    with pytest.raises(TableError) as caught:
        TABLE.resolve_columns(["amount,zzz"], "exclude")

    assert caught.value.slug == "unknown-column"
    assert "'exclude'" in caught.value.message


def test_columns_can_be_removed() -> None:
    assert TABLE.without(["amount"]).frame.columns == ["loan_status", "a,b"]


def labels(**columns: list[int]) -> Table:
    return table_from_memory(columns, "labels.csv")


def test_labels_from_another_file_become_the_target() -> None:
    table, target = with_target(TABLE, labels(y=[0, 1]), None)

    assert target == "y"
    assert table.frame["y"].to_list() == [0, 1]
    assert table.sha256 not in (TABLE.sha256, "")


@pytest.mark.parametrize(
    ("columns", "target", "slug"),
    [
        ({"y": [0, 1, 1]}, None, "row-count"),
        ({"y": [0, 1], "z": [0, 1]}, None, "target-required"),
        ({"y": [0, 1], "z": [0, 1]}, "yy", "unknown-column"),
        ({"amount": [0, 1]}, None, "duplicate-column"),
    ],
)
def test_labels_that_do_not_match_the_table_are_rejected(
    columns: dict[str, list[int]], target: str | None, slug: str
) -> None:
    with pytest.raises(TableError) as caught:
        with_target(TABLE, labels(**columns), target)

    assert caught.value.slug == slug


def test_an_override_is_formatted_like_a_keyword_argument() -> None:
    assert str(Override("exclude", "age")) == "exclude=age"
    assert str(Override("map")) == "map"
