"""True labels and values are matched against the model's labels and values; the error for any other value lists its
rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.schema.prediction import Decision
from rowcast.training import true_values
from rowcast.training.true_values import RoleColumn

YES_NO = Decision(task="binary", classes=("no", "yes"), positive=1)
REGRESSION = Decision(task="regression")


def column(cells: list[Any], role: str = "target") -> RoleColumn:
    """Return a column whose rows are on lines 10, 11 and so on."""
    return true_values.role_column(role, pl.Series("y", cells), 10 + np.arange(len(cells)))


def error(read: Any, *arguments: Any) -> TableError:
    with pytest.raises(TableError) as caught:
        read(*arguments)
    return caught.value


@pytest.mark.parametrize(
    ("classes", "cells", "indices"),
    [
        (("no", "yes"), [" yes ", "no", "yes"], [1, 0, 1]),
        (("no", "yes"), ["Y", "N", "true"], [1, 0, 1]),
        ((0, 1), ["1", "0.0", "1.0"], [1, 0, 1]),
        ((0, 1), [1.0, 0.0], [1, 0]),
        ((False, True), ["TRUE", "false"], [1, 0]),
        ((False, True), [True, False], [1, 0]),
        (("01", "1"), ["01", "1"], [0, 1]),
        ((1.5, 2.5), ["2.5", "1.50"], [1, 0]),
    ],
)
def test_a_label_matches_the_class_with_the_same_name_value_or_meaning(
    classes: Any, cells: list[Any], indices: list[int]
) -> None:
    decision = Decision(task="binary", classes=classes, positive=1)

    assert true_values.read_target(column(cells), decision).tolist() == indices


def test_the_target_of_a_binary_model_is_1_for_the_positive_class() -> None:
    decision = Decision(task="binary", classes=("bad", "good"), positive=0)

    assert true_values.read_target(column(["bad", "good"]), decision).tolist() == [1, 0]


def test_the_target_of_a_multiclass_model_is_the_index_of_the_class() -> None:
    decision = Decision(task="multiclass", classes=("a", "b", "c"))

    assert true_values.read_target(column(["c", "a"]), decision).tolist() == [2, 0]


def test_the_error_for_unknown_labels_lists_their_rows_and_explains_how_to_rename_them() -> None:
    decision = Decision(task="multiclass", classes=("setosa", "virginica"))

    wrong = error(true_values.read_target, column(["setosa", "Setosa", "x", "x", "x", "x"]), decision)

    assert wrong.slug == "unknown-label"
    assert wrong.message == (
        "column 'y' contains unknown labels: 'Setosa' (row 11), 'x' (rows 12, 13, 14 and 1 more); "
        "the model's labels are setosa, virginica; use the option 'map' to rename a label ('Setosa=setosa') or to "
        "leave out its rows ('Setosa=')"
    )


def test_the_labels_of_a_sensitive_target_are_not_shown() -> None:
    with pytest.raises(TableError) as caught:
        true_values.read_target(column(["yes", "hush", "no", "hush"]), YES_NO, is_sensitive=True)

    assert (caught.value.slug, caught.value.message) == (
        "unknown-label",
        "column 'y' contains unknown labels in rows 11, 13; correct these cells",
    )


def test_an_error_lists_only_some_of_many_unknown_labels() -> None:
    wrong = error(true_values.read_target, column([f"label {number}" for number in range(300)]), YES_NO)

    assert "'label 4'" in wrong.message
    assert "'label 5'" not in wrong.message
    assert "295 other labels" in wrong.message


def test_the_map_option_renames_labels_or_removes_them() -> None:
    renamed = true_values.rename_labels(column(["ok", "no", "maybe", None]), ["ok=yes", "maybe="])

    assert renamed.cells.to_list() == ["yes", "no", None, None]
    assert renamed.present.tolist() == [True, True, False, False]


def test_the_rules_of_the_training_run_apply_first_and_only_if_their_label_occurs() -> None:
    renamed = true_values.rename_labels(column(["ok", "no"]), ["good=yes"], ["ok=good", "never=no"])

    assert renamed.cells.to_list() == ["yes", "no"]
    assert error(true_values.rename_labels, column(["ok"]), ["never=no"]).slug == "unknown-label"


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2.5", "-3e2"], [1.0, 2.5, -300.0]),
        (["$1,250.00", "$8"], [1250.0, 8.0]),
        (["1,5", "2,25"], [1.5, 2.25]),
        ([1, 2], [1.0, 2.0]),
        ([True, False], [1.0, 0.0]),
    ],
)
def test_the_values_of_a_regression_target_are_read_like_the_cells_of_columns(
    cells: list[Any], values: list[float]
) -> None:
    assert true_values.read_target(column(cells), REGRESSION).tolist() == values


@pytest.mark.parametrize("cell", ["many", "inf", "nan?"])
def test_the_error_for_a_value_that_is_not_a_number_names_its_row(cell: str) -> None:
    wrong = error(true_values.read_target, column(["1", "2", cell, "3"]), REGRESSION)

    assert (wrong.slug, wrong.message) == ("not-a-number", "row 12, target 'y': expected a number")


def test_infinite_values_are_not_numbers() -> None:
    assert error(true_values.read_target, column([1.0, float("inf")]), REGRESSION).message.startswith("row 11,")


def test_weights_are_scaled_to_a_mean_of_1() -> None:
    assert true_values.read_weights(column(["1", "3", "0", "4"], "weight")).tolist() == [0.5, 1.5, 0.0, 2.0]


@pytest.mark.parametrize(
    ("cells", "slug", "message"),
    [
        (["1", "-1"], "negative-weight", "row 11, weight 'y': weights must be 0 or more"),
        (["1", None], "missing-values", "row 11, weight 'y': the value is missing"),
        (["1", "NA"], "missing-values", "row 11, weight 'y': the value is missing"),
        (["0", "0"], "zero-weights", "column 'y' contains only zeros; at least one weight must be positive"),
    ],
)
def test_an_invalid_weight_is_an_error(cells: list[Any], slug: str, message: str) -> None:
    wrong = error(true_values.read_weights, column(cells, "weight"))

    assert (wrong.slug, wrong.message) == (slug, message)


def test_groups_are_numbered() -> None:
    assert len(set(true_values.read_groups(column(["b", " a", "b"], "group")).tolist())) == 2
    assert (
        error(true_values.read_groups, column(["b", "?"], "group")).message == "row 11, group 'y': the value is missing"
    )
