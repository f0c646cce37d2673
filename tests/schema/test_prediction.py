"""Predictions and scores: encoding, labels and comparisons."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import UNSET

from rowcast.schema.encoding import NO_WARNINGS, RowWarning
from rowcast.schema.prediction import (
    Prediction,
    Score,
    compare_scores,
    encode_replies,
    label_text,
    largest_gap,
    searchable_label,
)


def test_unset_fields_are_omitted_from_encoded_replies() -> None:
    warning = RowWarning("city", "unseen-category", "line\nbreak")

    first, second = encode_replies(
        "m",
        3,
        ids=["id1", "id2"],
        scores=[Score("yes", 0.75), Score(1.5)],
        warnings=[(warning,), NO_WARNINGS],
        cached=[True, False],
    )

    assert msgspec.json.decode(first, type=Prediction) == Prediction(
        "id1", "m", 3, "yes", 0.75, warnings=(warning,), cached=True
    )
    assert msgspec.json.decode(second) == {
        "id": "id2",
        "model": "m",
        "version": 3,
        "prediction": 1.5,
        "warnings": [],
        "cached": False,
    }


@pytest.mark.parametrize(
    ("label", "probability", "text"), [("a", 0.5, "a"), (1.5, 0.5, "1.5"), (1.5, UNSET, ""), (True, UNSET, "true")]
)
def test_labels_are_searchable_but_the_predicted_values_of_regression_models_are_not(
    label: bool | float | str, probability: float, text: str
) -> None:
    assert searchable_label(label, probability) == text


@pytest.mark.parametrize(("label", "text"), [(True, "true"), (False, "false"), (1, "1"), (1.5, "1.5"), ("a", "a")])
def test_labels_are_formatted_as_in_json(label: bool | float | str, text: str) -> None:
    assert label_text(label) == text


def binary(score: float, label: str) -> Score:
    return Score(label, max(score, 1 - score), score, {"no": 1 - score, "yes": score})


@pytest.mark.parametrize(
    ("then", "now", "verdict"),
    [
        (binary(0.7, "yes"), binary(0.7, "yes"), "equal"),
        (binary(0.7, "yes"), binary(0.7 + 5e-7, "yes"), "equal"),
        (binary(0.7, "yes"), binary(0.7 + 5e-6, "yes"), "different"),
        (binary(0.5, "yes"), binary(0.5 - 1e-7, "no"), "borderline"),
        (binary(0.7, "yes"), binary(0.7, "no"), "different"),
        (binary(0.5, "yes"), binary(0.4, "no"), "different"),
        (Score(3.0), Score(3.0 + 1e-7), "equal"),
        (Score(3.0), Score(3.1), "different"),
        (Score("a", 0.5, UNSET, {"a": 0.5, "b": 0.5}), Score("a", 0.5, UNSET, {"a": 0.5}), "different"),
    ],
)
def test_comparing_two_scores_returns_equal_borderline_or_different(then: Score, now: Score, verdict: str) -> None:
    assert compare_scores(then, now, tolerance=1e-6, threshold=0.5) == verdict


def test_large_values_are_compared_relative_to_their_size() -> None:
    # float32 has about seven significant digits, so the gap between 500,000 and 500,000.03 can be a rounding error.
    assert compare_scores(Score(500_000.0), Score(500_000.03), tolerance=1e-6, threshold=0.5) == "equal"
    assert compare_scores(Score(500_000.0), Score(500_010.0), tolerance=1e-6, threshold=0.5) == "different"


def test_the_largest_gap_between_sequences_of_different_lengths_is_infinite() -> None:
    assert largest_gap([0.1, 0.2], [0.3, 0.25]) == pytest.approx(0.2)
    assert largest_gap([1000.0], [1001.0]) == pytest.approx(1 / 1001)
    assert largest_gap([1], [1, 2]) == float("inf")
    assert largest_gap([], []) == 0
