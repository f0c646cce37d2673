"""Calibration and threshold selection."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.training import calibration
from rowcast.training.cost import Cost
from rowcast.training.models.candidate import LabelledMatrix
from rowcast.training.models.candidates import CANDIDATES
from support.training import fit_setting

RNG = np.random.default_rng(7)
Rng = np.random.Generator
NONE = np.empty(0, np.float32)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_calibration_corrects_overconfident_scores_and_leaves_calibrated_scores_unchanged() -> None:
    truth = RNG.normal(size=4000) * 2
    target = (RNG.random(4000) < calibration.sigmoid(truth)).astype(np.int64)

    overconfident = calibration.fit((truth * 3 + 1)[:, None], target, "binary")
    honest = calibration.fit(truth[:, None], target, "binary")

    assert overconfident.method == "sigmoid"
    assert (overconfident.scale, overconfident.shift) == pytest.approx((1 / 3, -1 / 3), abs=0.05)
    assert honest.method == "none" or abs(honest.scale - 1) < 0.1


def test_temperature_scaling_corrects_overconfident_class_probabilities() -> None:
    raw = RNG.normal(size=(3000, 4)) * 2
    target = np.array([RNG.choice(4, p=row) for row in calibration.softmax(raw)])

    fitted = calibration.fit(raw * 4, target, "multiclass")

    assert fitted.method == "temperature"
    assert fitted.scale == pytest.approx(0.25, rel=0.1)


def test_inverted_scores_are_not_calibrated() -> None:
    raw = RNG.normal(size=(500, 1))
    target = (raw[:, 0] < 0).astype(np.int64)

    assert calibration.fit(raw, target, "binary").method == "none"


def test_calibration_uses_the_row_weights(rng: Rng) -> None:
    raw = rng.normal(size=(2000, 1)) * 2
    target = (rng.random(2000) < calibration.sigmoid(raw[:, 0])).astype(np.int64)
    weight = np.where(target == 1, 3.0, 1.0)  # the weights triple the odds

    fitted = calibration.fit(raw, target, "binary", weight=weight)

    assert (fitted.scale, fitted.shift) == pytest.approx((1, np.log(3)), abs=0.25)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_calibration_restores_the_true_class_frequencies_after_balancing(rng: Rng, task: Any) -> None:
    matrix = rng.normal(size=(6000, 2)).astype(np.float32)
    score = matrix[:, 0] + rng.logistic(size=6000) * 0.7
    target = np.digitize(score, [1.5] if task == "binary" else [-2, 1.5])
    shares = np.bincount(target) / 6000
    weights = tuple((1 / (len(shares) * shares)).tolist())
    unweighted_rows, rows = LabelledMatrix(matrix, target), LabelledMatrix(matrix, target, np.array(weights)[target])

    unweighted, balanced = (
        CANDIDATES["logistic"].fit(each, {"strength": 1.0}, fit_setting(task, 6000)).raw(matrix)
        for each in (unweighted_rows, rows)
    )

    expected = calibration.uncalibrated(task).predictions(unweighted)
    restored = calibration.uncalibrated(task, weights).predictions(balanced)
    assert np.abs(restored - expected).mean() < 0.02
    assert np.abs(calibration.uncalibrated(task).predictions(balanced) - expected).mean() > 0.1


def test_the_threshold_is_a_float32_midpoint_with_the_fewest_errors() -> None:
    scores = np.array([0.1, 0.2, 0.2, 0.4, 0.7, 0.9], np.float32)
    target = np.array([0, 0, 1, 1, 1, 1])

    threshold = calibration.choose_threshold(scores, target, metric="roc_auc", avoid=NONE)

    assert threshold == float(np.float32(threshold))
    assert threshold in (pytest.approx(0.3, abs=1e-6), pytest.approx(0.15, abs=1e-6))
    assert np.sum((scores >= np.float32(threshold)) != (target == 1)) == 1


def test_the_threshold_keeps_a_minimum_distance_from_all_scores() -> None:
    scores = np.sort(RNG.random(5000)).astype(np.float32)
    target = (RNG.random(5000) < scores).astype(np.int64)
    avoid = RNG.random(20_000).astype(np.float32)

    threshold = calibration.choose_threshold(scores, target, metric="roc_auc", avoid=avoid)

    assert np.abs(np.concatenate([scores, avoid]).astype(float) - threshold).min() > calibration.SAFE_GAP
    assert abs(threshold - 0.5) < 0.15


def test_the_threshold_keeps_clear_of_a_score_that_equals_the_best_midpoint() -> None:
    scores, target = np.array([0.1, 0.4, 0.6, 0.8], np.float32), np.array([0, 0, 1, 1])
    best = calibration.choose_threshold(scores, target, metric="roc_auc", avoid=NONE)
    below, above = (np.float32(best + side * calibration.SAFE_GAP) for side in (-0.9, 0.9))

    for score in (np.float32(best), below, above):
        threshold = calibration.choose_threshold(scores, target, metric="roc_auc", avoid=np.array([score, 0.01]))
        assert abs(threshold - float(score)) > calibration.SAFE_GAP

    assert best == pytest.approx(0.5)


def test_the_threshold_is_at_least_four_millionths_away_from_every_score() -> None:
    scores, target = [0.1, 0.4, 0.6, 0.8], np.array([0, 0, 1, 1])

    def choose(scores: list[float], *avoid: float) -> float:
        ranked, others = np.array(scores, np.float32), np.array(avoid, np.float32)
        return calibration.choose_threshold(ranked, target, metric="roc_auc", avoid=others)

    best = choose(scores)
    for side in (-1, 1):
        assert choose(scores, best + side * 4.4e-6) == best
        assert choose(scores, best + side * 3.6e-6) != best
    assert choose([0.1, 0.5, 0.5 + 8.6e-6, 0.9]) == pytest.approx(0.5 + 4.3e-6, abs=1e-7)
    assert choose([0.1, 0.5, 0.5 + 7.4e-6, 0.9]) != pytest.approx(0.5 + 3.7e-6, abs=1e-6)


def test_the_f1_metric_lowers_the_threshold_if_positive_rows_are_rare() -> None:
    scores = RNG.beta(1, 8, 4000).astype(np.float32)
    target = (RNG.random(4000) < scores).astype(np.int64)

    f1, accuracy = (
        calibration.choose_threshold(scores, target, metric=metric, avoid=NONE) for metric in ("f1", "accuracy")
    )

    assert f1 < accuracy


def test_equal_scores_yield_a_usable_threshold() -> None:
    scores, target = np.full(9, 0.3, np.float32), np.array([0, 1] * 4 + [0])

    assert 0 < calibration.choose_threshold(scores, target, metric="f1", avoid=NONE) < 1


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_a_weighted_row_has_the_same_effect_on_the_threshold_as_repeated_rows(rng: Rng, metric: str) -> None:
    scores = rng.random(300).astype(np.float32)
    target, times = (rng.random(300) < scores).astype(np.int64), rng.integers(1, 3, 300)
    times[target == 1] += 4
    repeated = np.repeat(scores, times), np.repeat(target, times)

    weighted = calibration.choose_threshold(scores, target, metric=metric, avoid=NONE, weight=times.astype(float))

    assert weighted == calibration.choose_threshold(*repeated, metric=metric, avoid=NONE)
    assert weighted < calibration.choose_threshold(scores, target, metric=metric, avoid=NONE)


def random_scores() -> tuple[Any, Any]:
    """Return random scores and a target; each score is the true probability of the positive class."""
    rng = np.random.default_rng(3)
    scores = rng.random(400).astype(np.float32)
    return scores, (rng.random(400) < scores).astype(np.int64)


@pytest.mark.parametrize("metric", ["roc_auc", "f1"])
@pytest.mark.parametrize("prices", [(5, 1), (1, 5), (1, 1), (0, 1), (1, 0), (1, 1000)])
def test_the_chosen_threshold_has_the_lowest_cost(metric: str, prices: tuple[int, int]) -> None:
    scores, target = random_scores()
    price = Cost(false_positive=prices[0], false_negative=prices[1])

    threshold = calibration.choose_threshold(scores, target, metric=metric, avoid=NONE, cost=price)

    def total(cut: float) -> float:
        positive = scores >= np.float32(cut)
        mistakes = (positive & (target == 0)).sum(), (~positive & (target == 1)).sum()
        return prices[0] * float(mistakes[0]) + prices[1] * float(mistakes[1])

    assert total(threshold) == min(total(cut) for cut in np.concatenate([[0.0], scores, [1.0]]))
    assert np.abs(scores.astype(np.float64) - threshold).min() > calibration.SAFE_GAP


def test_costly_false_positives_raise_the_threshold() -> None:
    scores, target = random_scores()
    none, even, high, low = (
        calibration.choose_threshold(scores, target, metric="roc_auc", avoid=NONE, cost=price)
        for price in (None, Cost(false_positive=2, false_negative=2), Cost(false_positive=5), Cost(false_negative=5))
    )

    assert low < none == even < high
