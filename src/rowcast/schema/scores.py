"""From a graph's output to scores: argmax or threshold, decided in float32."""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import NoAnswer
from rowcast.schema.prediction import Decision, Score


def winning_classes(decision: Decision, output: NDArray[np.float32]) -> NDArray[np.intp]:
    """The index of each row's class; the threshold is compared in float32 and belongs to the positive class."""
    if decision.task == "binary":
        positive = output[:, decision.positive] >= np.float32(decision.threshold)
        return np.where(positive, decision.positive, 1 - decision.positive)
    winners: NDArray[np.intp] = output.argmax(axis=1)
    return winners


def score_rows(decision: Decision, output: NDArray[Any]) -> list[Score]:
    """One outcome a row, from probabilities [N, k], values [N] or places of classes [N]; NoAnswer where one is
    not finite."""
    rows: list[Any] = output.tolist()
    # NaN and infinity stay in a sum, and float32 values cannot overflow one of doubles. 0.1 µs a row.
    if not isfinite(sum(map(sum, rows)) if output.ndim > 1 else sum(rows)):
        bad = unanswered(output)
        if bad:
            raise NoAnswer(bad)
    if decision.task == "regression":
        return [Score(float(value)) for value in output.reshape(-1).tolist()]
    names, classes = decision.names(), decision.classes
    if output.ndim == 1:
        return [Score(classes[int(place)]) for place in rows]
    if decision.task == "multiclass":
        winners = output.argmax(axis=1).tolist()
        return [
            Score(classes[winner], row[winner], msgspec.UNSET, dict(zip(names, row, strict=True)))
            for row, winner in zip(rows, winners, strict=True)
        ]
    positive, threshold = decision.positive, decision.threshold
    first, second = names
    made = []
    for row in rows:  # HOT: float32 values compare alike as doubles, and without a call of numpy
        winner = positive if row[positive] >= threshold else 1 - positive
        made.append(Score(classes[winner], row[winner], row[positive], {first: row[0], second: row[1]}))
    return made


def unanswered(output: NDArray[Any]) -> list[int]:
    """The rows for which a graph gave something that is no finite number."""
    if not len(output):
        return []
    finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
    return [int(row) for row in np.flatnonzero(~finite)]
