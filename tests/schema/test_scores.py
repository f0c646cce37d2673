"""Scores: labels and probabilities from a graph's output."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import UNSET

from rowcast.errors import NoAnswer
from rowcast.schema.prediction import Decision, Score
from rowcast.schema.scores import non_finite_rows, score_rows, winning_classes

BINARY = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=float(np.float32(0.3)))
BELOW, ABOVE = np.nextafter(np.float32(0.3), np.float32(0)), np.nextafter(np.float32(0.3), np.float32(1))


def pair(score: np.float32) -> np.ndarray:
    return np.array([[1 - score, score]], np.float32)


@pytest.mark.parametrize(("score", "label"), [(BELOW, "no"), (np.float32(0.3), "yes"), (ABOVE, "yes")])
def test_a_probability_equal_to_the_threshold_predicts_the_positive_class(score: np.float32, label: str) -> None:
    (scored,) = score_rows(BINARY, pair(score))

    assert scored.prediction == label
    assert BINARY.classes[winning_classes(BINARY, pair(score))[0]] == label


def test_a_binary_score_contains_the_probabilities_of_its_label_and_of_the_positive_class() -> None:
    (scored,) = score_rows(BINARY, np.array([[0.75, 0.25]], np.float32))

    assert scored == Score("no", 0.75, 0.25, {"no": 0.75, "yes": 0.25})


def test_the_positive_class_can_be_the_first_class() -> None:
    decision = Decision(task="binary", classes=("yes", "no"), positive=0, threshold=0.5)

    (scored,) = score_rows(decision, np.array([[0.75, 0.25]], np.float32))

    assert scored == Score("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25})


def test_the_most_likely_class_is_predicted_and_a_tie_goes_to_the_first_class() -> None:
    decision = Decision(task="multiclass", classes=(1, 2, 3))
    output = np.array([[0.25, 0.5, 0.25], [0.5, 0.5, 0.0]], np.float32)

    first, second = score_rows(decision, output)

    assert (first.prediction, second.prediction) == (2, 1)
    assert winning_classes(decision, output).tolist() == [1, 0]
    assert first.probabilities == {"1": 0.25, "2": 0.5, "3": 0.25}
    assert first.score is UNSET


def test_class_indices_are_converted_to_labels_without_probabilities() -> None:
    decision = Decision(task="multiclass", classes=("a", "b", "c"))

    assert score_rows(decision, np.array([2.0, 0.0])) == [Score("c"), Score("a")]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_regression_score_has_only_a_value(shape: tuple[int, ...]) -> None:
    output = np.array([1.5, -2, 0], np.float32).reshape(shape)

    assert score_rows(Decision(task="regression"), output) == [Score(1.5), Score(-2.0), Score(0.0)]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_without_a_finite_output_have_no_score(value: float) -> None:
    output = np.array([[0.75, 0.25], [value, 0.5], [0.5, 0.5]], np.float32)

    with pytest.raises(NoAnswer) as caught:
        score_rows(BINARY, output)

    assert caught.value.rows == [1]
    assert non_finite_rows(output) == [1]
    assert non_finite_rows(output[:0]) == []
