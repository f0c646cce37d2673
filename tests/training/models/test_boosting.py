"""Boosted trees: LightGBM and the graph agree, and training stops early."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import lightgbm
import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.training.models.boosting import BoostedTrees
from rowcast.training.models.candidate import LabelledMatrix
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.onnx_graph import FLOAT, GraphBuilder, Matrix, tensor
from support.training import fit_setting

RNG = np.random.default_rng(7)
CANDIDATE = CANDIDATES["boosting"]


def fit(task: Any, matrix: Any, target: Any, *, out_of_time: bool = False, validated: bool = False) -> BoostedTrees:
    setting, rows = fit_setting(task, len(matrix), out_of_time=out_of_time), LabelledMatrix(matrix, target)
    model = CANDIDATE.fit(rows, CANDIDATE.starts(setting)[0], setting, rows if validated else None)
    assert isinstance(model, BoostedTrees)
    return model


def run_graph(model: BoostedTrees, matrix: Any) -> Any:
    graph = GraphBuilder()
    graph.node("Identity", model.emit(graph, Matrix("X")), output="raw")
    content = graph.model([tensor("X", FLOAT, "N", matrix.shape[1])], tensor("raw", FLOAT, "N", model.width))
    return open_graph(content, "raw").run({"X": matrix})


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_the_graph_agrees_with_lightgbm(task: Any) -> None:
    matrix = RNG.normal(size=(500, 4)).astype(np.float32)
    signal = matrix[:, 0] + RNG.normal(size=500) * 0.3
    target = {"binary": signal > 1, "multiclass": np.digitize(signal, [-1, 1]), "regression": signal}[task] * 1

    model = fit(task, matrix, target)

    assert run_graph(model, matrix) == pytest.approx(model.raw(matrix), rel=1e-5, abs=1e-5)


def test_the_graph_and_lightgbm_both_treat_numbers_near_zero_as_zero() -> None:
    numbers = np.array([-1.0, -1e-34, -1e-35, -1e-36, 0.0, 1e-36, 1e-35, 1e-34, 1.0], np.float32)
    matrix = np.repeat(numbers, 60)[:, None]

    model = fit("regression", matrix, np.repeat([-5.0, -5, -5, 0, 0, 0, 5, 5, 5], 60))

    assert run_graph(model, numbers[:, None]) == pytest.approx(model.raw(numbers[:, None]), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("threshold", ["0", "-0", "5e-36", "-5e-36", "1e-35", "-1e-35", "1e-34", "-1e-34"])
def test_the_graph_and_lightgbm_agree_on_a_threshold_near_zero(threshold: str) -> None:
    numbers = np.array([-1.0, -1e-34, -1e-35, -1e-36, -0.0, 0.0, 1e-36, 1e-35, 1e-34, 1.0], np.float32)[:, None]
    model = fit("regression", np.repeat(numbers[[0, -1]], 60, axis=0), np.repeat([-5.0, 5.0], 60))
    text = re.sub(r"^threshold=.*$", f"threshold={threshold}", model.booster.model_to_string(), flags=re.MULTILINE)
    text = re.sub(r"^tree_sizes=.*\n", "", text, flags=re.MULTILINE)  # the sizes would no longer be correct
    edited = dataclasses.replace(model, booster=lightgbm.Booster(model_str=text))

    thresholds = [tree["tree_structure"]["threshold"] for tree in edited.booster.dump_model()["tree_info"]]
    assert thresholds == pytest.approx([float(threshold)] * len(thresholds), rel=1e-6, abs=0)
    assert run_graph(edited, numbers) == pytest.approx(edited.raw(numbers), rel=1e-5, abs=1e-5)


def test_training_stops_early_if_the_target_is_noise_or_the_time_limit_is_reached() -> None:
    matrix, noise = RNG.normal(size=(200, 2)).astype(np.float32), RNG.integers(2, size=200)
    setting = fit_setting("binary", 200)
    rows, valid = LabelledMatrix(matrix[:100], noise[:100]), LabelledMatrix(matrix[100:], noise[100:])

    early = CANDIDATE.fit(rows, CANDIDATE.starts(setting)[0], setting, valid)
    timed_out = fit("binary", matrix, noise, out_of_time=True, validated=True)

    assert early.params["rounds"] < 600
    assert timed_out.params["rounds"] == 1
