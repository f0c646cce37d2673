"""Raw scores to probabilities, and probabilities to labels; both learnt from out-of-fold scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training.cost import EVEN, Cost
from rowcast.training.onnx_graph import GraphBuilder

Raw = NDArray[np.float64]
Weight = NDArray[np.float64]
PARTS: Final = 5
SAFE_GAP: Final = 4e-6
"""Scores this far apart stay apart in float32 arithmetic: the graph was never more than 1e-6 off."""


@dataclass(frozen=True)
class Calibration:
    """p = link(scale * raw + shift); 1 and 0 leave the model's own probabilities."""

    task: Task
    scale: float = 1.0
    shift: float = 0.0
    shifts: tuple[float, ...] = ()
    """One a class, when there are more than two and their shares in the fit were not the real ones."""

    @property
    def method(self) -> str:
        if (self.scale, self.shift, self.shifts) == (1.0, 0.0, ()):
            return "none"
        return "sigmoid" if self.task == "binary" else "temperature"

    def positive(self, raw: Raw) -> Raw:
        """Probability of the positive class [N], binary."""
        return sigmoid(self.scale * raw[:, 0] + self.shift)

    def classes(self, raw: Raw) -> Raw:
        """Probabilities [N, k], multi-class."""
        scaled = self.scale * raw
        return softmax(scaled + np.array(self.shifts) if self.shifts else scaled)

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
        shift = np.array([self.shifts], np.float32) if self.shifts else signs * np.float32(self.shift)
        return graph.node("Add", scaled, graph.constant(shift)) if shift.any() else scaled


def sigmoid(x: Raw) -> Raw:
    """1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: Raw) -> Raw:
    """Rows that sum to one."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def uncalibrated(task: Task, class_weights: Sequence[float] = ()) -> Calibration:
    """The model's own probabilities; where classes were weighted in the fit, with their real shares given back."""
    if not class_weights:
        return Calibration(task)
    back = (-np.log(class_weights)).astype(np.float32)
    if task == "binary":
        return Calibration(task, shift=float(back[1] - back[0]))
    return Calibration(task, shifts=tuple(back.tolist()))


def fit(
    raw: Raw, target: NDArray[Any], task: Task, weight: Weight | None = None, class_weights: Sequence[float] = ()
) -> Calibration:
    """The calibration that lowers the log loss on rows it was not fitted on; the plain one when it does not."""
    none = uncalibrated(task, class_weights)
    if task == "regression" or len(np.unique(target)) < 2:
        return none
    weight = np.ones(len(target)) if weight is None else weight
    losses = np.zeros(2)
    part = np.arange(len(target)) % PARTS
    for held in range(PARTS):
        rest, own = part != held, part == held
        fitted = _fitted(raw[rest], target[rest], weight[rest], none)
        losses += [_loss(each, raw[own], target[own], weight[own]) for each in (none, fitted)]
    return _fitted(raw, target, weight, none) if losses[1] < losses[0] else none


def _fitted(raw: Raw, target: NDArray[Any], weight: Weight, none: Calibration) -> Calibration:
    """Newton's method on the log loss, with Platt's softened targets; float32 values, as the graph holds them."""
    task = none.task
    if task == "multiclass":
        return _heated(none, float(np.float32(_temperature(raw, target, weight, none))))
    positives = float(weight @ target)
    high, low = (positives + 1) / (positives + 2), 1 / (float(weight.sum()) - positives + 2)
    wanted = np.where(target == 1, high, low)
    design = np.stack([raw[:, 0], np.ones(len(raw))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        p = sigmoid(design @ weights)
        gradient = design.T @ (weight * (p - wanted))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-8:
            break
    if not np.isfinite(weights).all() or weights[0] <= 0.05:  # turned round or flattened: not a calibration
        return none
    return Calibration(task, float(np.float32(weights[0])), float(np.float32(weights[1])))


def _heated(none: Calibration, scale: float) -> Calibration:
    """The plain calibration at another temperature."""
    return replace(none, scale=scale, shifts=tuple(float(np.float32(scale * shift)) for shift in none.shifts))


def _temperature(raw: Raw, target: NDArray[Any], weight: Weight, none: Calibration) -> float:
    """The inverse temperature with the least log loss, by golden section on its logarithm."""
    low, high = np.log(0.1), np.log(10.0)
    ratio = (np.sqrt(5.0) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        losses = [_loss(_heated(none, float(np.exp(x))), raw, target, weight) for x in (left, right)]
        low, high = (low, right) if losses[0] < losses[1] else (left, high)
    return float(np.exp((low + high) / 2))


def _loss(calibration: Calibration, raw: Raw, target: NDArray[Any], weight: Weight) -> float:
    if calibration.task == "binary":
        p = calibration.positive(raw)
        likely = np.where(target == 1, p, 1 - p)
    else:
        likely = calibration.classes(raw)[np.arange(len(raw)), target]
    return float(-(weight @ np.log(np.maximum(likely, 1e-15))))


def choose_threshold(
    scores: NDArray[np.float32],
    target: NDArray[Any],
    metric: str,
    avoid: NDArray[np.float32],
    weight: Weight | None = None,
    cost: Cost | None = None,
) -> float:
    """The best float32 midpoint between neighbouring out-of-fold scores: by cost, else F1 if that is the metric.

    Without either each kind of mistake counts the same. A midpoint keeps clear of every out-of-fold score and of those
    in `avoid`, so that no rounding turns a label; of equally good ones the widest gap wins, then the nearest to a half.
    """
    order = np.argsort(scores, kind="stable")
    counted = np.ones(len(order)) if weight is None else weight[order]
    ranked, hits = scores[order].astype(np.float64), counted * (target[order] == 1)
    others = counted - hits
    edges = np.concatenate([[0.0], ranked, [1.0]])
    cuts = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    gaps = np.diff(edges)
    missed = np.concatenate([[0], np.cumsum(hits)])  # positives below cut i
    alarms = others.sum() - np.concatenate([[0], np.cumsum(others)])  # negatives above cut i
    caught = hits.sum() - missed
    if metric == "f1" and cost is None:
        either = 2 * caught + missed + alarms
        value = 2 * caught / np.where(either > 0, either, 1)
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
