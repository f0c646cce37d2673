"""How labels determine the task, the classes and the positive class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.errors import TableError
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Override
from rowcast.training import labels
from rowcast.training.labels import LabelledTable
from rowcast.training.options import TrainingOptions


def read(values: list[Any], **options: Any) -> LabelledTable:
    table = table_from_memory({"x": [float(index % 17) for index in range(len(values))], "y": values})
    return labels.read(table, "y", TrainingOptions(target="y", name="test", **options))


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["yes", "no"] * 30, "binary", ("no", "yes")),
        ([" Approved", "Rejected "] * 30, "binary", ("Approved", "Rejected")),
        (["0", "1"] * 30, "binary", (0, 1)),
        (["0.0", "1.0"] * 30, "binary", (0, 1)),
        (["TRUE", "false"] * 30, "binary", (False, True)),
        ([True, False] * 30, "binary", (False, True)),
        (["01", "02"] * 30, "binary", ("01", "02")),
        (["+", "-"] * 30, "binary", ("+", "-")),
        (["10", "9", "2"] * 30, "multiclass", (2, 9, 10)),
        (["a", "b", "c"] * 30, "multiclass", ("a", "b", "c")),
        ([str(index % 40) for index in range(200)], "regression", ()),
        ([index / 7 for index in range(60)], "regression", ()),
    ],
)
def test_labels_determine_the_task_and_keep_their_data_type(values: list[Any], task: str, classes: Any) -> None:
    labelled = read(values)

    assert (labelled.task, labelled.classes) == (task, classes)
    assert [type(label) for label in labelled.classes] == [type(label) for label in classes]


@pytest.mark.parametrize(
    ("values", "options", "positive"),
    [
        (["Rejected", "Approved"] * 30, {}, "Approved"),
        (["no", "Yes"] * 30, {}, "Yes"),
        ([1, 0, 1] * 30, {}, 1),
        ([True, False] * 30, {}, True),
        (["good", "good", "bad"] * 30, {}, "bad"),
        (["good", "good", "bad"] * 30, {"positive": " good"}, "good"),
        (["Good", "bad", "bad"] * 30, {"positive": "gOOD"}, "Good"),
    ],
)
def test_the_positive_class_is_set_by_an_option_or_inferred_from_the_label_names_or_frequencies(
    values: list[Any], options: dict[str, Any], positive: Any
) -> None:
    labelled = read(values, **options)

    assert labelled.classes[labelled.positive] == positive
    assert [finding.code for finding in labelled.findings].count("positive-class") == 1
    expected = [str(value).strip().casefold() == str(positive).casefold() for value in values]
    assert labelled.target.tolist() == np.array(expected, int).tolist()


def test_rows_without_a_label_and_classes_with_one_row_are_dropped_and_reported() -> None:
    labelled = read(["a", "b", "?", None, " "] * 20 + ["once"])

    assert labelled.table.frame.height == len(labelled.target) == 40
    assert {"missing-target", "single-row-class"} <= {finding.code for finding in labelled.findings}


@pytest.mark.parametrize(
    ("values", "options", "slug"),
    [
        (["a"] * 50, {}, "constant-target"),
        ([None] * 50, {}, "empty-target"),
        ([f"t{index}" for index in range(50)], {}, "too-many-classes"),
        ([*map(str, range(200)), "n/k"], {"task": "multiclass"}, "target-kind"),
        (["a"] * 30 + ["b", "c"], {}, "single-row-classes"),
        (["a", "b"] * 30, {"positive": "c"}, "unknown-class"),
        (["a", "b"] * 30, {"task": "regression"}, "target-kind"),
        ([1.5] * 50, {}, "constant-target"),
        ([1e31, 2.5, 3.5], {}, "target-range"),
        (["a", "b", "c"] * 30, {"task": "binary"}, "class-count"),
    ],
)
def test_unsuitable_labels_are_rejected(values: list[Any], options: dict[str, Any], slug: str) -> None:
    with pytest.raises(TableError) as caught:
        read(values, **options)

    assert caught.value.slug == slug
    assert "'y'" in caught.value.message


def test_rules_replace_labels_with_other_labels() -> None:
    values = ["<=50K", ">50K", "<=50K.", ">50K."] * 15

    original = read(values)
    corrected = read(values, map=("<=50K.=<=50K", ">50K.=>50K"))

    assert len(original.classes) == 4
    overrides = [finding.override for finding in original.findings if finding.code == "similar-labels"]
    assert overrides == [Override("map", "<=50K.=<=50K"), Override("map", ">50K.=>50K")]
    assert corrected.classes == ("<=50K", ">50K")
    assert set(corrected.table.frame["y"].to_list()) == {"<=50K", ">50K"}


def test_labels_can_be_mapped_to_numbers_or_dropped() -> None:
    labelled = read(["1", "2", "x"] * 20, map=("x=",))

    assert labelled.classes == (1, 2)
    assert len(labelled.target) == 40


@pytest.mark.parametrize(
    ("rule", "slug", "hint"),
    [("good", "label-rule", "OLD=NEW"), ("goood=good", "unknown-label", "did you mean 'good'")],
)
def test_invalid_rules_are_rejected_with_a_hint(rule: str, slug: str, hint: str) -> None:
    with pytest.raises(TableError) as caught:
        read(["good", "bad"] * 30, map=(rule,))

    assert caught.value.slug == slug
    assert hint in caught.value.message


def test_plus_and_minus_are_not_reported_as_similar_labels() -> None:
    assert "similar-labels" not in {finding.code for finding in read(["+", "-"] * 30).findings}
