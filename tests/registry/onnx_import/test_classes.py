"""The classes of an imported classifier, in the order of its outputs."""

from __future__ import annotations

from typing import Any

import pytest

from rowcast.errors import DocumentError
from rowcast.registry.onnx_import.classes import build_decision, class_labels
from rowcast.registry.onnx_import.metadata import read_metadata
from rowcast.schema.prediction import Decision


@pytest.mark.parametrize(
    ("metadata", "keys", "labels", "width", "classes"),
    [
        ({}, None, None, 3, (0, 1, 2)),
        ({}, None, [0, 4], None, (0, 1, 2, 3, 4)),
        ({}, None, [], None, (0, 1)),
        ({}, None, None, 1, (0, 1)),
        ({}, None, [0, 1], 2, (0, 1)),
        ({}, None, [True, False], None, (0, 1)),
        ({"output_classes": 2}, None, [0], 5, (0, 1)),
        ({"class_names": ["x", "y"]}, None, [0, 1], 2, ("x", "y")),
        ({}, ["b", "a"], None, 2, ("b", "a")),
        ({"class_names": ["a", "b"]}, ["b", "a"], None, 2, ("b", "a")),
        ({"class_names": ["x", "y"]}, [1, 0], None, 2, ("y", "x")),
        ({}, [7, 3], None, 2, (7, 3)),
    ],
)
def test_map_keys_take_precedence_over_class_names_and_class_names_over_indices(
    metadata: dict[str, Any], keys: Any, labels: Any, width: int | None, classes: tuple[Any, ...]
) -> None:
    assert class_labels(read_metadata(metadata), keys=keys, labels=labels, width=width) == classes


@pytest.mark.parametrize(
    ("metadata", "keys", "labels"),
    [
        ({}, None, ["a", "b"]),
        ({}, None, [0, 2]),
        ({}, None, [-1, 0]),
        ({"class_names": ["a", "c"]}, ["a", "b"], None),
        ({"class_names": ["a", "c"]}, [0, 2], None),
        ({"class_names": ["a", "c"]}, [-1, 0], None),
    ],
)
def test_class_names_are_required_if_the_order_of_the_classes_is_unknown(
    metadata: dict[str, Any], keys: Any, labels: Any
) -> None:
    with pytest.raises(DocumentError) as caught:
        class_labels(read_metadata(metadata), keys=keys, labels=labels, width=2)

    assert caught.value.place == "class_names"


def test_the_positive_class_must_be_one_of_the_classes() -> None:
    assert build_decision(("a", "b"), read_metadata({"positive": "a"})) == Decision(
        task="binary", classes=("a", "b"), positive=0
    )
    assert build_decision(("a", "b"), read_metadata({})) == Decision(task="binary", classes=("a", "b"))
    assert build_decision(("a", "b", "c"), read_metadata({})) == Decision(task="multiclass", classes=("a", "b", "c"))
    with pytest.raises(DocumentError) as caught:
        build_decision(("a", "b"), read_metadata({"positive": "c"}))
    assert caught.value.place == "positive"


def test_a_classifier_must_have_at_least_two_classes() -> None:
    with pytest.raises(DocumentError) as caught:
        build_decision(("a",), read_metadata({}))

    assert caught.value.place == "class_names"


def test_an_error_lists_at_most_eight_labels() -> None:
    with pytest.raises(DocumentError) as caught:
        class_labels(read_metadata({}), labels=list("ihgfedcba"))

    assert "(a, b, c, d, e, f, g, h)" in caught.value.message
