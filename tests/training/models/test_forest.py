"""Forests: agreement with the graph, and behavior at the time limit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.training.models.candidate import LabelledMatrix
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.models.forest import Grove
from rowcast.training.onnx_graph import FLOAT, GraphBuilder, Matrix, tensor
from support.training import fit_setting

RNG = np.random.default_rng(7)


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("name", ["forest", "extra"])
def test_the_graph_agrees_with_the_forest(task: Any, name: str) -> None:
    matrix = RNG.normal(size=(500, 4)).astype(np.float32)
    signal = matrix[:, 0] + RNG.normal(size=500) * 0.3
    target = {"binary": signal > 1, "multiclass": np.digitize(signal, [-1, 1]), "regression": np.exp(signal * 6)}[task]
    candidate, setting = CANDIDATES[name], fit_setting(task, 500)

    forest = candidate.fit(LabelledMatrix(matrix, target * 1), candidate.starts(setting)[0], setting)
    graph = GraphBuilder()
    graph.node("Identity", forest.emit(graph, Matrix("X")), output="raw")
    model = open_graph(graph.model([tensor("X", FLOAT, "N", 4)], tensor("raw", FLOAT, "N", setting.width)), "raw")

    assert model.run({"X": matrix}) == pytest.approx(forest.raw(matrix), rel=3e-7, abs=1e-7)


@pytest.mark.parametrize("name", ["tree", "forest", "extra"])
def test_a_forest_can_learn_from_cells_whose_sum_is_infinite(name: str) -> None:
    matrix = np.repeat(np.array([[3e38], [-3e38]], np.float32), 512, axis=0)
    candidate, setting = CANDIDATES[name], fit_setting("binary", 1024)

    model = candidate.fit(LabelledMatrix(matrix, (matrix[:, 0] > 0) * 1), candidate.starts(setting)[0], setting)

    low, high = model.raw(matrix[[-1, 0]]).ravel()
    assert low < 0 < high


def test_only_a_forest_with_validation_rows_stops_growing_at_the_time_limit() -> None:
    rows = LabelledMatrix(RNG.normal(size=(50, 2)).astype(np.float32), RNG.normal(size=50))
    candidate, setting = CANDIDATES["forest"], fit_setting("regression", 50, out_of_time=True)
    params = candidate.starts(setting)[0]

    validated, final = candidate.fit(rows, params, setting, rows), candidate.fit(rows, params, setting)

    assert isinstance(validated, Grove)
    assert isinstance(final, Grove)
    assert (len(validated.members), len(final.members)) == (5, 100)
    assert (validated.params["rounds"], final.params["rounds"]) == (5, 100)
