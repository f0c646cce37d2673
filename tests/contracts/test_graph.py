"""The contract of the ports `Graph` and `OpenGraph`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import CHUNK, SORTED_FROM, open_graph
from rowcast.errors import BundleError, GraphFailed
from rowcast.schema.encoding import NUMBERS
from support import models

GRAPHS = {
    "regressor": models.regressor_graph(7, 1),
    "regressor with classes": models.regressor_graph(7, 3),
    "linear": models.linear_graph(7, 1),
    "linear with classes": models.linear_graph(7, 4, seed=1),
    "wide": models.linear_graph(7, 300, seed=5),
    "mlp": models.mlp_graph(7, 3),
    "trees": models.trees_graph(7, 1),
    "trees with classes": models.trees_graph(7, 3),
}


@pytest.mark.parametrize("model", GRAPHS.values(), ids=GRAPHS)
def test_the_score_of_a_row_is_bit_identical_in_every_batch(model: bytes) -> None:
    graph = open_graph(model, "out")
    values = np.random.default_rng(0).normal(size=(2 * CHUNK + 3, 7)).astype(np.float32)
    alone = np.concatenate([graph.run({NUMBERS: values[row : row + 1]}) for row in range(len(values))])

    for count in range(1, len(values) + 1):
        together = graph.run({NUMBERS: values[:count]})
        assert together.tobytes() == alone[:count].tobytes(), f"{count} rows"


@pytest.mark.parametrize("count", [1, 2, CHUNK - 1, CHUNK, CHUNK + 1, CHUNK + 2, 2 * CHUNK, 2 * CHUNK + 1, 1000])
def test_every_row_is_scored_once_and_in_order(count: int) -> None:
    graph = open_graph(models.sum_graph(1), "out")
    values = np.arange(count, dtype=np.float32).reshape(-1, 1)

    assert graph.run({NUMBERS: values}).tolist() == values.tolist()


@pytest.mark.parametrize("name", ["regressor", "mlp", "trees", "trees with classes"])
@pytest.mark.parametrize("more", [0, 1, 2, CHUNK - 1])
def test_splitting_a_large_batch_does_not_change_the_scores_or_their_order(name: str, more: int) -> None:
    graph = open_graph(GRAPHS[name], "out")
    values = np.random.default_rng(1).normal(size=(SORTED_FROM + more, 7)).astype(np.float32)
    values[::3, 2] = np.nan
    values[:, 4] = 1.0

    few = [graph.run({NUMBERS: values[start : start + CHUNK]}) for start in range(0, len(values), CHUNK)]

    assert graph.run({NUMBERS: values}).tobytes() == np.concatenate(few).tobytes()


def test_nan_in_one_row_does_not_affect_other_rows() -> None:
    graph = open_graph(models.linear_graph(3, 2), "out")
    values = np.ones((5, 3), np.float32)
    values[2, 1] = np.nan

    output = graph.run({NUMBERS: values})

    assert np.isnan(output).all(axis=1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("model", [b"", b"not a graph", models.sum_graph(2)[:-20]], ids=["empty", "noise", "truncated"])
def test_invalid_graphs_are_rejected(model: bytes) -> None:
    with pytest.raises(BundleError):
        open_graph(model, "out")


def test_the_error_for_an_unknown_output_lists_the_outputs_of_the_graph() -> None:
    with pytest.raises(BundleError) as error:
        open_graph(models.sum_graph(2), "score")

    assert "'score'" in error.value.message
    assert "out" in error.value.message.split()


def test_weights_stored_outside_the_model_file_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    monkeypatch.chdir(tmp_path)
    model = onnx.load_from_string(models.linear_graph(50, 50))
    onnx.save(model, "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)

    with pytest.raises(BundleError):
        open_graph(Path("model.onnx").read_bytes(), "out")


def test_bytes_that_could_also_be_in_ort_format_are_read_as_onnx() -> None:
    producer_name = b"\x12\x06abORTM"
    graph = open_graph(producer_name + models.sum_graph(2), "out")

    assert graph.run({NUMBERS: np.ones((1, 2), np.float32)}).tolist() == [[2.0]]


@pytest.mark.parametrize("more", [-1, 1])
def test_an_error_is_raised_if_a_graph_returns_the_wrong_number_of_rows(more: int) -> None:
    graph = open_graph(models.miscounting_graph(at=5, more=more), "out")
    values = np.arange(6, dtype=np.float32).reshape(-1, 1)

    assert graph.run({NUMBERS: values}).tolist() == values.tolist()
    with pytest.raises(GraphFailed):
        graph.run({NUMBERS: values[:5]})
