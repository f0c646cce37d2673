"""What a graph gives, made into what a decision reads: probabilities [N, k], values [N] or places of classes [N].

Our own exports give it so already. Foreign graphs give labels, raw scores, one probability of two, or float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Decision

Kind = Literal["probabilities", "values", "scores", "labels"]
Activation = Literal["none", "sigmoid", "softmax"]

Reader = Callable[[NDArray[Any]], NDArray[Any]]


def has_probabilities(kind: Kind, activation: Activation) -> bool:
    """Whether such an output tells how sure the model is."""
    return kind == "probabilities" or (kind == "scores" and activation != "none")


def output_reader(kind: Kind, activation: Activation, decision: Decision) -> Reader:
    """Reads this output; specialised once."""
    if kind == "values":
        return lambda output: output.reshape(-1)
    if kind == "labels":
        return _labels(decision)
    if kind == "probabilities":
        return lambda output: output if output.dtype == np.float32 and output.shape[1:] != (1,) else _paired(output)
    if activation == "sigmoid":
        return lambda output: _paired(1.0 / (1.0 + np.exp(-output.astype(np.float64))))
    if activation == "softmax":
        return _softmax
    return _winners


def _paired(output: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities of all classes; of two classes a graph may give that of the second alone."""
    found = output.reshape(len(output), -1)
    if found.shape[1] == 1:
        found = np.concatenate([1.0 - found, found], axis=1)
    return found.astype(np.float32)


def _softmax(output: NDArray[Any]) -> NDArray[np.float32]:
    """In float64: a row must not differ in the last bit with the number of its companions."""
    scores = output.astype(np.float64)
    with np.errstate(invalid="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: NDArray[np.float32] = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    return shares


def _winners(output: NDArray[Any]) -> NDArray[np.float64]:
    """Raw scores decide and tell nothing else: above zero is the second of two classes, else the highest wins."""
    scores = output.reshape(len(output), -1)
    winners = scores[:, 0] > 0 if scores.shape[1] == 1 else scores.argmax(axis=1)
    return np.where(np.isfinite(scores).all(axis=1), winners, np.nan)


def _labels(decision: Decision) -> Reader:
    """Labels as text are names of classes; whole numbers are classes too, or places of classes that have names."""
    places: dict[Any, int] = {name: place for place, name in enumerate(decision.names())}
    if all(isinstance(label, str) for label in decision.classes):
        places |= {place: place for place in range(len(decision.classes))}
    else:
        places |= {label: place for place, label in enumerate(decision.classes)}

    def read(output: NDArray[Any]) -> NDArray[np.float64]:
        return np.array([places.get(label, np.nan) for label in output.reshape(-1).tolist()], np.float64)

    return read
