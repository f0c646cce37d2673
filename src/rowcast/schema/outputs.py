"""Convert the output of a graph into probabilities [N, k], values [N] or class indices [N].

Rowcast's own graphs already return probabilities or values. Imported graphs may return labels, raw scores, the
probability of only one of two classes, or float64 values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Activation, Decision, OutputKind

OutputReader = Callable[[NDArray[Any]], NDArray[Any]]


def output_reader(kind: OutputKind, activation: Activation, decision: Decision) -> OutputReader:
    """Return a function that converts outputs of this kind."""
    if kind == "values":
        return lambda output: output.reshape(-1)
    if kind == "labels":
        return _label_reader(decision)
    if kind == "probabilities":
        return lambda output: output if output.dtype == np.float32 and output.shape[1:] != (1,) else _paired(output)
    if activation == "sigmoid":
        return lambda output: _paired(1.0 / (1.0 + np.exp(-output.astype(np.float64))))
    if activation == "softmax":
        return _softmax
    return _winners


def _paired(output: NDArray[Any]) -> NDArray[np.float32]:
    """Return the probabilities of all classes. A single output column contains the probability of the second of two
    classes."""
    probabilities = output.reshape(len(output), -1)
    if probabilities.shape[1] == 1:
        probabilities = np.concatenate([1.0 - probabilities, probabilities], axis=1)
    return probabilities.astype(np.float32)


def _softmax(output: NDArray[Any]) -> NDArray[np.float32]:
    """Return probabilities, computed in float64 so that the batch size does not change the last bit of a result."""
    scores = output.astype(np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        probabilities: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return probabilities


def _winners(output: NDArray[Any]) -> NDArray[np.float64]:
    """Return the index of the class with the highest score; a single score above zero selects the second class."""
    scores = output.reshape(len(output), -1)
    winners = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return np.where(np.isfinite(scores).all(axis=1), winners, np.nan)


def _label_reader(decision: Decision) -> OutputReader:
    """Return a function that converts labels into class indices.

    A string is the name of a class. A whole number is a class label, or a class index if all class labels are strings.
    """
    indices: dict[Any, int] = {name: index for index, name in enumerate(decision.names())}
    if all(isinstance(label, str) for label in decision.classes):
        indices |= {index: index for index in range(len(decision.classes))}
    else:
        indices |= {label: index for index, label in enumerate(decision.classes)}

    def read(output: NDArray[Any]) -> NDArray[np.float64]:
        return np.array([indices.get(label, np.nan) for label in output.reshape(-1).tolist()], np.float64)

    return read
