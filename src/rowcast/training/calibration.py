"""Convert raw scores into calibrated probabilities, and choose the threshold. Both steps use out-of-fold scores."""

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
"""The smallest safe distance between the threshold and a score. The graph's rounding errors stay below 1e-6."""


@dataclass(frozen=True)
class Calibration:
    """Computes p = link(scale * raw + shift). A scale of 1 and a shift of 0 mean no calibration."""

    task: Task
    scale: float = 1.0
    shift: float = 0.0
    shifts: tuple[float, ...] = ()
    """One shift per class for a multi-class target with class weights; otherwise empty."""

    @property
    def method(self) -> str:
        """The calibration method that the bundle records: `none`, `sigmoid` or `temperature`."""
        if (self.scale, self.shift, self.shifts) == (1.0, 0.0, ()):
            return "none"
        return "sigmoid" if self.task == "binary" else "temperature"

    def positive(self, raw: Raw) -> Raw:
        """For a binary target, return the probabilities [N] of the positive class."""
        return sigmoid(self.scale * raw[:, 0] + self.shift)

    def classes(self, raw: Raw) -> Raw:
        """For a multi-class target, return the probabilities [N, k] of all classes."""
        scaled = self.scale * raw
        return softmax(scaled + np.array(self.shifts) if self.shifts else scaled)

    def predictions(self, raw: Raw) -> Raw:
        """Return the predictions in the form that `metrics.Metric` describes."""
        if self.task == "binary":
            return self.positive(raw)
        return self.classes(raw) if self.task == "multiclass" else raw[:, 0]

    def emit(self, graph: GraphBuilder, raw: str, positive: int) -> str:
        """Add the calibration to a graph and return the name of the calibrated raw scores [N, k].

        The link function is not included. With two classes, a row's two scores differ only in sign.
        """
        signs = np.ones((1, 1), np.float32)
        if self.task == "binary":
            signs = np.array([[1, -1]] if positive == 0 else [[-1, 1]], np.float32)
        elif self.method == "none":
            return raw
        scaled = graph.node("Mul", raw, graph.constant(signs * np.float32(self.scale)))
        shift = np.array([self.shifts], np.float32) if self.shifts else signs * np.float32(self.shift)
        return graph.node("Add", scaled, graph.constant(shift)) if shift.any() else scaled


def sigmoid(x: Raw) -> Raw:
    """Return 1 / (1 + exp(-x)) without overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, small) / (1.0 + small)


def softmax(x: Raw) -> Raw:
    """Return the softmax of each row."""
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def uncalibrated(task: Task, class_weights: Sequence[float] = ()) -> Calibration:
    """Return the default calibration, which only reverses the effect of class weights."""
    if not class_weights:
        return Calibration(task)
    shifts = (-np.log(class_weights)).astype(np.float32)
    if task == "binary":
        return Calibration(task, shift=float(shifts[1] - shifts[0]))
    return Calibration(task, shifts=tuple(shifts.tolist()))


def fit(
    raw: Raw, target: NDArray[Any], task: Task, *, weight: Weight | None = None, class_weights: Sequence[float] = ()
) -> Calibration:
    """Return a fitted calibration, or the default if fitting does not lower the cross-validated log loss."""
    base = uncalibrated(task, class_weights)
    if task == "regression" or len(np.unique(target)) < 2:
        return base
    weight = np.ones(len(target)) if weight is None else weight
    losses = np.zeros(2)
    part = np.arange(len(target)) % PARTS
    for index in range(PARTS):
        train, test = part != index, part == index
        fitted = _fit(raw[train], target[train], weight[train], base)
        losses += [_loss(each, raw[test], target[test], weight[test]) for each in (base, fitted)]
    return _fit(raw, target, weight, base) if losses[1] < losses[0] else base


def _fit(raw: Raw, target: NDArray[Any], weight: Weight, base: Calibration) -> Calibration:
    """For two classes, fit Platt scaling with Newton's method; for more classes, fit temperature scaling.

    The parameters are rounded to float32, because the graph stores them as float32.
    """
    task = base.task
    if task == "multiclass":
        return _with_temperature(base, float(np.float32(_fit_temperature(raw, target, weight, base))))
    positives = float(weight @ target)
    high, low = (positives + 1) / (positives + 2), 1 / (float(weight.sum()) - positives + 2)
    soft_target = np.where(target == 1, high, low)
    design = np.stack([raw[:, 0], np.ones(len(raw))], axis=1)
    weights = np.array([1.0, 0.0])
    for _ in range(50):
        p = sigmoid(design @ weights)
        gradient = design.T @ (weight * (p - soft_target))
        curvature = (design * (weight * p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        weights = weights - np.clip(step, -1.0, 1.0)
        if np.abs(step).max() < 1e-8:
            break
    if not np.isfinite(weights).all() or weights[0] <= 0.05:  # a scale this low would invert or flatten the scores
        return base
    return Calibration(task, float(np.float32(weights[0])), float(np.float32(weights[1])))


def _with_temperature(base: Calibration, scale: float) -> Calibration:
    return replace(base, scale=scale, shifts=tuple(float(np.float32(scale * shift)) for shift in base.shifts))


def _fit_temperature(raw: Raw, target: NDArray[Any], weight: Weight, base: Calibration) -> float:
    """Return the inverse temperature with the lowest log loss, found by golden-section search on a log scale."""
    low, high = np.log(0.1), np.log(10.0)
    ratio = (np.sqrt(5.0) - 1) / 2
    for _ in range(40):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        losses = [_loss(_with_temperature(base, float(np.exp(x))), raw, target, weight) for x in (left, right)]
        low, high = (low, right) if losses[0] < losses[1] else (left, high)
    return float(np.exp((low + high) / 2))


def _loss(calibration: Calibration, raw: Raw, target: NDArray[Any], weight: Weight) -> float:
    if calibration.task == "binary":
        p = calibration.positive(raw)
        likelihood = np.where(target == 1, p, 1 - p)
    else:
        likelihood = calibration.classes(raw)[np.arange(len(raw)), target]
    return float(-(weight @ np.log(np.maximum(likelihood, 1e-15))))


def choose_threshold(
    scores: NDArray[np.float32],
    target: NDArray[Any],
    *,
    metric: str,
    avoid: NDArray[np.float32],
    weight: Weight | None = None,
    cost: Cost | None = None,
) -> float:
    """Return the best threshold: a float32 midpoint between two adjacent out-of-fold scores.

    If costs are set, the best midpoint has the lowest cost. Otherwise, it has the highest F1 if the metric is F1, or
    the fewest errors for any other metric. Midpoints too close to an out-of-fold score or to a score in `avoid` are
    excluded, so that rounding cannot flip a label. If this excludes every midpoint, only the midpoints of the widest
    gaps are considered. Ties go to the midpoint of the widest gap, then to the midpoint nearest to 0.5.
    """
    order = np.argsort(scores, kind="stable")
    weights = np.ones(len(order)) if weight is None else weight[order]
    ranked, positives = scores[order].astype(np.float64), weights * (target[order] == 1)
    negatives = weights - positives
    edges = np.concatenate([[0.0], ranked, [1.0]])
    midpoints = ((edges[:-1] + edges[1:]) / 2).astype(np.float32)
    gaps = np.diff(edges)
    false_negatives = np.concatenate([[0], np.cumsum(positives)])
    false_positives = negatives.sum() - np.concatenate([[0], np.cumsum(negatives)])
    true_positives = positives.sum() - false_negatives
    if metric == "f1" and cost is None:
        denominator = 2 * true_positives + false_negatives + false_positives
        value = 2 * true_positives / np.where(denominator > 0, denominator, 1)
    else:
        value = -(cost or EVEN).total(false_positives, false_negatives)
    clear = (gaps > 2 * SAFE_GAP) & (_distance(midpoints, np.sort(avoid)) > SAFE_GAP)
    clear = clear if clear.any() else gaps == gaps.max()
    from_half = np.abs(midpoints.astype(np.float64) - 0.5)
    best = np.lexsort((from_half[clear], -gaps[clear], -np.asarray(value, np.float64)[clear]))[0]
    return float(midpoints[clear][best])


def _distance(midpoints: NDArray[np.float32], ranked: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the distance from each midpoint to the nearest score."""
    if not len(ranked):
        return np.full(len(midpoints), np.inf)
    scores, points = ranked.astype(np.float64), midpoints.astype(np.float64)
    index = np.searchsorted(scores, points)
    below, above = scores[np.maximum(index - 1, 0)], scores[np.minimum(index, len(scores) - 1)]
    return np.minimum(np.abs(points - below), np.abs(points - above))
