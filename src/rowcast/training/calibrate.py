"""Raw scores to probabilities, and probabilities to labels; both learnt from out-of-fold scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.domain.prediction import Task
from rowcast.training.cost import EVEN, Cost
from rowcast.training.graphs import GraphBuilder

Raw = NDArray[np.float64]
PARTS: Final = 5
SAFE_GAP: Final = 4e-6
"""Scores this far apart stay apart in float32 arithmetic: the graph was never more than 1e-6 off."""


@dataclass(frozen=True)
class Calibration:
    """p = link(scale * raw + shift); 1 and 0 leave the model's own probabilities."""

    task: Task
    scale: float = 1.0
    shift: float = 0.0

    @property
    def method(self) -> str:
        if (self.scale, self.shift) == (1.0, 0.0):
            return "none"
        return "sigmoid" if self.task == "binary" else "temperature"

    def positive(self, raw: Raw) -> Raw:
        """Probability of the positive class [N], binary."""
        return sigmoid(self.scale * raw[:, 0] + self.shift)

    def classes(self, raw: Raw) -> Raw:
        """Probabilities [N, k], multi-class."""
        return softmax(self.scale * raw)

    def answers(self, raw: Raw) -> Raw:
        """What metrics read: probabilities of the positive class or of every class, or values."""
        if self.task == "binary":
            return self.positive(raw)
        return self.classes(raw) if self.task == "multiclass" else raw[:, 0]

    def emit(self, graph: GraphBuilder, raw: str, positive: int) -> str:
        """The calibrated raw scores [N, k], before the link function; of two classes, one is the other's negative."""
        signs = np.ones((1, 1), np.float32)
        if self.task == "binary":
            signs = np.array([[1, -1]] if positive == 0 else [[-1, 1]], np.float32)
        elif self.method == "none":
            return raw
        scaled = graph.node("Mul", raw, graph.constant(signs * np.float32(self.scale)))
        if self.shift == 0.0:
            return scaled
        return graph.node("Add", scaled, graph.constant(signs * np.float32(self.shift)))


def sigmoid(x: Raw) -> Raw:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: Raw) -> Raw:
    """Rows that sum to one."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit(raw: Raw, target: NDArray[Any], task: Task) -> Calibration:
    """The calibration that lowers the log loss on rows it was not fitted on; none when it does not."""
    none = Calibration(task)
    if task == "regression" or len(np.unique(target)) < 2:
        return none
    losses = np.zeros(2)
    part = np.arange(len(target)) % PARTS
    for held in range(PARTS):
        fitted = _fitted(raw[part != held], target[part != held], task)
        losses += [_loss(each, raw[part == held], target[part == held]) for each in (none, fitted)]
    return _fitted(raw, target, task) if losses[1] < losses[0] else none


def _fitted(raw: Raw, target: NDArray[Any], task: Task) -> Calibration:
    """Newton's method on the log loss, with Platt's softened targets; float32 values, as the graph holds them."""
    if task == "multiclass":
        return Calibration(task, _temperature(raw, target))
    positives = max(int(target.sum()), 0)
    high, low = (positives + 1) / (positives + 2), 1 / (len(target) - positives + 2)
    wanted = np.where(target == 1, high, low)
    design = np.stack([raw[:, 0], np.ones(len(raw))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        p = sigmoid(design @ weights)
        gradient = design.T @ (p - wanted)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-8:
            break
    if not np.isfinite(weights).all() or weights[0] <= 0.05:  # turned round or flattened: not a calibration
        return Calibration(task)
    return Calibration(task, float(np.float32(weights[0])), float(np.float32(weights[1])))


def _temperature(raw: Raw, target: NDArray[Any]) -> float:
    """The inverse temperature with the least log loss, by golden section on its logarithm."""
    low, high = np.log(0.1), np.log(10.0)
    ratio = (np.sqrt(5.0) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        losses = [_loss(Calibration("multiclass", float(np.exp(x))), raw, target) for x in (left, right)]
        low, high = (low, right) if losses[0] < losses[1] else (left, high)
    return float(np.float32(np.exp((low + high) / 2)))


def _loss(calibration: Calibration, raw: Raw, target: NDArray[Any]) -> float:
    if calibration.task == "binary":
        p = calibration.positive(raw)
        likely = np.where(target == 1, p, 1 - p)
    else:
        likely = calibration.classes(raw)[np.arange(len(raw)), target]
    return float(-np.log(np.maximum(likely, 1e-15)).sum())


def threshold(
    scores: NDArray[np.float32],
    target: NDArray[Any],
    metric: str,
    avoid: NDArray[np.float32],
    cost: Cost | None = None,
) -> float:
    """The best float32 midpoint between neighbouring out-of-fold scores: by cost, else F1 if that is the metric.

    Without either each kind of mistake counts the same. A midpoint keeps clear of every out-of-fold score and of those
    in `avoid`, so that no rounding turns a label; of equally good ones the widest gap wins, then the nearest to a half.
    """
    order = np.argsort(scores, kind="stable")
    ranked, hits = scores[order].astype(np.float64), target[order] == 1
    edges = np.concatenate([[0.0], ranked, [1.0]])
    cuts = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    gaps = np.diff(edges)
    missed = np.concatenate([[0], np.cumsum(hits)])  # positives below cut i
    alarms = (~hits).sum() - np.concatenate([[0], np.cumsum(~hits)])  # negatives above cut i
    caught = hits.sum() - missed
    if metric == "f1" and cost is None:
        value = 2 * caught / np.maximum(2 * caught + missed + alarms, 1)
    else:
        value = -(cost or EVEN).of(alarms, missed)
    clear = (gaps > 2 * SAFE_GAP) & (_distance(cuts, np.sort(avoid)) > SAFE_GAP)
    clear = clear if clear.any() else gaps == gaps.max()
    near_half = np.abs(cuts.astype(np.float64) - 0.5)
    best = np.lexsort((near_half[clear], -gaps[clear], -np.asarray(value, np.float64)[clear]))[0]
    return float(cuts[clear][best])


def _distance(cuts: NDArray[np.float32], ranked: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far each cut is from the nearest of the ranked scores."""
    if not len(ranked):
        return np.full(len(cuts), np.inf)
    wide, at = ranked.astype(np.float64), cuts.astype(np.float64)
    place = np.searchsorted(wide, at)
    below, above = wide[np.maximum(place - 1, 0)], wide[np.minimum(place, len(wide) - 1)]
    return np.minimum(np.abs(at - below), np.abs(at - above))
