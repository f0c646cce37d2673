"""The rule that makes a prediction of a graph's output."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec import UNSET

from rowcast.schema.prediction import Decision, Outcome, label_text, largest_gap, same_outcome

BINARY = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=float(np.float32(0.3)))
BELOW, ABOVE = np.nextafter(np.float32(0.3), np.float32(0)), np.nextafter(np.float32(0.3), np.float32(1))


def pair(score: np.float32) -> np.ndarray:
    return np.array([[1 - score, score]], np.float32)


@pytest.mark.parametrize(("score", "label"), [(BELOW, "no"), (np.float32(0.3), "yes"), (ABOVE, "yes")])
def test_the_threshold_belongs_to_the_positive_class_to_the_last_bit(score: np.float32, label: str) -> None:
    (outcome,) = BINARY.outcomes(pair(score))

    assert outcome.prediction == label
    assert BINARY.classes[BINARY.winners(pair(score))[0]] == label


def test_a_binary_outcome_has_the_labels_probability_and_the_positive_score() -> None:
    (outcome,) = BINARY.outcomes(np.array([[0.75, 0.25]], np.float32))

    assert outcome == Outcome("no", 0.75, 0.25, {"no": 0.75, "yes": 0.25})


def test_the_positive_class_may_be_the_first() -> None:
    decision = Decision(task="binary", classes=("yes", "no"), positive=0, threshold=0.5)

    (outcome,) = decision.outcomes(np.array([[0.75, 0.25]], np.float32))

    assert outcome == Outcome("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25})


def test_of_many_classes_the_likeliest_wins_and_the_first_of_equals() -> None:
    decision = Decision(task="multiclass", classes=(1, 2, 3))
    output = np.array([[0.25, 0.5, 0.25], [0.5, 0.5, 0.0]], np.float32)

    assert [outcome.prediction for outcome in decision.outcomes(output)] == [2, 1]
    assert decision.winners(output).tolist() == [1, 0]
    assert decision.outcomes(output)[0].probabilities == {"1": 0.25, "2": 0.5, "3": 0.25}
    assert decision.outcomes(output)[0].score is UNSET


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_regression_has_a_value_and_nothing_else(shape: tuple[int, ...]) -> None:
    output = np.array([1.5, -2, 0], np.float32).reshape(shape)

    assert Decision(task="regression").outcomes(output) == [Outcome(1.5), Outcome(-2.0), Outcome(0.0)]


@pytest.mark.parametrize(("label", "text"), [(True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ("a", "a")])
def test_labels_have_the_texts_of_json(label: bool | float | str, text: str) -> None:
    assert label_text(label) == text


def scored(score: float, label: str) -> Outcome:
    return Outcome(label, max(score, 1 - score), score, {"no": 1 - score, "yes": score})


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (scored(0.7, "yes"), scored(0.7, "yes"), "equal"),
        (scored(0.7, "yes"), scored(0.7 + 5e-7, "yes"), "equal"),
        (scored(0.7, "yes"), scored(0.7 + 5e-6, "yes"), "different"),
        (scored(0.5, "yes"), scored(0.5 - 1e-7, "no"), "borderline"),
        (scored(0.7, "yes"), scored(0.7, "no"), "different"),
        (scored(0.5, "yes"), scored(0.4, "no"), "different"),
        (Outcome(3.0), Outcome(3.0 + 1e-7), "equal"),
        (Outcome(3.0), Outcome(3.1), "different"),
        (Outcome("a", 0.5, UNSET, {"a": 0.5, "b": 0.5}), Outcome("a", 0.5, UNSET, {"a": 0.5}), "different"),
    ],
)
def test_two_outcomes_are_equal_borderline_or_different(then: Outcome, now: Outcome, verdict: str) -> None:
    assert same_outcome(then, now, 1e-6, 0.5) == verdict


def test_large_values_are_compared_by_their_size() -> None:
    """float32 holds seven digits: a house of 500,000 that comes out 0.03 apart is the same house."""
    assert same_outcome(Outcome(500_000.0), Outcome(500_000.03), 1e-6, 0.5) == "equal"
    assert same_outcome(Outcome(500_000.0), Outcome(500_010.0), 1e-6, 0.5) == "different"


def test_the_largest_gap_of_different_shapes_is_infinite() -> None:
    assert largest_gap([0.1, 0.2], [0.3, 0.25]) == pytest.approx(0.2)
    assert largest_gap([1000.0], [1001.0]) == pytest.approx(1 / 1001)
    assert largest_gap([1], [1, 2]) == float("inf")
    assert largest_gap([], []) == 0
