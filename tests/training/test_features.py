"""Features: NumPy and the graph agree, and the target mean of a training row is computed from other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.schema.encoding import NUMBERS, TEXTS, own_plan
from rowcast.schema.expressions import parse_definitions
from rowcast.schema.schema import Column, Schema
from rowcast.training import features, split
from rowcast.training.derivation import Derivation, derivation_of
from rowcast.training.onnx_graph import FLOAT, STRING, GraphBuilder, Trees, tensor
from rowcast.training.split import SplitColumn
from support.trees import stump

RNG = np.random.default_rng(7)


def odd_rows(levels: tuple[int, ...]) -> tuple[Any, Any]:
    """Return 900 rows with missing values, extreme numbers and unseen strings; the first 600 are training rows."""
    numbers = (RNG.normal(size=(600, 4)) * [1, 1e6, 1e-6, 1e30]).astype(np.float32)
    numbers[:, :3][RNG.random((600, 3)) < 0.1] = np.nan
    columns = [np.array(["", *map(str, range(count))], object)[RNG.integers(count + 1, size=600)] for count in levels]
    odd = np.array([np.nan, -0.0, 1e38, -3.4e38, 1e-45, 2.0**53 + 1], np.float32)
    unseen = RNG.choice(np.array(["", "never", "1", "Ünï"], object), (300, len(levels)))
    return np.concatenate([numbers, RNG.choice(odd, (300, 4))]), np.concatenate([np.stack(columns, axis=1), unseen])


def ratio() -> Derivation:
    """Return derived columns with a zero divisor and with the logarithm of a column that has negative values."""
    schema = Schema(tuple(Column(name=name, kind="number") for name in "abcd"))
    definitions = ["ratio = a / (b > 0)", "size = log(c)", "both = ratio + size"]
    schema = Schema(schema.columns, parse_definitions(definitions, schema, {}))
    return derivation_of(schema, own_plan(schema))


RATIO = ratio()
LEVELS = [(5,), (5, 7), (200, 200, 5), (40, 2, 2)]
"""The number of levels in each text column. The cases are: one column, two similar columns, columns with so many levels
that they are replaced with target means, and columns of very different sizes."""


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("derivation", [Derivation(), RATIO], ids=["raw", "derived"])
def test_numpy_and_the_graph_compute_identical_features(levels: tuple[int, ...], derivation: Derivation) -> None:
    numbers, texts = odd_rows(levels)
    target = RNG.random((600, 1))
    transformation, _ = features.fit(numbers[:600], texts[:600], target, style="linear", derivation=derivation)
    expected = transformation.transform(numbers, texts)
    graph = GraphBuilder()
    graph.node("Identity", transformation.emit(graph, NUMBERS, TEXTS).name, output="X")
    inputs = [tensor(NUMBERS, FLOAT, "N", 4), tensor(TEXTS, STRING, "N", len(levels))]

    model = open_graph(graph.model(inputs, tensor("X", FLOAT, "N", expected.shape[1])), "X")

    assert np.isfinite(expected).all()
    assert model.run({NUMBERS: numbers, TEXTS: texts}).tobytes() == expected.tobytes()


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("derivation", [Derivation(), RATIO], ids=["raw", "derived"])
def test_trees_in_the_graph_read_the_same_features_as_in_numpy(levels: tuple[int, ...], derivation: Derivation) -> None:
    numbers, texts = odd_rows(levels)
    target = RNG.random((600, 1))
    transformation, _ = features.fit(numbers[:600], texts[:600], target, style="trees", derivation=derivation)
    matrix = transformation.transform(numbers, texts)
    trees, expected = Trees(1), np.zeros(len(matrix), np.float32)
    splits = [(feature, value) for feature in range(matrix.shape[1]) for value in np.unique(matrix[:, feature])[:-1]]
    splits += [(feature, value) for feature in range(matrix.shape[1]) for value in (-1.0, 0.5, 2.0)]
    for tree, (feature, value) in enumerate(splits):  # all sums of these weights are exact
        weight = 2.0 ** (tree % 13)
        trees.add(stump(feature, value, weight, 0.0))
        expected += weight * (matrix[:, feature] <= value)
    graph = GraphBuilder()
    raw = trees.emit(graph, transformation.emit(graph, NUMBERS, TEXTS))
    graph.node("Identity", raw, output="raw")
    inputs = [tensor(NUMBERS, FLOAT, "N", 4), tensor(TEXTS, STRING, "N", len(levels))]

    model = open_graph(graph.model(inputs, tensor("raw", FLOAT, "N", 1)), "raw")

    assert len(transformation.flagged) == 3 + len(derivation.columns)
    assert model.run({NUMBERS: numbers, TEXTS: texts})[:, 0].tobytes() == expected.tobytes()


def test_a_missing_derived_value_is_filled_and_flagged_like_a_missing_raw_value() -> None:
    numbers = np.array([[6, 2, 1, 1], [6, 0, 1, 1], [9, 3, 1, 1], [np.nan, 3, 1, 1]], np.float32)
    derivation = ratio()

    transformation, matrix = features.fit(
        numbers, np.empty((4, 0), object), np.zeros((4, 1)), style="trees", derivation=derivation
    )

    assert transformation.flagged.tolist() == [0, 4, 6]
    assert matrix[:, 4].tolist() == [6, 6, 9, 6]
    assert matrix[:, 8].tolist() == [0, 1, 0, 1]


def test_rare_and_unseen_levels_have_no_column_and_missing_values_have_their_own_column() -> None:
    texts = np.array([["a"]] * 5 + [["b"]] * 4 + [["rare"]] + [[""]] * 3, object)
    numbers = np.empty((len(texts), 0), np.float32)

    transformation, _ = features.fit(numbers, texts, np.zeros((len(texts), 1)), style="trees")
    cells = np.array([["a"], ["b"], [""], ["rare"], ["unseen"]], object)

    assert transformation.transform(numbers[:5], cells).tolist() == [
        [1, 0, 0],
        [0, 1, 0],
        [0, 0, 1],
        [0, 0, 0],
        [0, 0, 0],
    ]


def test_the_target_mean_of_a_training_row_is_computed_from_other_rows() -> None:
    rows = 2000
    texts = np.array([f"level {k}" for k in RNG.integers(400, size=rows)], object).reshape(-1, 1)
    target = RNG.integers(2, size=(rows, 1)).astype(float)

    _, matrix = features.fit(np.empty((rows, 0), np.float32), texts, target, style="trees")

    # If a row's own target were included, the correlation would reach 0.4.
    assert abs(np.corrcoef(matrix[:, 0], target[:, 0])[0, 1]) < 0.1


def texts(levels: Any) -> Any:
    return np.array([f"level {level}" for level in levels], object).reshape(-1, 1)


def target_means(levels: Any, target: Any, column: SplitColumn | None) -> Any:
    numbers = np.empty((len(levels), 0), np.float32)
    inner = split.make_inner_folds(column)
    return features.fit(numbers, texts(levels), target[:, None], style="trees", inner=inner)[1][:, 0]


def test_the_target_mean_of_a_training_row_never_uses_rows_of_its_own_group() -> None:
    rng = np.random.default_rng(0)
    levels = np.arange(400) // 4  # each level occurs in only one group, so rows in other groups never have this level
    target = rng.normal(size=400)

    grouped = target_means(levels, target, SplitColumn("group", "customer", levels))

    assert not grouped.any()
    assert target_means(levels, target, None).any()


def test_target_means_in_a_time_split_use_only_earlier_rows() -> None:
    rng = np.random.default_rng(0)
    levels, times, target = rng.integers(80, size=600), rng.permutation(600), rng.normal(size=600)
    late = np.flatnonzero(times >= 300)
    other = target.copy()
    other[late] = target[rng.permutation(late)]

    before, after = (target_means(levels, each, SplitColumn("time", "day", times)) for each in (target, other))

    assert before[times < 300] == pytest.approx(after[times < 300], abs=1e-6)
    assert not before[times < 60].any()
    assert before[times >= 60].any()
    assert np.abs(before - after).max() > 0.01


def test_weighting_rows_gives_the_same_target_means_as_repeating_them() -> None:
    levels = texts(np.arange(2000) % 100)
    target = RNG.integers(2, size=(2000, 1)).astype(float)
    weight = RNG.integers(1, 4, 2000)
    numbers = np.empty((2000, 0), np.float32)

    def means(transformation: features.Features) -> Any:
        block = transformation.blocks[0]
        return dict(zip(block.levels, block.table[:, 0].tolist(), strict=False))

    weighted, _ = features.fit(numbers, levels, target, style="trees", weight=weight.astype(float))
    rows = [np.repeat(array, weight, axis=0) for array in (numbers, levels, target)]
    repeated, _ = features.fit(*rows, style="trees")

    assert means(weighted) == pytest.approx(means(repeated), abs=0.01)
