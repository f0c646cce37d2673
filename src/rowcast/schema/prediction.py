"""Scores, predictions and decisions as plain values.

This module does not import numpy, so that a gateway can run without numpy; `scores.py` computes scores from arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from rowcast.schema.encoding import RowWarning

Label = bool | int | float | str
Task = Literal["binary", "multiclass", "regression"]
OutputKind = Literal["probabilities", "values", "scores", "labels"]
"""The kind of output that a graph returns. Rowcast's own graphs return probabilities or values."""
Activation = Literal["none", "sigmoid", "softmax"]
"""The function that converts a graph's raw scores into probabilities."""


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """The reply for one row, as sent to the client and recorded in the history. Fields that do not apply are unset."""

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | msgspec.UnsetType = msgspec.UNSET
    """The probability of the predicted label."""
    score: float | msgspec.UnsetType = msgspec.UNSET
    """The probability of the positive class; binary models only."""
    probabilities: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    warnings: tuple[RowWarning, ...] = ()
    cached: bool = False


class Score(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The result of scoring one row: a prediction without its id, model and warnings."""

    prediction: Label
    probability: float | msgspec.UnsetType = msgspec.UNSET
    score: float | msgspec.UnsetType = msgspec.UNSET
    probabilities: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The rule that converts the output of a graph into a label."""

    task: Task
    classes: tuple[Label, ...] = ()
    positive: int = 1
    """The index of the positive class; binary models only."""
    threshold: float = 0.5
    """The lowest score for which the positive class is predicted. It is an exact float32 value."""

    def names(self) -> list[str]:
        """Return the classes as strings, as they appear in the keys of `probabilities`."""
        return [label_text(label) for label in self.classes]


_encode_lines = msgspec.json.Encoder().encode_lines


def encode_replies(
    model: str,
    version: int,
    *,
    ids: Sequence[str],
    scores: Sequence[Score],
    warnings: Iterable[tuple[RowWarning, ...]],
    cached: Iterable[bool],
) -> list[bytes]:
    """Encode the predictions as JSON, in the form in which they are sent and recorded. Hot path."""
    predictions = [
        Prediction(
            id_, model, version, score.prediction, score.probability, score.score, score.probabilities, warned, hit
        )
        for id_, score, warned, hit in zip(ids, scores, warnings, cached, strict=True)
    ]
    return _encode_lines(predictions).split(b"\n")[:-1]  # Encoded JSON contains no line breaks.


def has_probabilities(kind: OutputKind, activation: Activation) -> bool:
    """Return whether the output of a graph provides class probabilities."""
    return kind == "probabilities" or (kind == "scores" and activation != "none")


def label_text(label: Label) -> str:
    """Return a class label as a string, written as in JSON."""
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def searchable_label(label: Label, probability: float | msgspec.UnsetType) -> str:
    """Return the string used to search the history by label, or an empty string for a regression value."""
    is_value = isinstance(label, float) and probability is msgspec.UNSET
    return "" if is_value else label_text(label)


def compare_scores(left: Score, right: Score, *, tolerance: float, threshold: float) -> str:
    """Return `equal`, `different` or `borderline`.

    `borderline` means that the numbers agree, but the labels differ because the score is very close to the threshold.
    """
    apart = largest_gap(_numbers(left), _numbers(right)) > tolerance
    if apart or (left.prediction == right.prediction) or not isinstance(left.probabilities, dict):
        return "different" if apart else "equal"
    near = isinstance(left.score, float) and abs(left.score - threshold) <= tolerance
    return "borderline" if near else "different"


def _numbers(score: Score) -> list[float]:
    if isinstance(score.probabilities, dict):
        return [score.probabilities[name] for name in sorted(score.probabilities)]
    return [] if isinstance(score.prediction, str) else [float(score.prediction)]


def largest_gap(left: Sequence[float], right: Sequence[float]) -> float:
    """Return the largest difference between corresponding numbers, or infinity if the lengths differ.

    Differences are absolute for magnitudes up to one and relative for larger magnitudes.
    """
    if len(left) != len(right):
        return float("inf")
    return max((abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in zip(left, right, strict=True)), default=0.0)
