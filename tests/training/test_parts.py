"""The parts of training, each against what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics as reference

from rowcast import tables
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.errors import TableError, TrainingError
from rowcast.registry.bundle import Measure
from rowcast.schema.encoding import NUMBERS, TEXTS
from rowcast.schema.prediction import Decision
from rowcast.training import calibration as calibrate
from rowcast.training import features, metrics
from rowcast.training.models.candidate import LabelledMatrix, Setting
from rowcast.training.models.candidates import CANDIDATES, select
from rowcast.training.models.forest import Grove
from rowcast.training.onnx_graph import FLOAT, STRING, GraphBuilder, Trees, floor32, tensor
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import build_problem

RNG = np.random.default_rng(7)


def posed(columns: dict[str, list[Any]], target: str = "y", **options: Any) -> Any:
    return build_problem(tables.from_memory(columns), TrainingOptions(target=target, name="test", **options))


def labels(values: list[Any]) -> dict[str, list[Any]]:
    return {"x": [float(index % 17) for index in range(len(values))], "y": values}


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["yes", "no"] * 30, "binary", ("no", "yes")),
        ([" Approved", "Rejected "] * 30, "binary", ("Approved", "Rejected")),
        (["0", "1"] * 30, "binary", (0, 1)),
        (["0.0", "1.0"] * 30, "binary", (0, 1)),
        (["TRUE", "false"] * 30, "binary", (False, True)),
        ([True, False] * 30, "binary", (False, True)),
        (["01", "02"] * 30, "binary", ("01", "02")),
        (["+", "-"] * 30, "binary", ("+", "-")),
        (["10", "9", "2"] * 30, "multiclass", (2, 9, 10)),
        (["a", "b", "c"] * 30, "multiclass", ("a", "b", "c")),
        ([str(index % 40) for index in range(200)], "regression", ()),
        ([index / 7 for index in range(60)], "regression", ()),
    ],
)
def test_the_target_says_the_task_and_labels_keep_their_type(values: list[Any], task: str, classes: Any) -> None:
    problem = posed(labels(values))

    assert (problem.task, problem.classes) == (task, classes)
    assert [type(label) for label in problem.classes] == [type(label) for label in classes]


@pytest.mark.parametrize(
    ("values", "options", "positive"),
    [
        (["Rejected", "Approved"] * 30, {}, "Approved"),
        (["no", "Yes"] * 30, {}, "Yes"),
        ([1, 0, 1] * 30, {}, 1),
        ([True, False] * 30, {}, True),
        (["good", "good", "bad"] * 30, {}, "bad"),
        (["good", "good", "bad"] * 30, {"positive": " good"}, "good"),
        (["Good", "bad", "bad"] * 30, {"positive": "gOOD"}, "Good"),
    ],
)
def test_the_positive_class_is_the_one_asked_for_or_named_so_or_rarer(
    values: list[Any], options: dict[str, Any], positive: Any
) -> None:
    problem = posed(labels(values), **options)

    assert problem.classes[problem.positive] == positive
    assert [finding.code for finding in problem.findings].count("positive-class") == 1
    together = np.concatenate([problem.training.target, problem.holdout.target])
    assert together.sum() == sum(str(value).strip().casefold() == str(positive).casefold() for value in values)


def test_rows_without_target_and_classes_of_one_row_are_left_out_and_said() -> None:
    problem = posed(labels(["a", "b", "?", None, " "] * 20 + ["once"]))

    assert problem.frame.height == 40
    assert {"missing-target", "lonely-class"} <= {finding.code for finding in problem.findings}


@pytest.mark.parametrize(
    ("columns", "options", "sentence"),
    [
        (labels(["a"] * 50), {}, "is 'a' in every row"),
        (labels([None] * 50), {}, "is empty in every row"),
        (labels([f"t{index}" for index in range(50)]), {}, "different values in 50 rows"),
        (labels(["a", "b"] * 5), {}, "at least 20"),
        (labels(["a", "b"] * 30), {"positive": "c"}, "'c' is not a class of 'y'; it has a, b"),
        (labels(["a", "b"] * 30), {"target": "z"}, "no column 'z'"),
        (labels(["a", "b"] * 30), {"task": "regression"}, "holds text"),
        (labels([1.5] * 50), {}, "there is nothing to learn"),
        (labels(["a", "b", "c"] * 30), {"task": "binary"}, "has 3 classes"),
    ],
)
def test_problems_that_cannot_be_posed_are_refused(columns: Any, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TableError, match=sentence):
        posed(columns, **{"target": "y", **options})


def test_the_holdout_has_its_share_of_every_class_and_is_seeded() -> None:
    columns = labels(["a"] * 100 + ["b"] * 20 + ["c"] * 5 + ["d"] * 2)

    first, again, other = (posed(columns, seed=seed) for seed in (0, 0, 1))

    assert np.bincount(first.holdout.target, minlength=4).tolist() == [20, 4, 1, 0]
    assert not set(first.holdout.places) & set(first.training.places)
    assert first.holdout.places.tolist() == again.holdout.places.tolist() != other.holdout.places.tolist()


@pytest.mark.parametrize("style", ["linear", "trees"])
@pytest.mark.parametrize("levels", [5, 200])
def test_features_are_equal_to_the_last_bit_in_numpy_and_in_the_graph(style: features.Style, levels: int) -> None:
    rows = 600
    numbers = (RNG.normal(size=(rows, 4)) * [1, 1e6, 1e-6, 1e30]).astype(np.float32)
    numbers[RNG.random(numbers.shape) < 0.1] = np.nan
    texts = np.array([["", *map(str, range(levels))][k] for k in RNG.integers(levels + 1, size=rows * 2)], object)
    texts = texts.reshape(rows, 2)
    made, _ = features.fit(numbers, texts, RNG.random((rows, 1)), style)
    graph = GraphBuilder()
    width = made.transform(numbers[:1], texts[:1]).shape[1]
    graph.node("Identity", made.emit(graph, NUMBERS, TEXTS), output="X")
    inputs = [tensor(NUMBERS, FLOAT, "N", 4), tensor(TEXTS, STRING, "N", 2)]
    model = open_graph(graph.model(inputs, tensor("X", FLOAT, "N", width)), "X")
    awkward = np.array([np.nan, -0.0, 1e38, -3.4e38, 1e-45, 2.0**53 + 1], np.float32)
    numbers = np.concatenate([numbers, RNG.choice(awkward, (300, 4))])
    texts = np.concatenate([texts, RNG.choice(np.array(["", "never", "1", "Ünï"], object), (300, 2))])

    expected = made.transform(numbers, texts)

    assert np.isfinite(expected).all()
    assert model.run({NUMBERS: numbers, TEXTS: texts}).tobytes() == expected.tobytes()


def test_rare_and_unseen_levels_share_a_bucket_and_missing_is_its_own() -> None:
    texts = np.array([["a"]] * 5 + [["b"]] * 4 + [["rare"]] + [[""]] * 3, object)
    numbers = np.empty((len(texts), 0), np.float32)

    made, _ = features.fit(numbers, texts, np.zeros((len(texts), 1)), "trees")
    asked = np.array([["a"], ["b"], [""], ["rare"], ["unseen"]], object)

    assert made.transform(numbers[:5], asked).tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_target_means_of_training_rows_come_from_other_rows() -> None:
    rows = 2000
    texts = np.array([f"level {k}" for k in RNG.integers(400, size=rows)], object).reshape(-1, 1)
    target = RNG.integers(2, size=(rows, 1)).astype(float)

    _, matrix = features.fit(np.empty((rows, 0), np.float32), texts, target, "trees")

    assert abs(np.corrcoef(matrix[:, 0], target[:, 0])[0, 1]) < 0.1  # in-fold means would reach 0.4


def test_floor32_keeps_every_float32_on_its_side() -> None:
    thresholds = np.concatenate([RNG.normal(size=200), [1e300, -1e300, 1e-300, 0.1, 16777217.0]])

    for threshold in thresholds.tolist():
        near = np.float32(threshold) if abs(threshold) < 3e38 else np.float32(np.copysign(3e38, threshold))
        for x in (near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))):
            assert (float(x) <= threshold) == bool(x <= floor32(threshold))


def test_trees_list_their_thresholds() -> None:
    trees = Trees(1)
    trees.split(0, 0, 3, 0.5, 1, 2)
    trees.leaf(0, 1, {0: 1.0})
    trees.leaf(0, 2, {0: -1.0})

    assert {key: values.tolist() for key, values in trees.thresholds().items()} == {3: [0.5]}


def test_calibration_is_kept_when_it_helps_and_only_then() -> None:
    truth = RNG.normal(size=4000) * 2
    target = (RNG.random(4000) < calibrate.sigmoid(truth)).astype(np.int64)

    overconfident = calibrate.fit((truth * 3 + 1)[:, None], target, "binary")
    honest = calibrate.fit(truth[:, None], target, "binary")

    assert overconfident.method == "sigmoid"
    assert (overconfident.scale, overconfident.shift) == pytest.approx((1 / 3, -1 / 3), abs=0.05)
    assert honest.method == "none" or abs(honest.scale - 1) < 0.1


def test_temperature_cools_overconfident_classes() -> None:
    raw = RNG.normal(size=(3000, 4)) * 2
    target = np.array([RNG.choice(4, p=row) for row in calibrate.softmax(raw)])

    fitted = calibrate.fit(raw * 4, target, "multiclass")

    assert fitted.method == "temperature"
    assert fitted.scale == pytest.approx(0.25, rel=0.1)


def test_scores_that_are_upside_down_are_left_alone() -> None:
    raw = RNG.normal(size=(500, 1))
    target = (raw[:, 0] < 0).astype(np.int64)

    assert calibrate.fit(raw, target, "binary").method == "none"


def test_the_threshold_is_a_float32_midpoint_that_makes_the_fewest_mistakes() -> None:
    scores = np.array([0.1, 0.2, 0.2, 0.4, 0.7, 0.9], np.float32)
    target = np.array([0, 0, 1, 1, 1, 1])

    found = calibrate.choose_threshold(scores, target, "roc_auc", np.empty(0, np.float32))

    assert found == float(np.float32(found))
    assert found in (pytest.approx(0.3, abs=1e-6), pytest.approx(0.15, abs=1e-6))
    assert np.sum((scores >= np.float32(found)) != (target == 1)) == 1


def test_the_threshold_keeps_clear_of_every_score_it_will_meet() -> None:
    scores = np.sort(RNG.random(5000)).astype(np.float32)
    target = (RNG.random(5000) < scores).astype(np.int64)
    avoid = RNG.random(20_000).astype(np.float32)

    found = calibrate.choose_threshold(scores, target, "roc_auc", avoid)

    assert np.abs(np.concatenate([scores, avoid]).astype(float) - found).min() > 4e-6
    assert abs(found - 0.5) < 0.15


def test_f1_asks_for_a_lower_threshold_than_accuracy_when_positives_are_rare() -> None:
    scores = RNG.beta(1, 8, 4000).astype(np.float32)
    target = (RNG.random(4000) < scores).astype(np.int64)
    none = np.empty(0, np.float32)

    assert calibrate.choose_threshold(scores, target, "f1", none) < calibrate.choose_threshold(
        scores, target, "accuracy", none
    )


def test_equal_scores_leave_a_usable_threshold() -> None:
    found = calibrate.choose_threshold(
        np.full(9, 0.3, np.float32), np.array([0, 1] * 4 + [0]), "f1", np.empty(0, np.float32)
    )

    assert 0 < found < 1


def test_binary_metrics_agree_with_scikit_learn() -> None:
    target = RNG.integers(2, size=400)
    p = np.round(np.clip(target * 0.2 + RNG.random(400) * 0.8, 0.01, 0.99), 2)  # rounded: ties
    decision = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)

    found = metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, 0)

    said = p.astype(np.float32) >= 0.5
    expected = {
        "accuracy": reference.accuracy_score(target, said),
        "f1": reference.f1_score(target, said),
        "roc_auc": reference.roc_auc_score(target, p),
        "pr_auc": reference.average_precision_score(target, p),
        "log_loss": reference.log_loss(target, p),
        "brier": reference.brier_score_loss(target, p),
    }
    assert {name: found[name].value for name in expected} == pytest.approx(expected)
    assert 0 <= found["calibration_error"].value <= 1
    assert all(measure.low < measure.value < measure.high for measure in found.values())


def test_multiclass_and_regression_metrics_agree_with_scikit_learn() -> None:
    output = RNG.dirichlet([1, 1, 1], 300)
    target = np.array([RNG.choice(3, p=row) for row in output])
    found = metrics.measure_holdout(Decision(task="multiclass", classes=("a", "b", "c")), output, target, 0)
    assert {name: found[name].value for name in ("accuracy", "f1", "roc_auc", "log_loss")} == pytest.approx(
        {
            "accuracy": reference.accuracy_score(target, output.argmax(axis=1)),
            "f1": reference.f1_score(target, output.argmax(axis=1), average="macro"),
            "roc_auc": reference.roc_auc_score(target, output, multi_class="ovr"),
            "log_loss": reference.log_loss(target, output),
        }
    )

    values = RNG.normal(size=300)
    guess = values + RNG.normal(size=300)
    found = metrics.measure_holdout(Decision(task="regression"), guess, values, 0)
    assert {name: measure.value for name, measure in found.items()} == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(values, guess),
            "mae": reference.mean_absolute_error(values, guess),
            "r2": reference.r2_score(values, guess),
        }
    )


def test_the_interval_of_a_large_holdout_is_as_narrow_as_its_rows_allow() -> None:
    target = RNG.integers(2, size=40_000)
    right = RNG.random(40_000) < 0.8
    p = np.where(right == (target == 1), 0.9, 0.1)
    decision = Decision(task="binary", classes=(0, 1))

    found = metrics.measure_holdout(decision, np.stack([1 - p, p], axis=1), target, 0)["accuracy"]

    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(0.16 / 40_000), rel=0.25)


def test_a_holdout_of_one_class_has_no_auc_and_no_crash() -> None:
    output = np.tile([[0.4, 0.6]], (10, 1))

    found = metrics.measure_holdout(Decision(task="binary", classes=(0, 1)), output, np.ones(10, int), 0)

    assert "roc_auc" not in found
    assert found["accuracy"] == Measure(1.0, 1.0, 1.0)


def test_metrics_and_candidates_that_do_not_exist_are_refused_with_a_list() -> None:
    with pytest.raises(TrainingError, match="choose from rmse, mae, r2"):
        metrics.resolve("roc_auc", "regression")
    with pytest.raises(TrainingError, match="choose from logistic, ridge, elasticnet, tree, boosting, forest"):
        select(["logistic", "magic"], "binary")
    with pytest.raises(TrainingError, match="elasticnet cannot learn a binary target; choose from logistic, ridge"):
        select(["elasticnet"], "binary")


def test_ridge_takes_the_place_of_logistic_where_a_value_is_predicted() -> None:
    assert [candidate.name for candidate in select(["logistic", "boosting"], "regression")] == ["ridge", "boosting"]


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("name", ["forest", "extra"])
def test_a_forest_is_the_same_in_the_graph_to_the_last_bits(task: Any, name: str) -> None:
    matrix = RNG.normal(size=(500, 4)).astype(np.float32)
    signal = matrix[:, 0] + RNG.normal(size=500) * 0.3
    target = {"binary": signal > 1, "multiclass": np.digitize(signal, [-1, 1]), "regression": np.exp(signal * 6)}[task]
    setting = Setting(task, 3 if task == "multiclass" else 1, 500, 0, 1, lambda: False)
    kind = CANDIDATES[name]

    fitted = kind.fit(LabelledMatrix(matrix, target * 1), kind.starts(setting)[0], setting)
    graph = GraphBuilder()
    graph.node("Identity", fitted.emit(graph, "X"), output="raw")
    model = open_graph(graph.model([tensor("X", FLOAT, "N", 4)], tensor("raw", FLOAT, "N", setting.width)), "raw")

    assert model.run({"X": matrix}) == pytest.approx(fitted.raw(matrix), rel=3e-7, abs=1e-7)


def test_a_forest_stops_growing_when_time_is_out_and_only_while_it_is_judged() -> None:
    rows = LabelledMatrix(RNG.normal(size=(50, 2)).astype(np.float32), RNG.normal(size=50))
    setting = Setting("regression", 1, 50, 0, 1, lambda: True)
    kind = CANDIDATES["forest"]

    judged = kind.fit(rows, kind.starts(setting)[0], setting, rows)
    chosen_one = kind.fit(rows, kind.starts(setting)[0], setting)

    assert isinstance(judged, Grove)
    assert isinstance(chosen_one, Grove)
    assert (len(judged.grown), len(chosen_one.grown)) == (20, 100)
    assert (judged.params["rounds"], chosen_one.params["rounds"]) == (20, 100)


def test_ridge_scores_classes_as_log_odds() -> None:
    matrix = RNG.normal(size=(4000, 1)).astype(np.float32)
    target = (RNG.random(4000) < calibrate.sigmoid(matrix[:, 0].astype(float) * 1.5)).astype(np.int64)
    kind = CANDIDATES["ridge"]
    setting = Setting("binary", 1, 4000, 0, 1, lambda: False)

    raw = kind.fit(LabelledMatrix(matrix, target), kind.starts(setting)[0], setting).raw(matrix)

    assert np.polyfit(matrix[:, 0], raw[:, 0], 1) == pytest.approx([1.5, 0], abs=0.3)
