"""Metrics agree with scikit-learn, and their confidence intervals take groups into account."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from rowcast.errors import TrainingError
from rowcast.registry.bundle import Measure
from rowcast.schema.prediction import Decision
from rowcast.training import metrics

RNG = np.random.default_rng(7)
Rng = np.random.Generator


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def test_binary_metrics_agree_with_scikit_learn() -> None:
    target = RNG.integers(2, size=400)
    p = np.round(np.clip(target * 0.2 + RNG.random(400) * 0.8, 0.01, 0.99), 2)  # rounding creates ties
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)

    measures = metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, seed=0)

    predicted = p.astype(np.float32) >= 0.5
    expected = {
        "accuracy": reference.accuracy_score(target, predicted),
        "f1": reference.f1_score(target, predicted),
        "roc_auc": reference.roc_auc_score(target, p),
        "pr_auc": reference.average_precision_score(target, p),
        "log_loss": reference.log_loss(target, p),
        "brier": reference.brier_score_loss(target, p),
    }
    assert {name: measures[name].value for name in expected} == pytest.approx(expected)
    assert 0 <= measures["calibration_error"].value <= 1
    assert all(measure.low < measure.value < measure.high for measure in measures.values())


def test_multiclass_and_regression_metrics_agree_with_scikit_learn() -> None:
    output = RNG.dirichlet([1, 1, 1], 300)
    target = np.array([RNG.choice(3, p=row) for row in output])
    measures = metrics.measure_holdout(Decision(task="multiclass", classes=("a", "b", "c")), output, target, seed=0)
    assert {name: measures[name].value for name in ("accuracy", "f1", "roc_auc", "log_loss")} == pytest.approx(
        {
            "accuracy": reference.accuracy_score(target, output.argmax(axis=1)),
            "f1": reference.f1_score(target, output.argmax(axis=1), average="macro"),
            "roc_auc": reference.roc_auc_score(target, output, multi_class="ovr"),
            "log_loss": reference.log_loss(target, output),
        }
    )

    values = RNG.normal(size=300)
    guess = values + RNG.normal(size=300)
    measures = metrics.measure_holdout(Decision(task="regression"), guess, values, seed=0)
    assert {name: measure.value for name, measure in measures.items()} == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(values, guess),
            "mae": reference.mean_absolute_error(values, guess),
            "r2": reference.r2_score(values, guess),
        }
    )


def test_weighted_metrics_agree_with_scikit_learn(rng: Rng) -> None:
    target, w = rng.integers(2, size=400), rng.random(400) + 0.1
    p = np.round(np.clip(target * 0.2 + rng.random(400) * 0.8, 0.01, 0.99), 2)
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)
    predicted = p.astype(np.float32) >= 0.5

    measures = metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, seed=0, weight=w)

    assert {name: measures[name].value for name in metrics.CHOICES["binary"]} == pytest.approx(
        {
            "accuracy": reference.accuracy_score(target, predicted, sample_weight=w),
            "f1": reference.f1_score(target, predicted, sample_weight=w),
            "roc_auc": reference.roc_auc_score(target, p, sample_weight=w),
            "pr_auc": reference.average_precision_score(target, p, sample_weight=w),
            "log_loss": reference.log_loss(target, p, sample_weight=w),
            "brier": reference.brier_score_loss(target, p, sample_weight=w),
        }
    )
    assert all(measure.low < measure.value < measure.high for measure in measures.values())

    output = rng.dirichlet([1, 1, 1], 400)
    classes = np.array([rng.choice(3, p=row) for row in output])
    measures = metrics.measure_holdout(
        Decision(task="multiclass", classes=("a", "b", "c")), output, classes, seed=0, weight=w
    )
    best = output.argmax(axis=1)
    expected = {
        "accuracy": reference.accuracy_score(classes, best, sample_weight=w),
        "balanced_accuracy": reference.balanced_accuracy_score(classes, best, sample_weight=w),
        "f1": reference.f1_score(classes, best, average="macro", sample_weight=w),
        "log_loss": reference.log_loss(classes, output, sample_weight=w),
    }
    assert {name: measures[name].value for name in expected} == pytest.approx(expected)

    values = rng.normal(size=400)
    guess = values + rng.normal(size=400)
    measures = metrics.measure_holdout(Decision(task="regression"), guess, values, seed=0, weight=w)
    assert {name: measure.value for name, measure in measures.items()} == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(values, guess, sample_weight=w),
            "mae": reference.mean_absolute_error(values, guess, sample_weight=w),
            "r2": reference.r2_score(values, guess, sample_weight=w),
        }
    )


EXACT = {"rel": 0, "abs": 1e-9}
"""The tolerance for every comparison with scikit-learn, regardless of the size of the value."""


def agree(measures: dict[str, Measure], expected: dict[str, float]) -> bool:
    """Return whether every metric with a counterpart in scikit-learn has the same value."""
    assert measures.keys() - {"calibration_error"} == expected.keys()
    return {name: measures[name].value for name in expected} == pytest.approx(expected, **EXACT)


def random_weights(rng: Rng, rows: int, is_weighted: bool) -> Any:
    return rng.choice([0.25, 1.0, 3.5], rows) if is_weighted else None


SEEDS = st.integers(0, 2**32 - 1)


@settings(max_examples=30)
@given(SEEDS, st.booleans(), st.integers(0, 1))
def test_every_binary_metric_agrees_with_scikit_learn_to_9_decimal_places(
    seed: int, is_weighted: bool, positive: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(4, 200))
    target = np.r_[0, 1, rng.integers(2, size=rows - 2)]
    p = np.round(rng.random(rows), int(rng.integers(1, 6))).astype(np.float32)  # ties, 0 and 1 occur
    output = np.stack([1 - p, p], axis=1)[:, :: 1 if positive == 1 else -1]
    threshold = float(np.float32(rng.choice(p)))
    decision = Decision(task="binary", classes=("no", "yes"), positive=positive, threshold=threshold)
    w = random_weights(rng, rows, is_weighted)

    measures = metrics.measure_holdout(decision, output, target, seed=0, weight=w)

    predicted, exact = p >= np.float32(threshold), p.astype(np.float64)
    assert agree(
        measures,
        {
            "accuracy": reference.accuracy_score(target, predicted, sample_weight=w),
            "f1": reference.f1_score(target, predicted, sample_weight=w),
            "roc_auc": reference.roc_auc_score(target, exact, sample_weight=w),
            "pr_auc": reference.average_precision_score(target, exact, sample_weight=w),
            "log_loss": reference.log_loss(target, exact, sample_weight=w),
            "brier": reference.brier_score_loss(target, exact, sample_weight=w),
        },
    )


@pytest.mark.filterwarnings("ignore:The y_prob values do not sum to one")  # they are float32 values, as in a graph
@settings(max_examples=30)
@given(SEEDS, st.booleans(), st.integers(3, 6))
def test_every_multiclass_metric_agrees_with_scikit_learn_to_9_decimal_places(
    seed: int, is_weighted: bool, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(2 * classes, 200))
    target = np.r_[np.arange(classes), rng.integers(classes, size=rows - classes)]
    output = rng.dirichlet(np.full(classes, 0.3), rows).astype(np.float32)
    output[0] = np.eye(classes, dtype=np.float32)[1]  # the true class of this row has the probability 0
    decision = Decision(task="multiclass", classes=tuple(range(classes)))
    w = random_weights(rng, rows, is_weighted)

    measures = metrics.measure_holdout(decision, output, target, seed=0, weight=w)

    best, exact = output.argmax(axis=1), output.astype(np.float64)
    aucs = [reference.roc_auc_score(target == k, exact[:, k], sample_weight=w) for k in range(classes)]
    assert agree(
        measures,
        {
            "accuracy": reference.accuracy_score(target, best, sample_weight=w),
            "balanced_accuracy": reference.balanced_accuracy_score(target, best, sample_weight=w),
            "f1": reference.f1_score(target, best, average="macro", sample_weight=w),
            "roc_auc": float(np.mean(aucs)),
            "log_loss": reference.log_loss(target, exact, sample_weight=w),
            "brier": reference.brier_score_loss(
                target, exact, sample_weight=w, labels=list(range(classes)), scale_by_half=False
            ),
        },
    )


@settings(max_examples=30)
@given(SEEDS, st.booleans())
def test_every_regression_metric_agrees_with_scikit_learn_to_9_decimal_places(seed: int, is_weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(3, 200))
    target = rng.normal(size=rows) * 10.0 ** rng.integers(-2, 3)
    output = (target + rng.normal(size=rows)).astype(np.float32)
    w = random_weights(rng, rows, is_weighted)

    measures = metrics.measure_holdout(Decision(task="regression"), output, target, seed=0, weight=w)

    exact = output.astype(np.float64)
    values = {
        "rmse": reference.root_mean_squared_error(target, exact, sample_weight=w),
        "mae": reference.mean_absolute_error(target, exact, sample_weight=w),
        "r2": reference.r2_score(target, exact, sample_weight=w),
    }
    assert {name: measure.value for name, measure in measures.items()} == pytest.approx(values, rel=1e-12, abs=1e-9)


def test_a_class_that_is_predicted_but_does_not_occur_lowers_the_mean_f1_as_in_scikit_learn() -> None:
    target = np.array([0, 0, 1, 1, 1, 0])
    labels = np.array([0, 2, 1, 1, 0, 0])
    decision = Decision(task="multiclass", classes=("a", "b", "c"))

    measures = metrics.measure_holdout(decision, np.eye(3, dtype=np.float32)[labels], target, seed=0)

    assert measures["f1"].value == pytest.approx(reference.f1_score(target, labels, average="macro"), **EXACT)


def test_the_confidence_interval_for_a_large_holdout_is_based_on_all_rows() -> None:
    target = RNG.integers(2, size=40_000)
    right = RNG.random(40_000) < 0.8
    p = np.where(right == (target == 1), 0.9, 0.1)
    decision = Decision(task="binary", classes=(0, 1))

    measures = metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, seed=0)["accuracy"]

    assert measures.high - measures.low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 40_000), rel=0.25)


def test_confidence_intervals_have_the_width_of_a_95_percent_interval(rng: Rng) -> None:
    right = np.arange(500) < 400
    target = rng.integers(2, size=500)
    p = np.where(right == (target == 1), 0.9, 0.1)
    decision, output = Decision(task="binary", classes=(0, 1)), np.stack([1 - p, p], axis=1)

    measures = [metrics.measure_holdout(decision, output, target, seed=seed)["accuracy"] for seed in range(30)]

    widths = [(measure.high - measure.low, measure.high - measure.value) for measure in measures]
    assert np.mean(widths, axis=0) == pytest.approx(np.sqrt(0.16 / 500) * np.array([2 * 1.96, 1.96]), rel=0.05)
    assert [measure.value for measure in measures] == [0.8] * 30


def test_the_confidence_interval_is_wider_if_the_rows_form_groups(rng: Rng) -> None:
    group = np.repeat(np.arange(60), 10)
    right = np.repeat(rng.random(60) < 0.7, 10)  # within a group, all predictions are correct or all are wrong
    target = rng.integers(2, size=600)
    p = np.where(right == (target == 1), 0.9, 0.1)
    decision = Decision(task="binary", classes=(0, 1))

    rows, groups = (
        metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, seed=0, group=each)["accuracy"]
        for each in (None, group)
    )

    assert groups.value == rows.value
    assert groups.high - groups.low > 2 * (rows.high - rows.low)


def test_the_confidence_interval_for_a_large_holdout_is_based_on_all_groups(rng: Rng) -> None:
    groups = 10_000
    group = np.repeat(np.arange(groups), 2)
    right = np.repeat(np.arange(groups) < 0.8 * groups, 2)  # both predictions of a group are correct, or both are wrong
    target = rng.integers(2, size=2 * groups)
    p = np.where(right == (target == 1), 0.9, 0.1)
    decision, output = Decision(task="binary", classes=(0, 1)), np.stack([1 - p, p], axis=1)

    measures = [
        metrics.measure_holdout(decision, output, target, seed=seed, group=group)["accuracy"] for seed in range(8)
    ]

    width = np.mean([measure.high - measure.low for measure in measures])
    assert width == pytest.approx(2 * 1.96 * np.sqrt(0.16 / groups), rel=0.15)


def test_a_probability_of_one_half_counts_as_the_positive_class() -> None:
    output, target = np.array([0.5, np.nextafter(0.5, 0)]), np.array([1, 0])

    assert metrics.score("accuracy", output, target, "binary") == 1.0


def test_a_holdout_with_one_class_has_no_auc() -> None:
    output = np.tile([[0.4, 0.6]], (10, 1))

    measures = metrics.measure_holdout(Decision(task="binary", classes=(0, 1)), output, np.ones(10, int), seed=0)

    assert "roc_auc" not in measures
    assert measures["accuracy"] == Measure(1.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("task", "metric"), [(task, name) for task in metrics.CHOICES for name in metrics.CHOICES[task]]
)
def test_better_predictions_improve_every_metric(rng: Rng, task: Any, metric: str) -> None:
    target = rng.integers(0, 2 if task == "binary" else 3, 300)
    right = {"binary": target * 0.8 + 0.1, "multiclass": np.eye(3)[target] * 0.7 + 0.1, "regression": target * 1.0}[
        task
    ]
    shuffled = rng.permutation(right)

    better, worse = (metrics.score(metric, output, target, task) for output in (right, shuffled))

    assert (better > worse) == (metric in metrics.GREATER)
    assert metrics.resolve(metric, task) == metric


@pytest.mark.parametrize(
    ("metric", "task", "available"),
    [("auc", "multiclass", "log_loss, accuracy"), ("roc_auc", "regression", "rmse, mae, r2")],
)
def test_a_metric_for_another_task_is_rejected_with_a_list_of_valid_metrics(
    metric: str, task: Any, available: str
) -> None:
    with pytest.raises(TrainingError, match=f"'{metric}' cannot rank {task} models; available metrics: {available}"):
        metrics.resolve(metric, task)


def test_f1_uses_the_best_threshold() -> None:
    target = np.repeat([0, 1], [95, 5])
    low_scores = np.where(target == 1, 0.3, 0.1)  # a threshold of 0.2 separates the two classes

    assert metrics.score("f1", low_scores, target, "binary") == 1.0
    assert metrics.score("f1", np.full(100, 0.1), target, "binary") == pytest.approx(2 * 5 / (100 + 5))


@pytest.mark.parametrize("metric", ["roc_auc", "log_loss"])
def test_a_paired_comparison_is_positive_if_the_new_model_is_better(rng: Rng, metric: str) -> None:
    target = rng.integers(2, size=500)
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)

    def model(skill: float) -> metrics.DecidedOutput:
        p = np.clip(0.5 + (target - 0.5) * skill + rng.normal(size=500) * 0.15, 0.02, 0.98).astype(np.float32)
        return metrics.DecidedOutput(decision, np.stack([1 - p, p], axis=1))

    good, poor = model(0.5), model(0.1)
    better, worse, equal = (
        metrics.compare(metric, *pair, target, seed=0) for pair in ((good, poor), (poor, good), (good, good))
    )

    assert better is not None
    assert worse is not None
    assert 0 < better.low < better.value < better.high
    assert (worse.value, worse.low, worse.high) == pytest.approx((-better.value, -better.high, -better.low))
    assert equal == Measure(0.0, 0.0, 0.0)


def test_a_comparison_without_a_value_is_none() -> None:
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)
    scored = metrics.DecidedOutput(decision, np.full((30, 2), 0.5, np.float32))

    assert metrics.compare("roc_auc", scored, scored, np.ones(30, int), seed=0) is None


def test_a_paired_interval_is_narrower_than_the_intervals_of_both_models(rng: Rng) -> None:
    target = rng.normal(size=400)
    noise = rng.normal(size=400)
    decision = Decision(task="regression")
    first, second = (
        metrics.DecidedOutput(decision, (target + noise * scale).astype(np.float32)) for scale in (1.0, 1.05)
    )

    difference = metrics.compare("rmse", first, second, target, seed=0)

    alone = metrics.measure_holdout(decision, first.output, target, seed=0)["rmse"]
    assert difference is not None
    assert difference.high - difference.low < (alone.high - alone.low) / 5
