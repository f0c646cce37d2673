"""The choice between a single model and an average of models."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from rowcast.registry import bundle
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Table
from rowcast.training import ensemble
from rowcast.training.cross_validation import TrialResult
from rowcast.training.ensemble import FoldScorer
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.presets import PRESETS, Size
from rowcast.training.problem import LearningProblem
from rowcast.training.search import SearchResult
from support.training import learning_problem, train_model

pytestmark = pytest.mark.usefixtures("small_models")


def linear_and_stepwise() -> Table:
    """Return a table whose target depends equally on the sum of six columns and on the parity of two other columns."""
    rng = np.random.default_rng(5)
    linear, steps = rng.normal(size=(6, 900)), rng.integers(0, 2, size=(2, 900))
    signal = linear.sum(axis=0) + 3 * (steps[0] ^ steps[1]) - 1.5 + rng.logistic(size=900) * 0.5
    numbers = {f"n{index}": each.tolist() for index, each in enumerate([*linear, *(steps + 0.5)])}
    return table_from_memory({**numbers, "y": (signal > 0).tolist()})


def test_an_average_of_models_is_published_as_one_graph_if_it_has_the_best_score(tmp_path: Path) -> None:
    candidates = ("logistic", "forest")
    result, again = (
        train_model(tmp_path, linear_and_stepwise(), candidates=candidates, preset="balanced") for _ in range(2)
    )

    first, *others = result.candidates
    opened = bundle.open(Path(result.path))
    graph = onnx.load_model_from_string(opened.model).graph
    assert first.name == opened.manifest.training.candidate == "ensemble"
    assert set(first.members) == {each.name for each in others} == set(candidates)
    assert sum(first.members.values()) == pytest.approx(1)
    assert result.score == first.score > max(each.score for each in others)
    weights = Counter[str]()
    for member in opened.manifest.training.params["members"]:
        weights[member["candidate"]] += member["weight"]
    assert dict(weights) == pytest.approx(first.members)
    assert [node.op_type for node in graph.node].count("IsNaN") <= 1
    assert result.digest == again.digest


def search_result(
    metric: str, shares: Sequence[float], *, second_error: float = -1.0
) -> tuple[SearchResult, LearningProblem]:
    """Return the out-of-fold predictions of two regression models with four folds of 250 rows.

    In every row, the error of the first model is 1. `shares` contains a fraction for each fold: in this fraction of the
    fold's rows, the error of the second model is `second_error`; in the other rows, it is 1.
    """
    rng = np.random.default_rng(0)
    columns = {"x": rng.normal(size=1250).tolist(), "y": np.round(rng.normal(size=1250) * 3, 3).tolist()}
    problem = learning_problem(columns)
    rows = problem.training
    folds = tuple(np.array_split(np.arange(len(rows)), 4))
    changed = np.concatenate([np.arange(len(fold)) < share * 250 for fold, share in zip(folds, shares, strict=True)])
    first, second = np.ones(len(rows)), np.where(changed, second_error, 1.0)
    best = abs(FoldScorer(metric, "regression", rows.target, None, folds).mean(rows.target + first))
    trials = tuple(
        TrialResult(CANDIDATES[name], {}, best, (rows.target + error)[:, None])
        for name, error in (("ridge", first), ("tree", second))
    )
    return SearchResult(trials, (), rows, folds), problem


@pytest.mark.parametrize("metric", ["rmse", "mae", "r2"])
@pytest.mark.parametrize(("shares", "members"), [((0.0,) * 4, 1), ((0.008,) * 4, 2), ((0.064, 0, 0, 0), 2)])
def test_an_average_is_chosen_only_if_its_score_is_better(metric: str, shares: Sequence[float], members: int) -> None:
    result, problem = search_result(metric, shares)

    choice = ensemble.choose(result, problem, metric, PRESETS["balanced"])

    assert len(choice.members) == members
    if members == 1:
        assert choice.score == result.best.score
    elif metric == "r2":
        assert result.best.score < choice.score < 1
    else:
        assert 0 < choice.score < result.best.score


def test_the_fast_preset_always_chooses_a_single_model() -> None:
    result, problem = search_result("rmse", (0.5,) * 4)

    choice = ensemble.choose(result, problem, "rmse", PRESETS["fast"])

    assert choice.weights == {"ridge": 1.0}
    assert choice.score == result.best.score


@pytest.mark.parametrize(
    ("first", "second", "members"),
    [
        (Size(100, 6_000), Size(100, 6_000), {"ridge", "tree"}),
        (Size(500, 30_000), Size(900, 54_000), {"ridge"}),  # both fit alone, but not together
        (Size(5, 400_000), Size(5, 200_000), {"ridge"}),
        (Size(100_000, 6_000_000), Size(100, 6_000), {"tree"}),  # only the second model is allowed
        (Size(100_000, 6_000_000), Size(90_000, 5_400_000), {"tree"}),  # the model with the lowest cost
    ],
)
def test_a_preset_bounds_the_cost_and_the_nodes_of_all_members(first: Size, second: Size, members: set[str]) -> None:
    result, problem = search_result("rmse", (0.5,) * 4)
    sized = [replace(trial, size=size) for trial, size in zip(result.trials, (first, second), strict=True)]

    choice = ensemble.choose(replace(result, trials=tuple(sized)), problem, "rmse", PRESETS["balanced"])

    assert set(choice.weights) == members


def test_models_added_after_the_best_average_are_dropped() -> None:
    result, problem = search_result("rmse", (0.4,) * 4, second_error=-2.0)  # errors cancel out at two to one

    choice = ensemble.choose(result, problem, "rmse", PRESETS["balanced"])

    assert choice.weights == {"ridge": pytest.approx(2 / 3), "tree": pytest.approx(1 / 3)}


def test_a_single_model_is_preferred_if_an_average_of_models_is_not_better(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=600)
    columns = {"x": x.tolist(), "y": (x + np.random.default_rng(1).logistic(size=600) > 0).tolist()}

    result = train_model(tmp_path, columns, candidates=("logistic", "ridge"), preset="balanced")

    assert [each.members for each in result.candidates] == [{}, {}]
