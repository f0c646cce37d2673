"""Curves, calibration bins and per-class quality."""

from __future__ import annotations

import numpy as np
import pytest

from rowcast.training.report import curves

SCORE = np.array([0.9, 0.8, 0.8, 0.3, 0.1])
POSITIVE = np.array([True, True, False, True, False])


def test_roc_and_precision_recall_curves_treat_equal_scores_as_one_threshold() -> None:
    false_positive_rate, true_positive_rate = curves.roc(SCORE, POSITIVE)
    recall, precision = curves.precision_recall(SCORE, POSITIVE)

    assert false_positive_rate.tolist() == [0, 0, 0.5, 0.5, 1]
    assert true_positive_rate.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])
    assert recall.tolist() == pytest.approx([1 / 3, 2 / 3, 1, 1])
    assert precision.tolist() == pytest.approx([1, 2 / 3, 3 / 4, 3 / 5])


def test_threshold_curves_contain_the_metrics_at_each_threshold() -> None:
    grid, lines = curves.threshold_curves(SCORE, POSITIVE)
    at_one_half = {name: values[50] for name, values in lines.items()}

    assert grid[50] == 0.5
    assert at_one_half == pytest.approx({"accuracy": 3 / 5, "precision": 2 / 3, "recall": 2 / 3, "F1": 2 / 3})
    assert np.isnan(lines["precision"][100])


def test_every_row_is_in_exactly_one_calibration_bin() -> None:
    bins = curves.calibration_bins(np.array([0.0, 0.05, 0.95, 1.0]), np.array([False, True, True, True]))

    assert [(each.low, each.count, each.share) for each in bins] == [(0.0, 2, 0.5), (0.9, 2, 1.0)]
    assert all(each.share_low <= each.share <= each.share_high for each in bins)


def test_the_rows_of_a_confusion_matrix_are_the_true_classes() -> None:
    matrix = curves.confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)

    qualities = curves.class_quality(matrix)

    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert [quality.recall for quality in qualities] == [0.5, 1.0, 0.0]
    assert np.isnan(qualities[2].precision)


def test_a_thinned_curve_keeps_its_first_and_last_points() -> None:
    x, y = curves.thin(np.arange(1000.0), np.arange(1000.0) * 2)

    assert len(x) == curves.CURVE_POINTS
    assert (x[0], x[-1], y[-1]) == (0, 999, 1998)
