"""Predictions and scores as values. Free of numpy, so that a gateway can load it; `scores.py` works on arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from rowcast.schema.encoding import RowWarning

Label = bool | int | float | str
Task = Literal["binary", "multiclass", "regression"]


class Prediction(msgspec.Struct, frozen=True, gc=False):
    """One answer to one row, as it is sent and as it is kept. Absent fields do not apply to the task."""

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | msgspec.UnsetType = msgspec.UNSET
    """Of the predicted label."""
    score: float | msgspec.UnsetType = msgspec.UNSET
    """Probability of the positive class; binary models only."""
    probabilities: dict[str, float] | msgspec.UnsetType = msgspec.UNSET
    warnings: tuple[RowWarning, ...] = ()
    cached: bool = False


class Score(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What the model alone says of a row; identity and circumstances are added by whoever asked."""

    prediction: Label
    probability: float | msgspec.UnsetType = msgspec.UNSET
    score: float | msgspec.UnsetType = msgspec.UNSET
    probabilities: dict[str, float] | msgspec.UnsetType = msgspec.UNSET


class Decision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How scores become labels. `threshold` is a float32 value, exact in JSON's double."""

    task: Task
    classes: tuple[Label, ...] = ()
    positive: int = 1
    """Index of the positive class; binary only."""
    threshold: float = 0.5

    def names(self) -> list[str]:
        """The classes as text, the keys of `probabilities`."""
        return [label_text(label) for label in self.classes]


_encode_lines = msgspec.json.Encoder().encode_lines


def encode_replies(
    model: str,
    version: int,
    ids: Sequence[str],
    outcomes: Sequence[Score],
    warnings: Iterable[tuple[RowWarning, ...]],
    cached: Iterable[bool],
) -> list[bytes]:
    """The predictions as they are sent and kept, all encoded in one call."""
    predictions = [
        Prediction(id_, model, version, made.prediction, made.probability, made.score, made.probabilities, warned, hit)
        for id_, made, warned, hit in zip(ids, outcomes, warnings, cached, strict=True)
    ]
    return _encode_lines(predictions).split(b"\n")[:-1]  # JSON holds no line break of its own


def label_text(label: Label) -> str:
    """A class label as text, the way JSON would show it."""
    if isinstance(label, bool):
        return "true" if label else "false"
    return str(label)


def searched_label(label: Label, probability: float | msgspec.UnsetType) -> str:
    """The text by which history finds a label; the value of a regression is none."""
    is_value = isinstance(label, float) and probability is msgspec.UNSET
    return "" if is_value else label_text(label)


def compare_scores(left: Score, right: Score, tolerance: float, threshold: float) -> str:
    """`equal`, `borderline` (only the threshold's neighbourhood decides) or `different`."""
    apart = largest_gap(_numbers(left), _numbers(right)) > tolerance
    if apart or (left.prediction == right.prediction) or not isinstance(left.probabilities, dict):
        return "different" if apart else "equal"
    near = isinstance(left.score, float) and abs(left.score - threshold) <= tolerance
    return "borderline" if near else "different"


def _numbers(outcome: Score) -> list[float]:
    if isinstance(outcome.probabilities, dict):
        return [outcome.probabilities[name] for name in sorted(outcome.probabilities)]
    return [] if isinstance(outcome.prediction, str) else [float(outcome.prediction)]


def largest_gap(left: Sequence[float], right: Sequence[float]) -> float:
    """The largest difference, of values above one as a share of them; infinite when the shapes differ."""
    if len(left) != len(right):
        return float("inf")
    return max((abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in zip(left, right, strict=True)), default=0.0)
