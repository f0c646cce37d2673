"""Weights of rows and of classes: every fit and every figure follows them, probabilities keep their meaning."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from rowcast import tables
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import TableError, TrainingError
from rowcast.registry import bundle
from rowcast.schema.prediction import Decision
from rowcast.training import calibration as calibrate
from rowcast.training import features, metrics
from rowcast.training.models.candidate import Candidate, LabelledMatrix, Setting
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem, build_problem
from rowcast.training.result import TrainingResult
from rowcast.training.run import train

ROWS = 600
Rng = np.random.Generator


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def setting(task: Any, rows: int = ROWS) -> Setting:
    return Setting(task, 3 if task == "multiclass" else 1, rows, 0, 1, lambda: False)


def posed(columns: dict[str, list[Any]], **options: Any) -> LearningProblem:
    return build_problem(tables.from_memory(columns, "loans"), TrainingOptions(target="y", name="loans", **options))


def trained(folder: Path, columns: dict[str, list[Any]], **options: Any) -> TrainingResult:
    return train(
        tables.from_memory(columns, "loans"),
        TrainingOptions(target="y", name="loans", **{"trials": 3, **options}),
        open_graph=open_graph,
        registry=FolderRegistry(folder),
        now=datetime(2026, 11, 1, tzinfo=UTC),
        progress=lambda event: None,
    )


def loans(rows: int = ROWS) -> dict[str, list[Any]]:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(2, rows))
    label = rng.random(rows) < calibrate.sigmoid(2 * x[0] - 2)
    weight = rng.integers(1, 5, rows).astype(float)
    return {"a": x[0].tolist(), "b": x[1].tolist(), "w": weight.tolist(), "y": np.where(label, "bad", "good").tolist()}


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=lambda candidate: candidate.name)
def test_every_candidate_learns_from_the_heavy_rows(rng: Rng, candidate: Candidate, task: Any, validated: bool) -> None:
    if task not in candidate.tasks:
        return
    matrix = rng.normal(size=(ROWS, 2)).astype(np.float32)
    rule = np.digitize(matrix[:, 0], [-0.5, 0.5]) if task == "multiclass" else (matrix[:, 0] > 0).astype(np.intp)
    heavy = rng.random(ROWS) < 0.5
    told = np.where(heavy, rule, rule.max() - rule)  # the light rows say the opposite
    rows = LabelledMatrix(matrix, told, np.where(heavy, 1.99, 0.01))
    validation = LabelledMatrix(matrix, told, rows.weight) if validated else None

    raw = candidate.fit(rows, candidate.starts(setting(task))[0], setting(task), validation).raw(matrix)

    if task == "regression":
        assert np.corrcoef(raw[:, 0], rule)[0, 1] > 0.7
    elif task == "binary":
        assert reference.roc_auc_score(rule, raw[:, 0]) > 0.75  # without weights: a half
    else:
        assert np.mean(raw.argmax(axis=1) == rule) > 0.6


@pytest.mark.parametrize("validated", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize(
    ("task", "present"), [("binary", [0]), ("binary", [1]), ("multiclass", [0, 2]), ("multiclass", [1])]
)
@pytest.mark.parametrize("candidate", CANDIDATES.values(), ids=lambda candidate: candidate.name)
def test_every_candidate_copes_with_a_fold_that_lacks_a_class(
    rng: Rng, candidate: Candidate, task: Any, present: list[int], weighted: bool, validated: bool
) -> None:
    if task not in candidate.tasks:
        return
    matrix = rng.normal(size=(60, 2)).astype(np.float32)
    weight = rng.random(60) + 0.5 if weighted else None
    rows = LabelledMatrix(matrix, rng.choice(present, 60), weight)
    held = LabelledMatrix(matrix, rng.integers(0, 3 if task == "multiclass" else 2, 60), weight) if validated else None

    raw = candidate.fit(rows, candidate.starts(setting(task, 60))[0], setting(task, 60), held).raw(matrix)

    assert raw.shape == (60, 3 if task == "multiclass" else 1)
    assert np.isfinite(raw).all()
    if task == "binary":
        assert np.all((raw[:, 0] > 0) == (present == [1]))
    else:
        assert set(raw.argmax(axis=1)) <= set(present)


@pytest.mark.parametrize("counts", [[100, 2], [100, 3, 5], [2, 2, 60], [40, 4, 3, 2]])
def test_rows_of_a_rare_class_are_dealt_to_different_folds(counts: list[int]) -> None:
    from rowcast.training.split import make_folds

    target = np.repeat(np.arange(len(counts)), counts)

    for seed in range(5):
        dealt = make_folds(target, "multiclass", 3, seed, None)
        assert sorted(np.concatenate([judge for _, judge in dealt])) == list(range(len(target)))
        for learn, judge in dealt:
            assert set(target[learn]) == set(range(len(counts)))
            assert np.bincount(target[judge], minlength=len(counts)).max() <= np.ceil(max(counts) / 3)
            assert abs(len(judge) - len(target) / 3) < len(counts)


def test_weighted_metrics_agree_with_scikit_learn(rng: Rng) -> None:
    target, w = rng.integers(2, size=400), rng.random(400) + 0.1
    p = np.round(np.clip(target * 0.2 + rng.random(400) * 0.8, 0.01, 0.99), 2)
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)
    said = p.astype(np.float32) >= 0.5

    found = metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, 0, w)

    assert {name: found[name].value for name in metrics.CHOICES["binary"]} == pytest.approx(
        {
            "accuracy": reference.accuracy_score(target, said, sample_weight=w),
            "f1": reference.f1_score(target, said, sample_weight=w),
            "roc_auc": reference.roc_auc_score(target, p, sample_weight=w),
            "pr_auc": reference.average_precision_score(target, p, sample_weight=w),
            "log_loss": reference.log_loss(target, p, sample_weight=w),
            "brier": reference.brier_score_loss(target, p, sample_weight=w),
        }
    )
    assert all(measure.low < measure.value < measure.high for measure in found.values())

    output = rng.dirichlet([1, 1, 1], 400)
    classes = np.array([rng.choice(3, p=row) for row in output])
    found = metrics.measure_holdout(Decision(task="multiclass", classes=("a", "b", "c")), output, classes, 0, w)
    best = output.argmax(axis=1)
    expected = {
        "accuracy": reference.accuracy_score(classes, best, sample_weight=w),
        "balanced_accuracy": reference.balanced_accuracy_score(classes, best, sample_weight=w),
        "f1": reference.f1_score(classes, best, average="macro", sample_weight=w),
        "log_loss": reference.log_loss(classes, output, sample_weight=w),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected)

    values = rng.normal(size=400)
    guess = values + rng.normal(size=400)
    found = metrics.measure_holdout(Decision(task="regression"), guess, values, 0, w)
    assert {name: measure.value for name, measure in found.items()} == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(values, guess, sample_weight=w),
            "mae": reference.mean_absolute_error(values, guess, sample_weight=w),
            "r2": reference.r2_score(values, guess, sample_weight=w),
        }
    )


@pytest.mark.parametrize(
    ("task", "metric"), [(task, name) for task in metrics.CHOICES for name in metrics.CHOICES[task]]
)
def test_the_direction_of_every_metric_is_known(rng: Rng, task: Any, metric: str) -> None:
    target = rng.integers(0, 2 if task == "binary" else 3, 300)
    right = {"binary": target * 0.8 + 0.1, "multiclass": np.eye(3)[target] * 0.7 + 0.1, "regression": target * 1.0}[
        task
    ]
    poor = rng.permutation(right)

    better, worse = (metrics.score(metric, answers, target, task) for answers in (right, poor))

    assert (better > worse) == (metric in metrics.GREATER)
    assert metrics.resolve(metric, task) == metric


def test_a_metric_that_does_not_fit_names_those_that_do() -> None:
    with pytest.raises(TrainingError, match="--metric 'auc' cannot rank multiclass models; choose from log_loss, acc"):
        metrics.resolve("auc", "multiclass")


def test_f1_ranks_by_the_best_threshold_since_that_is_the_one_chosen() -> None:
    target = np.repeat([0, 1], [95, 5])
    timid = np.where(target == 1, 0.3, 0.1)  # every positive is found, far below a half

    assert metrics.score("f1", timid, target, "binary") == 1.0
    assert metrics.score("f1", np.full(100, 0.1), target, "binary") == pytest.approx(2 * 5 / (100 + 5))


def test_an_interval_over_groups_is_wider_than_one_that_takes_their_rows_for_chance(rng: Rng) -> None:
    group = np.repeat(np.arange(60), 10)
    right = np.repeat(rng.random(60) < 0.7, 10)  # the model knows a customer, or does not
    target = rng.integers(2, size=600)
    p = np.where(right == (target == 1), 0.9, 0.1)
    decision = Decision(task="binary", classes=(0, 1))

    rows, groups = (
        metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, 0, None, each)["accuracy"]
        for each in (None, group)
    )

    assert groups.value == rows.value
    assert groups.high - groups.low > 2 * (rows.high - rows.low)


def repeated(*arrays: Any, times: Any) -> list[Any]:
    return [np.repeat(array, times, axis=0) for array in arrays]


@pytest.mark.parametrize("metric", ["accuracy", "f1"])
def test_a_weight_moves_the_threshold_as_so_many_rows_would(rng: Rng, metric: str) -> None:
    scores = rng.random(300).astype(np.float32)
    target, times = (rng.random(300) < scores).astype(np.int64), rng.integers(1, 3, 300)
    times[target == 1] += 4
    none = np.empty(0, np.float32)

    weighted = calibrate.choose_threshold(scores, target, metric, none, times.astype(float))

    assert weighted == calibrate.choose_threshold(*repeated(scores, target, times=times), metric, none)
    assert weighted < calibrate.choose_threshold(scores, target, metric, none)


def test_calibration_follows_the_weights(rng: Rng) -> None:
    raw = rng.normal(size=(2000, 1)) * 2
    likely = calibrate.sigmoid(raw[:, 0])
    target = (rng.random(2000) < likely).astype(np.int64)
    weight = np.where(target == 1, 3.0, 1.0)  # three times the odds

    fitted = calibrate.fit(raw, target, "binary", weight)

    assert (fitted.scale, fitted.shift) == pytest.approx((1, np.log(3)), abs=0.25)


def test_target_means_are_weighted(rng: Rng) -> None:
    levels = np.array([f"level {index % 100}" for index in range(2000)], object).reshape(-1, 1)
    target = rng.integers(2, size=(2000, 1)).astype(float)
    weight = rng.integers(1, 4, 2000)
    nothing = np.empty((2000, 0), np.float32)

    def means(table: features.Features) -> Any:
        return dict(zip(table.blocks[0].levels, table.blocks[0].table[:, 0].tolist(), strict=False))

    weighted, _ = features.fit(nothing, levels, target, "trees", None, weight.astype(float))
    several, _ = features.fit(*repeated(nothing, levels, target, times=weight), "trees")

    one, other = means(weighted), means(several)
    assert [one[name] for name in sorted(one)] == pytest.approx([other[name] for name in sorted(one)], abs=0.01)


def test_the_weight_is_not_learnt_from_and_scales_away(tmp_path: Path) -> None:
    columns = loans()
    twice = {**columns, "w": [8 * value for value in columns["w"]]}
    options = {"candidates": ("logistic", "boosting", "forest"), "weight": "w"}

    plain, first, again, eight = (
        trained(tmp_path, each, **chosen)
        for each, chosen in ((columns, {}), (columns, options), (columns, options), (twice, options))
    )

    assert first.digest == again.digest == eight.digest != plain.digest
    assert [f.action for f in first.findings if f.code == "weight"] == ["not used as a feature"]
    manifest = bundle.open(Path(first.path)).manifest
    assert manifest.schema.names() == ["a", "b"]
    assert "each row counts by its w" in (Path(first.path) / bundle.CARD).read_text()
    assert "Each row counts by its w" in (Path(first.path) / bundle.REPORT).read_text()


def test_rows_that_weigh_nothing_are_left_out() -> None:
    columns = loans()
    columns["w"] = [0.0 if index % 10 == 0 else weight for index, weight in enumerate(columns["w"])]

    problem = posed(columns, weight="w")

    assert problem.frame.height == ROWS * 9 // 10
    assert [f.message for f in problem.findings if f.code == "weightless"] == ["is 0 in 60 of 600 rows"]


@pytest.mark.parametrize("weighted", [{}, {"weight": "w"}])
def test_balanced_classes_count_the_same(weighted: dict[str, str]) -> None:
    problem = posed(loans(), class_weight="balanced", **weighted)
    rows = problem.training

    assert rows.emphasis is not None
    emphasis = [rows.emphasis[rows.target == label].sum() for label in (0, 1)]
    assert emphasis[0] == pytest.approx(emphasis[1])
    assert (rows.weight is None) == (not weighted)
    assert problem.class_weights[1] > 1 > problem.class_weights[0]


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_the_plain_calibration_gives_balanced_classes_their_real_shares_back(rng: Rng, task: Any) -> None:
    matrix = rng.normal(size=(6000, 2)).astype(np.float32)
    score = matrix[:, 0] + rng.logistic(size=6000) * 0.7
    target = np.digitize(score, [1.5] if task == "binary" else [-2, 1.5])
    shares = np.bincount(target) / 6000
    weights = tuple((1 / (len(shares) * shares)).tolist())
    kind, chosen = CANDIDATES["logistic"], setting(task, 6000)

    usual = kind.fit(LabelledMatrix(matrix, target), {"strength": 1.0}, chosen).raw(matrix)
    balanced = kind.fit(LabelledMatrix(matrix, target, np.array(weights)[target]), {"strength": 1.0}, chosen).raw(
        matrix
    )

    expected = calibrate.uncalibrated(task).answers(usual)
    found = calibrate.uncalibrated(task, weights).answers(balanced)
    assert np.abs(found - expected).mean() < 0.02
    assert np.abs(calibrate.uncalibrated(task).answers(balanced) - expected).mean() > 0.1


@pytest.mark.parametrize("candidate", [name for name, each in CANDIDATES.items() if "multiclass" in each.tasks])
@pytest.mark.parametrize("classes", [2, 3])
def test_balanced_models_are_certified_and_their_probabilities_are_honest(
    tmp_path: Path, candidate: str, classes: int
) -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2, 2500))
    label = np.digitize(x[0] + rng.logistic(size=2500) * 0.4, [1.8] if classes == 2 else [-1.5, 1.8])
    columns = {"a": x[0].tolist(), "b": x[1].tolist(), "y": [f"k{each}" for each in label]}

    usual, balanced = (
        trained(tmp_path, columns, candidates=(candidate,), trials=1, class_weight=each)
        for each in ("none", "balanced")
    )

    assert balanced.digest != usual.digest
    assert balanced.parity.label_flips == 0
    assert balanced.parity.max_abs_diff <= 1e-5
    assert balanced.holdout["log_loss"].value < usual.holdout["log_loss"].value + 0.08
    assert balanced.holdout["calibration_error"].value < 0.1


def test_class_weights_are_for_classes_and_have_two_names() -> None:
    values = {**loans(), "y": [value * 3.7 for value in loans()["a"]]}

    with pytest.raises(TableError, match="--class-weight is for classes; the target 'y' is a value"):
        posed(values, class_weight="balanced")
    with pytest.raises(TrainingError, match="--class-weight is none or balanced, not 'even'"):
        posed(loans(), class_weight="even")
