"""Convert the output of a graph into scores, one per row."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import NoAnswer
from rowcast.schema.prediction import Decision, Score


def winning_classes(decision: Decision, output: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return the index of each row's predicted class.

    Scores are compared with the threshold in float32; if a score equals the threshold, the positive class is predicted.
    """
    if decision.task == "binary":
        positive = output[:, decision.positive] >= np.float32(decision.threshold)
        return np.where(positive, decision.positive, 1 - decision.positive)
    winners: NDArray[np.intp] = output.argmax(axis=1)
    return winners


ReadScores = Callable[[NDArray[Any]], list[Score]]
"""Returns one score per row from probabilities [N, k], values [N] or class indices [N].

It raises NoAnswer if the output of any row is not finite.
"""


def score_rows(decision: Decision, output: NDArray[Any]) -> list[Score]:
    """Return one score per row; raise NoAnswer if the output of any row is not finite."""
    return score_reader(decision)(output)


def score_reader(decision: Decision) -> ReadScores:
    """Return a function that converts outputs to scores. The function is on the hot path."""
    names, classes = decision.names(), decision.classes
    positive, threshold = decision.positive, decision.threshold

    def read_values(output: NDArray[Any]) -> list[Score]:
        return [Score(float(value)) for value in _finite_rows(output.reshape(-1))]

    def read_classes(output: NDArray[Any]) -> list[Score]:
        rows = _finite_rows(output)
        if output.ndim == 1:
            return [Score(classes[int(index)]) for index in rows]
        winners = output.argmax(axis=1).tolist()
        return [
            Score(classes[winner], row[winner], msgspec.UNSET, dict(zip(names, row, strict=True)))
            for row, winner in zip(rows, winners, strict=True)
        ]

    def read_pairs(output: NDArray[Any]) -> list[Score]:
        if output.ndim == 1:
            return read_classes(output)
        first, second = names
        scores = []
        for row in _finite_rows(output):  # comparing float32 values as doubles gives the same result
            winner = positive if row[positive] >= threshold else 1 - positive
            scores.append(Score(classes[winner], row[winner], row[positive], {first: row[0], second: row[1]}))
        return scores

    return {"regression": read_values, "binary": read_pairs, "multiclass": read_classes}[decision.task]


def _finite_rows(output: NDArray[Any]) -> list[Any]:
    """Return the rows of an output as a list; raise NoAnswer if any row contains NaN or infinity."""
    rows: list[Any] = output.tolist()
    # NaN or infinity makes the sum non-finite; a sum of float32 values cannot overflow a double. The check takes 0.1 µs
    # per row.
    if not isfinite(sum(map(sum, rows)) if output.ndim > 1 else sum(rows)):
        invalid = non_finite_rows(output)
        if invalid:
            raise NoAnswer(invalid)
    return rows


def non_finite_rows(output: NDArray[Any]) -> list[int]:
    """Return the positions of the rows whose output contains NaN or infinity."""
    if not len(output):
        return []
    finite = np.isfinite(output.reshape(len(output), -1)).all(axis=1)
    return [int(row) for row in np.flatnonzero(~finite)]
