"""Outputs of imported graphs are converted to probabilities, values or class indices."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.schema.outputs import output_reader
from rowcast.schema.prediction import Decision, Label

REGRESSION = Decision(task="regression")


def classes(*labels: Label) -> Decision:
    return Decision(task="binary" if len(labels) == 2 else "multiclass", classes=labels)


def test_float32_probabilities_of_all_classes_are_returned_unchanged() -> None:
    output = np.array([[0.25, 0.75]], np.float32)

    assert output_reader("probabilities", "none", classes("a", "b"))(output) is output


@pytest.mark.parametrize("output", [np.array([0.75, 0.5]), np.array([[0.75], [0.5]], np.float32)])
def test_the_probability_of_the_first_class_is_derived_from_that_of_the_second_class(output: np.ndarray) -> None:
    probabilities = output_reader("probabilities", "none", classes("a", "b"))(output)

    assert probabilities.dtype == np.float32
    assert probabilities.tolist() == [[0.25, 0.75], [0.5, 0.5]]


def test_activations_convert_scores_to_probabilities() -> None:
    sigmoid = output_reader("scores", "sigmoid", classes("a", "b"))(np.array([0.0], np.float32))
    softmax = output_reader("scores", "softmax", classes("a", "b"))(np.log(np.array([[1.0, 3.0]])))

    assert sigmoid.tolist() == [[0.5, 0.5]]
    np.testing.assert_allclose(softmax, [[0.25, 0.75]])


def test_the_class_with_the_highest_raw_score_is_predicted_and_a_single_score_is_compared_with_zero() -> None:
    several = output_reader("scores", "none", classes("a", "b", "c"))(np.array([[1.0, 3.0, 2.0], [np.nan, 0, 0]]))
    single = output_reader("scores", "none", classes("a", "b"))(np.array([-0.5, 0.0, 0.5]))

    np.testing.assert_array_equal(several, [1, np.nan])
    assert single.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("decision", "labels", "indices"),
    [
        (classes("a", "b"), ["b", "a", "z"], [1, 0, np.nan]),
        (classes("a", "b"), [1, 0, 7], [1, 0, np.nan]),
        (classes(1, 2), [2, 1, 0], [1, 0, np.nan]),
        (classes(1, 2), ["2", "1", "0"], [1, 0, np.nan]),
    ],
)
def test_labels_are_converted_to_class_indices(decision: Decision, labels: list[Any], indices: list[float]) -> None:
    output = np.array(labels, object if isinstance(labels[0], str) else np.int64)

    np.testing.assert_array_equal(output_reader("labels", "none", decision)(output), indices)


def test_values_are_returned_as_a_one_dimensional_array() -> None:
    assert output_reader("values", "none", REGRESSION)(np.array([[1.5], [2.0]])).tolist() == [1.5, 2.0]
