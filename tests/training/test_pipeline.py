"""Bags: the average of the models of all folds, in Python and in the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from rowcast.registry import bundle
from rowcast.tables import examples
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Table
from rowcast.training import cross_validation
from rowcast.training.calibration import Calibration
from rowcast.training.cross_validation import CrossValidator, TrialResult, make_folds
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Bag
from rowcast.training.problem import build_problem
from support.training import Columns, fit_setting, train_model

pytestmark = pytest.mark.usefixtures("small_models")

LOANS = table_from_memory(examples.loans(1500), "loans")


def towns(rows: int = 600) -> Columns:
    """Return a table with a numeric column that has missing values, a column with 150 towns and a column with three
    colors."""
    rng = np.random.default_rng(1)
    x, town, color = rng.normal(size=rows), rng.integers(150, size=rows), rng.integers(3, size=rows)
    effect = rng.normal(size=150)[town]
    gaps = rng.random(rows) < 0.2
    return {
        "x": [None if gap else value for gap, value in zip(gaps, x.tolist(), strict=True)],
        "town": [f"town {number}" for number in town],
        "color": [("red", "green", "blue")[number] for number in color],
        "y": np.where(x + effect + rng.logistic(size=rows) > 0, "yes", "no").tolist(),
    }


def fit_bag(name: str, task: Any, table: Table, target: str) -> tuple[TrialResult, Bag]:
    options = TrainingOptions(target=target, name="loans", folds=3)
    problem = build_problem(table, options)
    setting = fit_setting(task, len(problem.training), preset="balanced", bags=3)
    metric = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}[task]
    validator = CrossValidator(problem, setting, metric, *make_folds(problem, options))
    params = CANDIDATES[name].starts(setting)[0]
    trial = validator.run(CANDIDATES[name], params, lambda index, mean, seconds: None)
    assert trial.is_bagged
    assert len(trial.estimators) == 3
    return trial, cross_validation.bag(problem, trial, Calibration(task))


@pytest.mark.parametrize("name", ["boosting", "forest"])
@pytest.mark.parametrize(
    ("task", "table", "target"),
    [
        ("binary", table_from_memory(towns(), "towns"), "y"),
        ("multiclass", table_from_memory(examples.iris(), "iris"), "species"),
        ("regression", LOANS, "loan_amount"),
    ],
)
def test_the_sums_of_a_bag_are_the_averages_of_the_sums_of_its_estimators(
    name: str, task: Any, table: Table, target: str
) -> None:
    trial, bag = fit_bag(name, task, table, target)
    problem = build_problem(table, TrainingOptions(target=target, name="loans"))
    matrix = bag.features.transform(problem.holdout.numbers, problem.holdout.texts)

    alone = [estimator.sums(matrix) for estimator in trial.estimators]
    together = sum(estimator.sums(matrix) for estimator in bag.estimators)

    assert together == pytest.approx(np.mean(alone, axis=0), rel=1e-4, abs=1e-4 * np.abs(alone).max())
    assert bag.size.trees == sum(estimator.size.trees for estimator in bag.estimators)
    assert len(bag.params["rounds"]) == bag.params["folds"] == 3


@pytest.mark.parametrize("candidates", [("boosting",), ("forest", "extra"), ("logistic", "boosting", "forest")])
def test_a_bag_is_one_table_of_trees_with_one_string_lookup(tmp_path: Path, candidates: tuple[str, ...]) -> None:
    result = train_model(tmp_path, towns(), candidates=candidates, preset="balanced", trials=4)

    opened = bundle.open(Path(result.path))
    operators = [node.op_type for node in onnx.load_model_from_string(opened.model).graph.node]
    params = opened.manifest.training.params
    members = params.get("members", [{"params": params}])
    assert operators.count("TreeEnsembleRegressor") == sum("folds" in member["params"] for member in members) > 0
    assert operators.count("LabelEncoder") <= 2  # trees and linear models have different levels
    assert result.parity.label_flips == 0
    assert result.row_microseconds > 0


def test_a_refitted_bag_is_fitted_to_the_folds_of_all_rows(tmp_path: Path) -> None:
    measured, refitted = (
        train_model(tmp_path, LOANS, "loan_status", candidates=("boosting",), preset="balanced", trials=1, refit=refit)
        for refit in (False, True)
    )

    assert refitted.holdout == measured.holdout
    assert refitted.digest != measured.digest
    params = bundle.open(Path(refitted.path)).manifest.training.params
    assert params["folds"] == 8
    assert len(params["rounds"]) == 8


def test_a_refit_does_not_stop_at_the_time_limit_of_the_search() -> None:
    trial, _ = fit_bag("boosting", "binary", table_from_memory(towns(), "towns"), "y")
    options = TrainingOptions(target="y", name="loans", folds=3)
    problem = build_problem(table_from_memory(towns(), "towns"), options)
    setting = fit_setting("binary", len(problem.training), out_of_time=True, preset="balanced", bags=3)

    again = cross_validation.refit_bag(problem, trial, setting, options, "roc_auc")

    assert all(estimator.params["rounds"] > 1 for estimator in again.estimators)
    assert again.score == trial.score


def test_models_are_not_averaged_if_the_table_is_split_by_time(tmp_path: Path) -> None:
    columns = {**towns(), "day": list(range(600))}

    result = train_model(tmp_path, columns, candidates=("boosting",), preset="balanced", trials=1, time="day")

    assert "folds" not in bundle.open(Path(result.path)).manifest.training.params
