"""Every kind of target gets the right task, or an error that says what to do."""
# ruff: noqa: DTZ001 - some tests use naive datetimes

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest

from rowcast.errors import TableError, TrainingError
from rowcast.tables.infer import infer_schema
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Override
from rowcast.training import labels
from rowcast.training.labels import LabelledTable
from rowcast.training.options import TrainingOptions

ROWS = 300
AMOUNTS = [100, 3937, *random.Random(3).sample(range(4000, 90_000), ROWS - 2)]
"""Different whole numbers in no particular order."""


def read(values: list[Any], **options: Any) -> LabelledTable:
    table = table_from_memory({"x": [float(index % 17) for index in range(len(values))], "y": values})
    return labels.read(table, "y", TrainingOptions(target="y", name="test", **options))


def codes(labelled: LabelledTable) -> list[str]:
    return [finding.code for finding in labelled.findings]


def days(count: int) -> list[datetime]:
    return [datetime(2025, 1, 1) + timedelta(days=index) for index in range(count)]


def repeated(*cells: Any) -> list[Any]:
    return (list(cells) * ROWS)[:ROWS]


NUMBERS = [
    ("dollars", [f"${amount}.00" for amount in AMOUNTS], 0, 100.0, "number-formats"),
    ("dollars and thousands", [f"${amount:,}.50" for amount in AMOUNTS], 0, 100.5, "number-formats"),
    ("percents", [f"{amount / 100:.2f}%" for amount in AMOUNTS], 0, 1.0, "number-formats"),
    ("euros", ["1.234,50 €", *(f"{amount},25 €" for amount in AMOUNTS)], 0, 1234.5, "number-formats"),
    ("euros without decimals", [*(f"{amount},25 €" for amount in AMOUNTS), "3.400 €"], -1, 3400.0, "number-formats"),
    ("decimal commas", [f"{amount},5" for amount in AMOUNTS], 0, 100.5, "number-formats"),
    ("points for thousands", [*(f"{amount},5" for amount in AMOUNTS), "3.400"], -1, 3400.0, "number-formats"),
    ("thousands of dollars", [f"{amount / 10}k" for amount in AMOUNTS], 0, 10_000.0, "number-formats"),
    ("millions", [f"{amount / 10}M" for amount in AMOUNTS], 0, 10_000_000.0, "number-formats"),
    ("thousand separators", [f"{amount:,}" for amount in AMOUNTS], 1, 3937.0, "number-formats"),
    ("French numbers", [f"{amount:,},50".replace(",", " ", 1) for amount in AMOUNTS[1:]], 0, 3937.5, "number-formats"),
    ("Swiss numbers", [f"{amount:,}.50".replace(",", "'") for amount in AMOUNTS], 1, 3937.5, "number-formats"),
    ("parentheses", [f"({amount:,})" if amount % 2 else f"{amount:,}" for amount in AMOUNTS], 1, -3937.0, ""),
    ("spaces", [f"  {amount}.5 " for amount in AMOUNTS], 0, 100.5, ""),
    ("negative numbers", [f"-{amount}.5" for amount in AMOUNTS], 0, -100.5, ""),
    ("exponents", [f"{amount / 100}e5" for amount in AMOUNTS], 0, 100_000.0, ""),
    ("floats", [amount / 7 for amount in AMOUNTS], 0, 100 / 7, ""),
    ("counts", [index * index % 61 for index in range(ROWS)], 3, 9.0, ""),
    ("half-star ratings", [(index % 9) / 2 + 1 for index in range(ROWS)], 1, 1.5, ""),
    ("unique measurements", [13 * amount for amount in AMOUNTS], 0, 1300.0, ""),
    ("padded numbers", [f"{amount:06}" for amount in AMOUNTS], 0, 100.0, ""),
]


@pytest.mark.parametrize(
    ("values", "row", "value", "code"), [case[1:] for case in NUMBERS], ids=[c[0] for c in NUMBERS]
)
def test_many_different_numbers_in_any_notation_are_a_regression_target_with_a_finding(
    values: list[Any], row: int, value: float, code: str
) -> None:
    labelled = read(values)

    assert (labelled.task, labelled.classes) == ("regression", ())
    assert labelled.target[row] == pytest.approx(value)
    (finding,) = [finding for finding in labelled.findings if finding.code == "numeric-target"]
    assert (finding.column, bool(finding.message), bool(finding.action)) == ("y", True, True)
    assert not code or code in codes(labelled)


@pytest.mark.parametrize("values", [case[1] for case in NUMBERS], ids=[case[0] for case in NUMBERS])
def test_a_target_has_the_same_values_as_a_column_with_the_same_cells(values: list[Any]) -> None:
    table = table_from_memory({"y": values, "x": [index % 2 for index in range(len(values))]})
    column = infer_schema(table, keep=["y"]).schema.columns[0]

    assert read(values).target.tolist() == [column.parse(cell, text=True) for cell in values]


CLASSES = [
    ("English", repeated("yes", "no", "no"), "binary", "yes"),
    ("German", repeated("Nein", "Ja", "Ja"), "binary", "Ja"),
    ("French", repeated("oui", "oui", "non"), "binary", "oui"),
    ("Spanish", repeated("sí", "sí", "no"), "binary", "sí"),
    ("Spanish without an accent", repeated("SI", "SI", "NO"), "binary", "SI"),
    ("1 and 2", repeated(1, 2), "binary", 1),
    ("0.0 and 1.0", repeated("0.0", "1.0"), "binary", 1),
    ("-1 and +1", repeated("-1", "+1"), "binary", 1),
    ("booleans", repeated(True, False, False), "binary", True),
    ("income brackets", repeated("<=50K", "<=50K", ">50K"), "binary", ">50K"),
    ("two amounts", repeated("$5.50", "$8.90", "$5.50"), "binary", "$8.90"),
]


@pytest.mark.parametrize(("values", "task", "positive"), [case[1:] for case in CLASSES], ids=[c[0] for c in CLASSES])
def test_two_distinct_values_are_classes_and_keep_their_type(values: list[Any], task: str, positive: Any) -> None:
    labelled = read(values)

    assert labelled.task == task
    assert labelled.classes[labelled.positive] == positive
    assert type(labelled.classes[labelled.positive]) is type(positive)


@pytest.mark.parametrize("values", [repeated(1, 2, 3, 4, 5), repeated("1", "2", "3", "4", "5")])
def test_ratings_are_treated_as_classes_and_a_finding_suggests_regression(values: list[Any]) -> None:
    labelled = read(values)

    assert (labelled.task, labelled.classes) == ("multiclass", (1, 2, 3, 4, 5))
    assert [finding.override for finding in labelled.findings if finding.code == "numeric-classes"] == [
        Override("task", "regression")
    ]
    assert read(values, task="regression").target.tolist() == [float(value) for value in values]


def test_a_dominant_class_is_reported() -> None:
    labelled = read((["good"] * 97 + ["bad"] * 3) * 3)

    assert (labelled.task, labelled.classes[labelled.positive]) == ("binary", "bad")
    (finding,) = [finding for finding in labelled.findings if finding.code == "imbalanced-classes"]
    assert ("97.0%" in finding.message, finding.override) == (True, Override("class_weight", "balanced"))


def test_the_spellings_of_yes_and_no_are_merged_unless_the_task_is_set() -> None:
    values = repeated("Yes", "yes", "Y", "No", "no", "Yes")

    merged, forced = read(values), read(values, task="multiclass")

    assert (merged.task, merged.classes, merged.classes[merged.positive]) == ("binary", ("No", "Yes"), "Yes")
    assert merged.target.tolist() == [int(value[0] in "Yy") for value in values]
    assert codes(merged).count("merged-labels") == 2
    assert (forced.task, len(forced.classes)) == ("multiclass", 5)


ERRORS = [
    ("dates", [f"{day:%Y-%m-%d}" for day in days(ROWS)], "target-kind", "'multiclass'"),
    ("German dates", [f"{day:%d.%m.%Y}" for day in days(ROWS)], "target-kind", "days until"),
    ("moments", days(ROWS), "target-kind", "days until"),
    ("times of day", [f"{index // 60:02}:{index % 60:02}" for index in range(ROWS)], "too-many-classes", "minutes"),
    ("row numbers", list(range(ROWS)), "target-identifier", "'regression'"),
    ("account numbers", [str(5000 + 3 * index + index % 2) for index in range(ROWS)], "target-identifier", "measure"),
    ("keys", [f"A-{index:05}" for index in range(ROWS)], "too-many-classes", "identifier or free text"),
    ("notes", [f"customer {index} called about {index * 7} things" for index in range(ROWS)], "too-many-classes", ""),
    ("names", [f"name {index % 200}" for index in range(ROWS)], "too-many-classes", "'map'"),
    ("units", [f"{amount} kg" for amount in AMOUNTS], "too-many-classes", "'kg'"),
    ("numbers and a text", [*map(str, AMOUNTS), "unknown"], "target-kind", "'unknown'"),
    ("repeated numbers and a text", [*(str(index % 40) for index in range(ROWS)), "n.v."], "target-kind", "'n.v.'"),
    ("equal texts", ["same"] * ROWS, "constant-target", "another"),
    ("equal numbers", [1.5] * ROWS, "constant-target", ""),
    ("no values", [None] * ROWS, "empty-target", "another"),
    ("postal codes", [f"{index * 331:05}" for index in range(ROWS)], "target-kind", ""),
    ("long numbers", [str(10**18 + amount) for amount in AMOUNTS], "target-kind", "'regression'"),
]


@pytest.mark.parametrize(("values", "slug", "advice"), [case[1:] for case in ERRORS], ids=[case[0] for case in ERRORS])
def test_other_targets_are_rejected_with_advice(values: list[Any], slug: str, advice: str) -> None:
    with pytest.raises(TableError) as caught:
        read(values)

    assert caught.value.slug == slug
    assert "'y'" in caught.value.message
    assert advice in caught.value.message


def test_a_forced_classification_keeps_the_labels_as_written() -> None:
    versions = repeated("1.10", "1.1", "2.0")

    assert read(versions, task="multiclass").classes == ("1.1", "1.10", "2.0")
    assert read(repeated("5%", "10%", "7.50%"), task="multiclass").classes == ("10%", "5%", "7.50%")
    assert read(repeated("2025-01-01", "2025-02-01"), task="binary").classes == ("2025-01-01", "2025-02-01")
    assert read([index % 40 for index in range(ROWS)], task="multiclass").classes == tuple(range(40))


def test_the_error_for_a_forced_regression_names_the_row_and_the_value_that_is_not_a_number() -> None:
    values = ["1.5", None, "2.5", "lots", *map(str, AMOUNTS)]

    with pytest.raises(TableError) as caught:
        read(values, task="regression")
    with pytest.raises(TableError) as sensitive:
        read(values, task="regression", sensitive=("y",))

    assert caught.value.message.startswith("row 3, target 'y': expected a number, got 'lots'")
    assert "lots" not in sensitive.value.message
    for refused in (repeated("yes", "no"), [f"{day:%Y-%m-%d}" for day in days(ROWS)], ["1,250.00", "2,5"] * ROWS):
        with pytest.raises(TableError) as error:
            read(refused, task="regression")
        assert error.value.slug == "target-kind"


def test_identifiers_and_codes_can_be_forced_to_be_regression_targets() -> None:
    assert read(list(range(ROWS)), task="regression").target.tolist() == list(range(ROWS))
    assert read([f"{index * 331:05}" for index in range(ROWS)], task="regression").target[2] == 662


def test_percentages_among_plain_numbers_are_reported() -> None:
    values = [f"{amount / 10}{'%' if amount % 2 else ''}" for amount in AMOUNTS]

    labelled = read(values)

    assert labelled.target.tolist() == [amount / 10 for amount in AMOUNTS]
    assert "mixed-percents" in codes(labelled)


def test_an_unknown_task_is_rejected() -> None:
    with pytest.raises(TrainingError, match=r"'task'.*regression"):
        TrainingOptions(target="y", name="test", task="clustering")  # type: ignore[arg-type]
