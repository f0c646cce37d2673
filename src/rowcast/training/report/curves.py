"""Curves, calibration bins and the quality of each class, computed from scores and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

CURVE_POINTS: Final = 150
CALIBRATION_BINS: Final = 10
Z: Final = 1.96


@dataclass(frozen=True)
class CalibrationBin:
    """The rows with scores in [low, high), and the share of positive rows among them."""

    low: float
    high: float
    count: int
    score: float
    """The mean score."""
    share: float
    share_low: float
    share_high: float


@dataclass(frozen=True)
class ClassQuality:
    """How well the model recognizes one class. A value is NaN if its denominator is 0."""

    rows: int
    precision: float
    recall: float
    f1: float


def roc(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, Values]:
    """Return the false positive rate and the true positive rate at every threshold, highest threshold first."""
    true_positives, false_positives = _cumulative_counts(score, positive)
    return thin(_rate(np.append(0, false_positives)), _rate(np.append(0, true_positives)))


def precision_recall(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, Values]:
    """Return the recall and the precision at every threshold, starting with the highest threshold."""
    true_positives, false_positives = _cumulative_counts(score, positive)
    return thin(_rate(true_positives), true_positives / (true_positives + false_positives))


def _cumulative_counts(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, Values]:
    """Count the positive and negative rows at or above each distinct score, starting with the highest score."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(order) - 1)
    hits = positive[order]
    return np.cumsum(hits)[last].astype(np.float64), np.cumsum(~hits)[last].astype(np.float64)


def _rate(counts: Values) -> Values:
    return counts / counts[-1] if counts[-1] else np.full(len(counts), np.nan)


def thin(x: Values, y: Values) -> tuple[Values, Values]:
    """Reduce a curve to at most `CURVE_POINTS` points, including both endpoints."""
    if len(x) <= CURVE_POINTS:
        return x, y
    picks = np.unique(np.linspace(0, len(x) - 1, CURVE_POINTS).round().astype(np.intp))
    return x[picks], y[picks]


def wilson_interval(hits: float, count: int) -> tuple[float, float]:
    """Return the 95% Wilson score interval for a proportion."""
    share, correction = hits / count, Z * Z / count
    middle, half = share + correction / 2, Z * np.sqrt(share * (1 - share) / count + correction / (4 * count))
    low, high = (middle - half) / (1 + correction), (middle + half) / (1 + correction)
    return max(0.0, float(low)), min(1.0, float(high))


def calibration_bins(score: Values, positive: NDArray[np.bool_]) -> tuple[CalibrationBin, ...]:
    """Compare predicted probabilities with observed shares in bins of equal width; omit empty bins."""
    bin_of_row = np.minimum((score * CALIBRATION_BINS).astype(np.intp), CALIBRATION_BINS - 1)
    filled = []
    for index in np.unique(bin_of_row).tolist():
        inside = bin_of_row == index
        count, hits = int(inside.sum()), int(positive[inside].sum())
        low, high = wilson_interval(hits, count)
        mean = float(score[inside].mean())
        edges = index / CALIBRATION_BINS, (index + 1) / CALIBRATION_BINS
        filled.append(CalibrationBin(*edges, count, mean, hits / count, low, high))
    return tuple(filled)


def threshold_curves(score: Values, positive: NDArray[np.bool_]) -> tuple[Values, dict[str, Values]]:
    """Return 101 thresholds, with the accuracy, precision, recall and F1 at each. Undefined precision is NaN."""
    grid = np.linspace(0.0, 1.0, 101)
    predicted = score[None, :] >= grid[:, None]
    true_positives, predicted_positives = (predicted & positive).sum(axis=1), predicted.sum(axis=1)
    accuracy = (predicted == positive).mean(axis=1)
    total = max(int(positive.sum()), 1)
    with np.errstate(invalid="ignore"):
        precision = true_positives / np.where(predicted_positives, predicted_positives, np.nan)
    f1 = 2 * true_positives / np.maximum(predicted_positives + total, 1)
    return grid, {"accuracy": accuracy, "precision": precision, "recall": true_positives / total, "F1": f1}


def confusion_matrix(true: NDArray[np.intp], predicted: NDArray[np.intp], classes: int) -> NDArray[np.int64]:
    """Return a matrix of row counts with true classes as rows and predicted classes as columns."""
    return np.bincount(true * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def class_quality(matrix: NDArray[np.int64]) -> tuple[ClassQuality, ...]:
    """Compute the precision, recall and F1 of each class from a confusion matrix."""
    qualities = []
    for index in range(len(matrix)):
        hits, true, predicted = int(matrix[index, index]), int(matrix[index].sum()), int(matrix[:, index].sum())
        qualities.append(
            ClassQuality(
                rows=true,
                precision=hits / predicted if predicted else np.nan,
                recall=hits / true if true else np.nan,
                f1=2 * hits / (true + predicted) if true + predicted else np.nan,
            )
        )
    return tuple(qualities)
