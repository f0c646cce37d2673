"""The small bag of networks: what it learns, that it repeats itself, and that the graph repeats it."""

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
from rowcast.training.onnx_graph import FLOAT, GraphBuilder, tensor

torch = pytest.importorskip("torch")  # an extra; in CI a skipped test is a failed one

KIND = CANDIDATES["mlp"]
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
    return Setting(task, 4 if task == "multiclass" else 1, len(MATRIX), seed, 1, lambda: out_of_time)


def fitted(task: Any, rounds: int = 8, *, seed: int = 0, target: Any = None, weight: Any = None) -> Network:
    chosen = setting(task, seed=seed)
    rows = LabelledMatrix(MATRIX, TARGETS[task] if target is None else target, weight)
    found = KIND.fit(rows, {**KIND.starts(chosen)[0], "rounds": rounds}, chosen)
    assert isinstance(found, Network)
    return found


def graph_of(network: Network, width: int) -> Graph:
    graph = GraphBuilder()
    graph.node("Identity", network.emit(graph, "X"), output="raw")
    model = graph.model([tensor("X", FLOAT, "N", 5)], tensor("raw", FLOAT, "N", width))
    return open_graph(model, "raw")


def test_it_learns_what_no_line_parts() -> None:
    rows, held = (
        LabelledMatrix(MATRIX[:300], TARGETS["binary"][:300]),
        LabelledMatrix(MATRIX[300:], TARGETS["binary"][300:]),
    )
    right = {}
    for name in ("logistic", "mlp"):
        kind, chosen = CANDIDATES[name], setting("binary")
        raw = kind.fit(rows, kind.starts(chosen)[0], chosen, held).raw(held.matrix)
        right[name] = np.mean((raw[:, 0] > 0) == held.target)

    assert right["logistic"] < 0.65
    assert right["mlp"] > 0.85


@pytest.mark.parametrize("task", sorted(TARGETS))
def test_the_graph_repeats_torch_and_a_row_alone_is_a_row_among_many(task: Any) -> None:
    network = fitted(task)
    width = setting(task).width
    far = np.concatenate([MATRIX, MATRIX * 1e3, np.full((1, 5), 25, np.float32), np.full((1, 5), -25, np.float32)])

    graph, raw = graph_of(network, width), network.raw(far)
    answers = graph.run({"X": far})

    assert answers == pytest.approx(raw, rel=2e-7, abs=2e-7)
    for count in (1, 2, 3, 7, 64, 257):
        assert graph.run({"X": far[:count]}).tobytes() == answers[:count].tobytes()
    alone = [network.raw(far[place : place + 1]) for place in range(0, 800, 100)]
    assert np.concatenate(alone) == pytest.approx(raw[:800:100], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("depth", [1, 3])
def test_every_depth_is_written_as_it_was_learnt(depth: int) -> None:
    chosen = setting("regression")
    params = {**KIND.starts(chosen)[0], "depth": depth, "bins": 1, "dropout": 0.0, "rounds": 2}

    network = KIND.fit(LabelledMatrix(MATRIX, TARGETS["regression"]), params, chosen)
    assert isinstance(network, Network)

    assert graph_of(network, 1).run({"X": MATRIX}) == pytest.approx(network.raw(MATRIX), rel=2e-7)


def test_the_same_seed_gives_the_same_weights_and_another_seed_does_not() -> None:
    before = torch.get_rng_state()

    first, again, other = fitted("binary"), fitted("binary"), fitted("binary", seed=1)

    assert first.raw(MATRIX).tobytes() == again.raw(MATRIX).tobytes()
    assert first.raw(MATRIX).tobytes() != other.raw(MATRIX).tobytes()
    assert torch.equal(before, torch.get_rng_state())


def test_threads_and_strictness_of_torch_are_given_back() -> None:
    threads = torch.get_num_threads()

    fitted("binary", 1)

    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, False)


def test_values_are_learnt_whatever_their_size() -> None:
    values = TARGETS["regression"]

    left = values - fitted("regression", 40).raw(MATRIX)[:, 0]

    assert np.var(left) < 0.2 * np.var(values)


@pytest.mark.parametrize("task", ["binary", "multiclass"])
def test_a_class_that_the_fold_lacks_is_scored_low(task: Any) -> None:
    some = np.minimum(TARGETS[task], 1) if task == "multiclass" else np.zeros(len(MATRIX), np.int64)

    raw = fitted(task, 10, target=some).raw(MATRIX)

    assert np.isfinite(raw).all()
    if task == "multiclass":
        assert raw[:, 2:].max() < raw[:, :2].max(axis=1).min()
    else:
        assert raw.max() < 0


def test_a_column_that_never_varied_changes_nothing_when_it_does() -> None:
    moved = MATRIX.copy()
    moved[:, 4] = 25.0
    network = fitted("binary", 1)

    assert network.raw(moved).tobytes() == network.raw(MATRIX).tobytes()


def test_a_table_of_constants_is_learnt_as_its_shares() -> None:
    chosen = setting("binary")
    rows = LabelledMatrix(np.ones((200, 2), np.float32), (np.arange(200) % 4 == 0).astype(np.int64))

    raw = KIND.fit(rows, {**KIND.starts(chosen)[0], "rounds": 150}, chosen).raw(rows.matrix)

    assert raw == pytest.approx(np.full((200, 1), np.log(1 / 3)), abs=0.3)


def test_neighbouring_numbers_may_part_the_rows() -> None:
    side = RNG.integers(2, size=400)
    low = np.float32(1e-45)
    matrix = np.where(side, low, np.float32(0))[:, None].astype(np.float32)
    chosen = setting("binary")

    raw = KIND.fit(LabelledMatrix(matrix, side), {**KIND.starts(chosen)[0], "rounds": 20}, chosen).raw(matrix)

    assert ((raw[:, 0] > 0) == side).all()


def test_heavy_rows_count_more() -> None:
    label = np.arange(len(MATRIX)) % 2
    weight = np.where(label == 1, 1.8, 0.2)

    plain, heavy = (fitted("binary", 10, target=label, weight=each).raw(MATRIX) for each in (None, weight))

    assert heavy.mean() > plain.mean() + 1


def test_it_stops_early_and_when_time_is_out() -> None:
    noise = RNG.integers(2, size=len(MATRIX))
    rows, held = LabelledMatrix(MATRIX[:200], noise[:200]), LabelledMatrix(MATRIX[200:], noise[200:])

    patient = KIND.fit(rows, KIND.starts(setting("binary"))[0], setting("binary"), held)
    hurried = KIND.fit(rows, KIND.starts(setting("binary"))[0], setting("binary", out_of_time=True), held)

    assert patient.params["rounds"] < 100
    assert hurried.params["rounds"] == 1


def test_every_column_is_a_chain_of_intervals() -> None:
    encoding = fitted("binary", 1).encoding

    for column in range(4):
        mine = encoding.columns[1:] == column
        ends = encoding.low[1:][mine] + 1 / encoding.inverse[1:][mine]
        assert all(
            end == pytest.approx(low) for end, (_, low) in zip(ends, pairwise(encoding.low[1:][mine]), strict=False)
        )
        assert (encoding.low[1:][mine][0], ends[-1]) == pytest.approx(
            (MATRIX[:, column].min(), MATRIX[:, column].max())
        )
