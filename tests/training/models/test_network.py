"""The network candidate: learning, determinism and agreement with the graph."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry.ports import Graph
from rowcast.training.models.candidate import LabelledMatrix, Setting
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.models.network import Network
from rowcast.training.onnx_graph import FLOAT, GraphBuilder, Matrix, tensor
from rowcast.training.presets import PRESETS

torch = pytest.importorskip("torch")  # PyTorch is an optional extra; CI treats skipped tests as failures

CANDIDATE = CANDIDATES["mlp"]
RNG = np.random.default_rng(5)
MATRIX = RNG.normal(size=(400, 5)).astype(np.float32)
MATRIX[:, 3] = MATRIX[:, 3] > 0
MATRIX[:, 4] = 0.5
TARGETS: dict[str, Any] = {
    "binary": (MATRIX[:, 0] * MATRIX[:, 1] > 0).astype(np.int64),
    "multiclass": np.digitize(MATRIX[:, 0] + MATRIX[:, 3], [-0.5, 0.5, 1.5]),
    "regression": 1e6 + 1e4 * np.abs(MATRIX[:, 0]),
}


def setting(task: Any, *, seed: int = 0, out_of_time: bool = False) -> Setting:
    return Setting(task, 4 if task == "multiclass" else 1, len(MATRIX), seed, 1, lambda: out_of_time, PRESETS["fast"])


def fit(task: Any, rounds: int = 8, *, seed: int = 0, target: Any = None, weight: Any = None) -> Network:
    fit_setting = setting(task, seed=seed)
    rows = LabelledMatrix(MATRIX, TARGETS[task] if target is None else target, weight)
    network = CANDIDATE.fit(rows, {**CANDIDATE.starts(fit_setting)[0], "rounds": rounds}, fit_setting)
    assert isinstance(network, Network)
    return network


def graph_of(network: Network, width: int) -> Graph:
    graph = GraphBuilder()
    graph.node("Identity", network.emit(graph, Matrix("X")), output="raw")
    model = graph.model([tensor("X", FLOAT, "N", 5)], tensor("raw", FLOAT, "N", width))
    return open_graph(model, "raw")


def test_the_network_learns_a_pattern_that_no_linear_model_can_learn() -> None:
    rows, valid = (
        LabelledMatrix(MATRIX[:300], TARGETS["binary"][:300]),
        LabelledMatrix(MATRIX[300:], TARGETS["binary"][300:]),
    )
    accuracy = {}
    for name in ("logistic", "mlp"):
        candidate, fit_setting = CANDIDATES[name], setting("binary")
        raw = candidate.fit(rows, candidate.starts(fit_setting)[0], fit_setting, valid).raw(valid.matrix)
        accuracy[name] = np.mean((raw[:, 0] > 0) == valid.target)

    assert accuracy["logistic"] < 0.65
    assert accuracy["mlp"] > 0.85


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_the_graph_agrees_with_torch_and_scores_do_not_depend_on_the_batch(task: Any) -> None:
    network = fit(task)
    width = setting(task).width
    extreme = np.concatenate([MATRIX, MATRIX * 1e3, np.full((1, 5), 25, np.float32), np.full((1, 5), -25, np.float32)])

    graph, raw = graph_of(network, width), network.raw(extreme)
    answers = graph.run({"X": extreme})

    assert answers == pytest.approx(raw, rel=2e-7, abs=2e-7)
    for count in (1, 2, 3, 7, 64, 257):
        assert graph.run({"X": extreme[:count]}).tobytes() == answers[:count].tobytes()
    single = [network.raw(extreme[place : place + 1]) for place in range(0, 800, 100)]
    assert np.concatenate(single) == pytest.approx(raw[:800:100], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
def test_the_graph_agrees_with_torch_at_every_depth(depth: int) -> None:
    fit_setting = setting("regression")
    params = {**CANDIDATE.starts(fit_setting)[0], "depth": depth, "bins": 1, "dropout": 0.0, "rounds": 2}

    network = CANDIDATE.fit(LabelledMatrix(MATRIX, TARGETS["regression"]), params, fit_setting)
    assert isinstance(network, Network)

    assert graph_of(network, 1).run({"X": MATRIX}) == pytest.approx(network.raw(MATRIX), rel=2e-7)


def test_the_same_seed_produces_the_same_weights_and_another_seed_produces_different_weights() -> None:
    before = torch.get_rng_state()

    first, again, other = fit("binary"), fit("binary"), fit("binary", seed=1)

    assert first.raw(MATRIX).tobytes() == again.raw(MATRIX).tobytes()
    assert first.raw(MATRIX).tobytes() != other.raw(MATRIX).tobytes()
    assert torch.equal(before, torch.get_rng_state())


def test_training_restores_the_global_torch_settings() -> None:
    threads = torch.get_num_threads()

    fit("binary", 1)

    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)


def test_a_regression_target_with_large_values_can_be_learned() -> None:
    values = TARGETS["regression"]

    residual = values - fit("regression", 40).raw(MATRIX)[:, 0]

    assert np.var(residual) < 0.2 * np.var(values)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_class_that_is_missing_from_the_training_rows_gets_low_scores(task: Any) -> None:
    target = np.minimum(TARGETS[task], 1) if task == "multiclass" else np.zeros(len(MATRIX), np.int64)

    raw = fit(task, 10, target=target).raw(MATRIX)

    assert np.isfinite(raw).all()
    if task == "multiclass":
        assert raw[:, 2:].max() < raw[:, :2].max(axis=1).min()
    else:
        assert raw.max() < 0


def test_a_column_that_is_constant_in_training_has_no_influence_on_scores() -> None:
    moved = MATRIX.copy()
    moved[:, 4] = 25.0
    network = fit("binary", 1)

    assert network.raw(moved).tobytes() == network.raw(MATRIX).tobytes()


def test_a_network_trained_on_constant_columns_predicts_the_class_frequencies() -> None:
    fit_setting = setting("binary")
    rows = LabelledMatrix(np.ones((200, 2), np.float32), (np.arange(200) % 4 == 0).astype(np.int64))

    raw = CANDIDATE.fit(rows, {**CANDIDATE.starts(fit_setting)[0], "rounds": 150}, fit_setting).raw(rows.matrix)

    assert raw == pytest.approx(np.full((200, 1), np.log(1 / 3)), abs=0.3)


def test_adjacent_float32_numbers_can_be_separated() -> None:
    side = RNG.integers(2, size=400)
    low = np.float32(1e-45)
    matrix = np.where(side, low, np.float32(0))[:, None].astype(np.float32)
    fit_setting = setting("binary")

    raw = CANDIDATE.fit(
        LabelledMatrix(matrix, side), {**CANDIDATE.starts(fit_setting)[0], "rounds": 20}, fit_setting
    ).raw(matrix)

    assert ((raw[:, 0] > 0) == side).all()


def test_rows_with_large_weights_have_more_influence_than_other_rows() -> None:
    label = np.arange(len(MATRIX)) % 2
    weight = np.where(label == 1, 1.8, 0.2)

    plain, heavy = (fit("binary", 10, target=label, weight=each).raw(MATRIX) for each in (None, weight))

    assert heavy.mean() > plain.mean() + 1


def test_training_stops_early_if_the_target_is_noise_or_the_time_limit_is_reached() -> None:
    noise = RNG.integers(2, size=len(MATRIX))
    rows, valid = LabelledMatrix(MATRIX[:200], noise[:200]), LabelledMatrix(MATRIX[200:], noise[200:])

    early = CANDIDATE.fit(rows, CANDIDATE.starts(setting("binary"))[0], setting("binary"), valid)
    timed_out = CANDIDATE.fit(rows, CANDIDATE.starts(setting("binary"))[0], setting("binary", out_of_time=True), valid)

    assert early.params["rounds"] < 100
    assert timed_out.params["rounds"] == 1


def test_the_intervals_of_a_column_are_contiguous() -> None:
    encoding = fit("binary", 1).encoding

    for column in range(4):
        mine = encoding.columns[1:] == column
        ends = encoding.low[1:][mine] + 1 / encoding.inverse[1:][mine]
        assert all(
            end == pytest.approx(low) for end, (_, low) in zip(ends, pairwise(encoding.low[1:][mine]), strict=False)
        )
        assert (encoding.low[1:][mine][0], ends[-1]) == pytest.approx(
            (MATRIX[:, column].min(), MATRIX[:, column].max())
        )
