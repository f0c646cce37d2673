"""The rule that makes a prediction of a graph's output."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import UNSET

from rowcast.schema.prediction import Decision, Score, compare_scores, label_text, largest_gap
from rowcast.schema.scores import score_rows, winning_classes

BINARY = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=float(np.float32(0.3)))
BELOW, ABOVE = np.nextafter(np.float32(0.3), np.float32(0)), np.nextafter(np.float32(0.3), np.float32(1))


def pair(score: np.float32) -> np.ndarray:
    return np.array([[1 - score, score]], np.float32)


@pytest.mark.parametrize(("score", "label"), [(BELOW, "no"), (np.float32(0.3), "yes"), (ABOVE, "yes")])
def test_the_threshold_belongs_to_the_positive_class_to_the_last_bit(score: np.float32, label: str) -> None:
    (outcome,) = score_rows(BINARY, pair(score))

    assert outcome.prediction == label
    assert BINARY.classes[winning_classes(BINARY, pair(score))[0]] == label


def test_a_binary_outcome_has_the_labels_probability_and_the_positive_score() -> None:
    (outcome,) = score_rows(BINARY, np.array([[0.75, 0.25]], np.float32))

    assert outcome == Score("no", 0.75, 0.25, {"no": 0.75, "yes": 0.25})


def test_the_positive_class_may_be_the_first() -> None:
    decision = Decision(task="binary", classes=("yes", "no"), positive=0, threshold=0.5)

    (outcome,) = score_rows(decision, np.array([[0.75, 0.25]], np.float32))

    assert outcome == Score("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25})


def test_of_many_classes_the_likeliest_wins_and_the_first_of_equals() -> None:
    decision = Decision(task="multiclass", classes=(1, 2, 3))
    output = np.array([[0.25, 0.5, 0.25], [0.5, 0.5, 0.0]], np.float32)

    assert [outcome.prediction for outcome in score_rows(decision, output)] == [2, 1]
    assert winning_classes(decision, output).tolist() == [1, 0]
    assert score_rows(decision, output)[0].probabilities == {"1": 0.25, "2": 0.5, "3": 0.25}
    assert score_rows(decision, output)[0].score is UNSET


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_regression_has_a_value_and_nothing_else(shape: tuple[int, ...]) -> None:
    output = np.array([1.5, -2, 0], np.float32).reshape(shape)

    assert score_rows(Decision(task="regression"), output) == [Score(1.5), Score(-2.0), Score(0.0)]


@pytest.mark.parametrize(("label", "text"), [(True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ("a", "a")])
def test_labels_have_the_texts_of_json(label: bool | float | str, text: str) -> None:
    assert label_text(label) == text


def scored(score: float, label: str) -> Score:
    return Score(label, max(score, 1 - score), score, {"no": 1 - score, "yes": score})


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (scored(0.7, "yes"), scored(0.7, "yes"), "equal"),
        (scored(0.7, "yes"), scored(0.7 + 5e-7, "yes"), "equal"),
        (scored(0.7, "yes"), scored(0.7 + 5e-6, "yes"), "different"),
        (scored(0.5, "yes"), scored(0.5 - 1e-7, "no"), "borderline"),
        (scored(0.7, "yes"), scored(0.7, "no"), "different"),
        (scored(0.5, "yes"), scored(0.4, "no"), "different"),
        (Score(3.0), Score(3.0 + 1e-7), "equal"),
        (Score(3.0), Score(3.1), "different"),
        (Score("a", 0.5, UNSET, {"a": 0.5, "b": 0.5}), Score("a", 0.5, UNSET, {"a": 0.5}), "different"),
    ],
)
def test_two_outcomes_are_equal_borderline_or_different(then: Score, now: Score, verdict: str) -> None:
    assert compare_scores(then, now, 1e-6, 0.5) == verdict


def test_large_values_are_compared_by_their_size() -> None:
    """float32 holds seven digits: a house of 500,000 that comes out 0.03 apart is the same house."""
    assert compare_scores(Score(500_000.0), Score(500_000.03), 1e-6, 0.5) == "equal"
    assert compare_scores(Score(500_000.0), Score(500_010.0), 1e-6, 0.5) == "different"


def test_the_largest_gap_of_different_shapes_is_infinite() -> None:
    assert largest_gap([0.1, 0.2], [0.3, 0.25]) == pytest.approx(0.2)
    assert largest_gap([1000.0], [1001.0]) == pytest.approx(1 / 1001)
    assert largest_gap([1], [1, 2]) == float("inf")
    assert largest_gap([], []) == 0
