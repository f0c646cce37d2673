"""Metrics with 95% bootstrap intervals.

A resample is a vector of row weights, so the rows are sorted only once for all resamples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowcast.errors import TrainingError
from rowcast.registry.bundle import Measure
from rowcast.schema.prediction import Decision, Task
from rowcast.schema.scores import winning_classes

RESAMPLES: Final = 200
MOST_ROWS: Final = 5000
"""The maximum number of rows to resample.

If the holdout is larger, a random sample of this size is resampled, and the confidence interval is narrowed to match
the full holdout.
"""
FEW_GROUPS: Final = 5
"""The minimum number of groups for resampling whole groups. With fewer groups, individual rows are resampled."""
BINS: Final = 10
SMALLEST: Final = float(np.finfo(np.float64).eps)
"""The smallest probability in the log loss, as in scikit-learn. The log of 0 would make the metric infinite."""

Weights = NDArray[np.float64]
Values = NDArray[np.float64]
Scores = NDArray[np.float64]
Metric = Callable[[Scores, NDArray[Any], Weights], Values]
"""Maps scores, target and weights [B, N] to metric values [B].

The scores are the positive-class probabilities (binary), all class probabilities (multi-class) or the predicted values
(regression).
"""

GREATER: Final = frozenset({"accuracy", "balanced_accuracy", "f1", "roc_auc", "pr_auc", "r2"})
"""Metrics for which higher is better. For all other metrics, lower is better."""
DEFAULT: Final[Mapping[Task, str]] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}
CHOICES: Final[Mapping[Task, tuple[str, ...]]] = {
    "binary": ("roc_auc", "pr_auc", "log_loss", "brier", "accuracy", "f1"),
    "multiclass": ("log_loss", "accuracy", "balanced_accuracy", "f1", "roc_auc", "brier"),
    "regression": ("rmse", "mae", "r2"),
}


def sign(metric: str) -> float:
    """Return 1 if higher values of the metric are better; otherwise, return -1."""
    return 1.0 if metric in GREATER else -1.0


def resolve(metric: str | None, task: Task) -> str:
    """Return the metric used to rank models; raise TrainingError if it does not apply to the task."""
    if metric is None:
        return DEFAULT[task]
    if metric not in CHOICES[task]:
        raise TrainingError(
            f"option 'metric': {metric!r} cannot rank {task} models; available metrics: {', '.join(CHOICES[task])}"
        )
    return metric


def score(
    metric: str, output: NDArray[Any], target: NDArray[Any], task: Task, weight: NDArray[np.float64] | None = None
) -> float:
    """Return the value of one metric over all rows.

    `output` has the same form as the scores of a `Metric`. For two classes, F1 is computed at the threshold with the
    highest F1, because the threshold is later chosen to maximize F1.
    """
    weights = np.ones((1, len(target))) if weight is None else weight[None, :]
    if task == "binary" and metric == "f1":
        return float(_best_f1(output, target == 1, weights)[0])
    labels = _halves(output) if task == "binary" else output.argmax(axis=1) if task == "multiclass" else None
    return float(_METRICS[task](labels)[metric](np.asarray(output, np.float64), target, weights)[0])


def measure_holdout(
    decision: Decision,
    output: NDArray[Any],
    target: NDArray[Any],
    *,
    seed: int,
    weight: NDArray[np.float64] | None = None,
    group: NDArray[Any] | None = None,
) -> dict[str, Measure]:
    """Return every metric for the task, measured on the holdout.

    `target` is 1 for the positive class and 0 for the other class (binary), a class index (multi-class) or a value
    (regression). The bootstrap draws whole groups. Rows in a group resemble each other, so drawing individual rows
    would make the intervals too narrow.
    """
    weight = np.ones(len(target)) if weight is None else weight
    task = decision.task
    scores = np.asarray(output, np.float64)
    labels: NDArray[Any] | None = None
    if task != "regression":
        labels = winning_classes(decision, output.astype(np.float32))
        if task == "binary":
            labels = (labels == decision.positive).astype(np.int64)
            scores = scores[:, decision.positive]
    rows, weights, shrink = _resample(len(target), seed, group)
    weights *= weight[rows]
    whole, part = _METRICS[task](labels), _METRICS[task](None if labels is None else labels[rows])
    measures = {}
    for name, metric in whole.items():
        value = float(metric(scores, target, weight[None, :])[0])
        if np.isfinite(value):
            samples = part[name](scores[rows], target[rows], weights)
            measures[name] = _measure(value, samples, shrink)
    return measures


def _resample(count: int, seed: int, group: NDArray[Any] | None) -> tuple[NDArray[np.intp], Weights, float]:
    """Return the rows to resample, the weights [B, N] of the resamples, and the factor that narrows the interval."""
    rng = np.random.default_rng([seed, 2])
    rows = np.arange(count) if count <= MOST_ROWS else np.sort(rng.choice(count, MOST_ROWS, False))
    units, unit = (rows, rows) if group is None else np.unique(group[rows], return_inverse=True)
    if group is None or len(units) < FEW_GROUPS:
        weights = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), size=RESAMPLES)
        return rows, weights.astype(np.float64), float(np.sqrt(len(rows) / count))
    weights = rng.multinomial(len(units), np.full(len(units), 1 / len(units)), size=RESAMPLES)
    return rows, weights[:, unit].astype(np.float64), float(np.sqrt(len(units) / len(np.unique(group))))


def _measure(value: float, samples: Values, shrink: float) -> Measure:
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return Measure(value, value, value)
    low, middle, high = np.quantile(finite, [0.025, 0.5, 0.975]).tolist()
    return Measure(value, min(value, value + (low - middle) * shrink), max(value, value + (high - middle) * shrink))


def _halves(p: Scores) -> NDArray[np.int64]:
    return np.asarray(p >= 0.5).astype(np.int64)


def _binary(labels: NDArray[Any]) -> dict[str, Metric]:
    return {
        "accuracy": lambda _p, y, w: _mean(labels == y, w),
        "f1": lambda _p, y, w: _f1(labels == 1, y == 1, w),
        "roc_auc": lambda p, y, w: _roc_auc(p, y == 1, w),
        "pr_auc": lambda p, y, w: _pr_auc(p, y == 1, w),
        "log_loss": lambda p, y, w: _mean(-np.log(np.clip(np.where(y == 1, p, 1 - p), SMALLEST, 1)), w),
        "brier": lambda p, y, w: _mean((p - y) ** 2, w),
        "calibration_error": lambda p, y, w: _calibration_error(p, y == 1, w),
    }


def _multiclass(labels: NDArray[Any]) -> dict[str, Metric]:
    def mean_auc(p: Scores, y: NDArray[Any], w: Weights) -> Values:
        return np.asarray(np.mean([_roc_auc(p[:, k], y == k, w) for k in np.unique(y)], axis=0))

    def mean_f1(_p: Scores, y: NDArray[Any], w: Weights) -> Values:
        """Return the mean F1 of the classes that occur or are predicted."""
        return np.asarray(np.mean([_f1(labels == k, y == k, w) for k in np.union1d(y, labels)], axis=0))

    def balanced(_p: Scores, y: NDArray[Any], w: Weights) -> Values:
        """Return the mean recall of the classes that occur in the resample."""
        recalls = [_share(w @ ((labels == k) & (y == k)), w @ (y == k), np.nan) for k in np.unique(y)]
        return np.asarray(np.nanmean(recalls, axis=0))

    return {
        "accuracy": lambda _p, y, w: _mean(labels == y, w),
        "balanced_accuracy": balanced,
        "f1": mean_f1,
        "roc_auc": mean_auc,
        "log_loss": lambda p, y, w: _mean(-np.log(np.clip(p[np.arange(len(y)), y], SMALLEST, 1)), w),
        "brier": lambda p, y, w: _mean(((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1), w),
        "calibration_error": lambda p, y, w: _calibration_error(p.max(axis=1), p.argmax(axis=1) == y, w),
    }


def _regression(labels: None) -> dict[str, Metric]:
    def r2(p: Scores, y: NDArray[Any], w: Weights) -> Values:
        centre = (w @ y / w.sum(axis=1))[:, None]
        spread = (w * (y[None, :] - centre) ** 2).sum(axis=1)
        return 1 - _share(w @ (p - y) ** 2, spread, np.nan)

    return {
        "rmse": lambda p, y, w: np.sqrt(_mean((p - y) ** 2, w)),
        "mae": lambda p, y, w: _mean(np.abs(p - y), w),
        "r2": r2,
    }


_METRICS: Final[Mapping[Task, Callable[[Any], dict[str, Metric]]]] = {
    "binary": _binary,
    "multiclass": _multiclass,
    "regression": _regression,
}


def _mean(values: NDArray[Any], w: Weights) -> Values:
    # Sum the numerator and the denominator in the same way, so that the mean of ones is exactly 1.
    return np.asarray(w @ values.astype(np.float64) / (w @ np.ones(len(values))))


def _f1(predicted: NDArray[np.bool_], actual: NDArray[np.bool_], w: Weights) -> Values:
    true_positives = w @ (predicted & actual)
    counts = w @ predicted.astype(np.float64) + w @ actual.astype(np.float64)
    return _share(2 * true_positives, counts, 0.0)


def _best_f1(p: Scores, actual: NDArray[np.bool_], w: Weights) -> Values:
    positives, negatives = _rank(p, actual, w)
    true_positives, predicted = np.cumsum(positives, axis=1), np.cumsum(positives + negatives, axis=1)
    return np.asarray((2 * true_positives / (predicted + positives.sum(axis=1, keepdims=True))).max(axis=1))


def _share(part: Values, whole: Values, empty: float) -> Values:
    """Return part / whole, or `empty` where the whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(part.shape, empty), where=whole > 0))


def _rank(p: Scores, actual: NDArray[np.bool_], w: Weights) -> tuple[Weights, Weights]:
    """Return the total weight of positive rows and of negative rows at each distinct score, highest score first."""
    order = np.argsort(-p, kind="stable")
    starts = np.flatnonzero(np.concatenate([[True], np.diff(p[order]) != 0]))
    hits = actual[order]
    return np.add.reduceat(w[:, order] * hits, starts, axis=1), np.add.reduceat(w[:, order] * ~hits, starts, axis=1)


def _roc_auc(p: Scores, actual: NDArray[np.bool_], w: Weights) -> Values:
    positives, negatives = _rank(p, actual, w)
    above = np.cumsum(positives, axis=1) - positives / 2
    pairs = positives.sum(axis=1) * negatives.sum(axis=1)
    # Rounding can push the value slightly above 1.
    return np.minimum(_share((above * negatives).sum(axis=1), pairs, np.nan), 1.0)


def _pr_auc(p: Scores, actual: NDArray[np.bool_], w: Weights) -> Values:
    """Return the average precision."""
    positives, negatives = _rank(p, actual, w)
    true_positives = np.cumsum(positives, axis=1)
    predicted = true_positives + np.cumsum(negatives, axis=1)
    precision = _share(true_positives, predicted, 0.0)
    total = positives.sum(axis=1)
    return np.minimum(_share((precision * positives).sum(axis=1), total, np.nan), 1.0)


def _calibration_error(p: Scores, actual: NDArray[np.bool_], w: Weights) -> Values:
    """Return the expected calibration error over bins of equal width."""
    index = np.minimum((p * BINS).astype(np.int64), BINS - 1)
    one_hot = np.eye(BINS)[index]
    return np.asarray(np.abs(w @ (one_hot * (p - actual)[:, None])).sum(axis=1) / w.sum(axis=1))


def score_resamples(
    metric: str, decision: Decision, output: NDArray[np.float32], target: NDArray[Any], weights: Weights
) -> Values:
    """Return the value of one metric for each vector of weights, with labels assigned as they are on the server.

    `target` has the same form as in `measure_holdout`.
    """
    scores = np.asarray(output, np.float64)
    if decision.task == "regression":
        return _METRICS[decision.task](None)[metric](scores, target, weights)
    labels = winning_classes(decision, output)
    if decision.task == "binary":
        labels = np.equal(labels, decision.positive).astype(np.intp)
        scores = scores[:, decision.positive]
    return _METRICS[decision.task](labels)[metric](scores, target, weights)


class DecidedOutput(NamedTuple):
    """The output of a graph, and the decision that assigns labels."""

    decision: Decision
    output: NDArray[np.float32]


def compare(
    metric: str,
    new: DecidedOutput,
    old: DecidedOutput,
    target: NDArray[Any],
    *,
    seed: int,
    weight: NDArray[np.float64] | None = None,
    group: NDArray[Any] | None = None,
) -> Measure | None:
    """Return how much better `new` is than `old` on the same rows, or None if the metric has no value on these rows.

    The bootstrap is paired: both models are measured on the same resamples. `target` and the resamples have the same
    form as in `measure_holdout`.
    """
    weight = np.ones(len(target)) if weight is None else weight
    rows, weights, shrink = _resample(len(target), seed, group)
    weights *= weight[rows]

    def difference(chosen: NDArray[np.intp] | slice, w: Weights) -> Values:
        values = (score_resamples(metric, each.decision, each.output[chosen], target[chosen], w) for each in (new, old))
        return np.asarray(sign(metric) * np.subtract(*values))

    value = float(difference(slice(None), weight[None, :])[0])
    return _measure(value, difference(rows, weights), shrink) if np.isfinite(value) else None
