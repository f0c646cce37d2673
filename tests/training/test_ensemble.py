"""The choice between a single model and an average of models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from rowcast.registry import bundle
from rowcast.tables.read import table_from_memory
from rowcast.tables.table import Table
from support.training import train_model


def linear_and_stepwise() -> Table:
    """Return a table whose target depends equally on the sum of six columns and on the parity of two other columns."""
    rng = np.random.default_rng(5)
    linear, steps = rng.normal(size=(6, 900)), rng.integers(0, 2, size=(2, 900))
    signal = linear.sum(axis=0) + 3 * (steps[0] ^ steps[1]) - 1.5 + rng.logistic(size=900) * 0.5
    numbers = {f"n{index}": each.tolist() for index, each in enumerate([*linear, *(steps + 0.5)])}
    return table_from_memory({**numbers, "y": (signal > 0).tolist()})


def test_an_average_of_models_is_published_as_one_graph_if_it_has_the_best_score(tmp_path: Path) -> None:
    candidates = ("logistic", "forest")
    result, again = (train_model(tmp_path, linear_and_stepwise(), candidates=candidates) for _ in range(2))

    first, *others = result.candidates
    opened = bundle.open(Path(result.path))
    graph = onnx.load_model_from_string(opened.model).graph
    assert first.name == opened.manifest.training.candidate == "ensemble"
    assert set(first.members) == {each.name for each in others} == set(candidates)
    assert sum(first.members.values()) == pytest.approx(1)
    assert result.score == first.score > max(each.score for each in others)
    assert {each["candidate"]: each["weight"] for each in opened.manifest.training.params["members"]} == first.members
    assert [node.op_type for node in graph.node].count("IsNaN") <= 1
    assert result.digest == again.digest


def test_a_single_model_is_preferred_if_an_average_of_models_is_not_better(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=600)
    columns = {"x": x.tolist(), "y": (x + np.random.default_rng(1).logistic(size=600) > 0).tolist()}

    result = train_model(tmp_path, columns, candidates=("logistic", "ridge"))

    assert [each.members for each in result.candidates] == [{}, {}]
