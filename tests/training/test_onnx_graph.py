"""The graph builder and the table of trees."""

from __future__ import annotations

import numpy as np

from rowcast.training.onnx_graph import GraphBuilder, Trees, floor32
from support.trees import stump

RNG = np.random.default_rng(7)


def test_floor32_keeps_every_float32_on_the_same_side_of_a_threshold() -> None:
    thresholds = np.concatenate([RNG.normal(size=200), [1e300, -1e300, 1e-300, 0.1, 16777217.0]])

    for threshold in thresholds.tolist():
        nearest = np.float32(threshold) if abs(threshold) < 3e38 else np.float32(np.copysign(3e38, threshold))
        for x in (nearest, np.nextafter(nearest, np.float32(np.inf)), np.nextafter(nearest, np.float32(-np.inf))):
            assert (float(x) <= threshold) == bool(x <= floor32(threshold))


def test_thresholds_are_grouped_by_numeric_column() -> None:
    trees = Trees(1)
    trees.add(stump(3, 0.5, 1.0, -1.0))
    trees.add(stump(3, 0.1, 1.0, -1.0))

    assert {key: values.tolist() for key, values in trees.thresholds().items()} == {3: [floor32(0.1), 0.5]}


def test_identical_nodes_and_constants_are_added_only_once() -> None:
    graph = GraphBuilder()
    zero, again = graph.constant(np.zeros(1, np.float32)), graph.constant(np.zeros(1, np.float32))

    assert zero == again
    assert graph.node("Add", "X", zero) == graph.node("Add", "X", again) != graph.node("Sub", "X", zero)
