"""A prediction, and the rule that makes one from a graph's output: argmax or threshold, decided in float32."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import NoAnswer
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


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
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

    def winners(self, output: NDArray[np.float32]) -> NDArray[np.intp]:
        """The index of each row's class; the threshold is compared in float32 and belongs to the positive class."""
        if self.task == "binary":
            positive = output[:, self.positive] >= np.float32(self.threshold)
            return np.where(positive, self.positive, 1 - self.positive)
        winners: NDArray[np.intp] = output.argmax(axis=1)
        return winners

    def outcomes(self, output: NDArray[Any]) -> list[Outcome]:
        """One outcome a row, from probabilities [N, k], values [N] or places of classes [N]; NoAnswer where one is
        not finite."""
        rows: list[Any] = output.tolist()
        # NaN and infinity stay in a sum, and float32 values cannot overflow one of doubles. 0.1 µs a row.
        if not isfinite(sum(map(sum, rows)) if output.ndim > 1 else sum(rows)):
            bad = unanswered(output)
            if bad:
                raise NoAnswer(bad)
        if self.task == "regression":
            return [Outcome(float(value)) for value in output.reshape(-1).tolist()]
        names, classes = self.names(), self.classes
        if output.ndim == 1:
            return [Outcome(classes[int(place)]) for place in rows]
        if self.task == "multiclass":
            winners = output.argmax(axis=1).tolist()
            return [
                Outcome(classes[winner], row[winner], msgspec.UNSET, dict(zip(names, row, strict=True)))
                for row, winner in zip(rows, winners, strict=True)
            ]
        positive, threshold = self.positive, self.threshold
        first, second = names
        made = []
        for row in rows:  # HOT: float32 values compare alike as doubles, and without a call of numpy
            winner = positive if row[positive] >= threshold else 1 - positive
            made.append(Outcome(classes[winner], row[winner], row[positive], {first: row[0], second: row[1]}))
        return made


def unanswered(output: NDArray[Any]) -> list[int]:
    """The rows for which a graph gave something that is no finite number."""
    if not len(output):
        return []
    finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
    return [int(row) for row in np.flatnonzero(~finite)]


_encode_lines = msgspec.json.Encoder().encode_lines


def encode_replies(
    model: str,
    version: int,
    ids: Sequence[str],
    outcomes: Sequence[Outcome],
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


def same_outcome(left: Outcome, right: Outcome, tolerance: float, threshold: float) -> str:
    """`equal`, `borderline` (only the threshold's neighbourhood decides) or `different`."""
    apart = largest_gap(_numbers(left), _numbers(right)) > tolerance
    if apart or (left.prediction == right.prediction) or not isinstance(left.probabilities, dict):
        return "different" if apart else "equal"
    near = isinstance(left.score, float) and abs(left.score - threshold) <= tolerance
    return "borderline" if near else "different"


def _numbers(outcome: Outcome) -> list[float]:
    if isinstance(outcome.probabilities, dict):
        return [outcome.probabilities[name] for name in sorted(outcome.probabilities)]
    return [] if isinstance(outcome.prediction, str) else [float(outcome.prediction)]


def largest_gap(left: Sequence[float], right: Sequence[float]) -> float:
    """The largest difference, of values above one as a share of them; infinite when the shapes differ."""
    if len(left) != len(right):
        return float("inf")
    return max((abs(a - b) / max(1.0, abs(a), abs(b)) for a, b in zip(left, right, strict=True)), default=0.0)
