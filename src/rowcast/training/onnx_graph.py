"""A small builder for ONNX graphs, and a table of trees that is exported as one TreeEnsembleRegressor.

Rowcast builds graphs itself instead of using converters (decision 0010). The parity certificate compares every graph
with the trained model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSETS: Final = {"": 21, "ai.onnx.ml": 3}
IR_VERSION: Final = 10
ML: Final = "ai.onnx.ml"


class GraphBuilder:
    """Collects nodes and constants in order, and merges duplicates. The same calls produce the same bytes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[object, ...] | bytes, str] = {}

    def constant(self, array: NDArray[Any]) -> str:
        """Add a constant tensor and return its name."""
        content = np.asarray(array, order="C")
        key = (content.dtype.str, content.shape, content.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self._constants)}"
            self._constants.append(numpy_helper.from_array(content, self._known[key]))
        return self._known[key]

    def node(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the name of the output."""
        node = helper.make_node(operator, list(inputs), [], domain=domain, **attributes)
        key = sha256(node.SerializeToString(deterministic=True)).digest()
        if key in self._known and not output:
            return self._known[key]
        self._known[key] = output or f"{operator.lower()}_{len(self._nodes)}"
        node.output.append(self._known[key])
        self._nodes.append(node)
        return self._known[key]

    def rename(self, name: str, output: str) -> None:
        """Rename a node's output from `name` to `output`. The node must be the most recently added one."""
        assert list(self._nodes[-1].output) == [name]
        self._nodes[-1].output[0] = output

    def model(self, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> bytes:
        """Check the model and serialize it."""
        graph = helper.make_graph(self._nodes, "rowcast", list(inputs), [output], self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="rowcast")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


@dataclass(frozen=True)
class MatrixFeature:
    """The position of a feature in a matrix that contains NaN for missing values and no flags."""

    position: int
    median: float | None = None
    """The replacement for a missing value; None if no value is missing."""
    is_flag: bool = False
    """Whether the feature is 1 if the value at the position is missing, and 0 otherwise."""


@dataclass(frozen=True)
class Matrix:
    """A feature matrix in a graph."""

    name: str
    features: Sequence[MatrixFeature] = ()
    """How trees read each feature; empty if the matrix contains the features themselves, without missing values."""


@dataclass(frozen=True)
class Tree:
    """A tree, stored as arrays with one item per node. The root is node 0, and a leaf has no children.

    Rows with `x <= threshold` go to the true child.
    """

    features: NDArray[Any]
    thresholds: NDArray[np.float32]
    true: NDArray[Any]
    """The index of the true child; negative for a leaf."""
    false: NDArray[Any]
    weights: NDArray[np.float64]
    """The weights [nodes, k] of each leaf. The weights of inner nodes have no effect."""
    target: int = 0
    """The index of the raw score to which the first column of the weights is added."""

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        return np.asarray(self.true < 0)


class Trees:
    """Additive trees with one raw score per target."""

    def __init__(self, targets: int, trees: Iterable[Tree] = ()) -> None:
        self.targets = targets
        self._trees = list(trees)

    def add(self, tree: Tree) -> None:
        """Add a tree, with its thresholds rounded down to float32.

        The rounding does not change the path of any float32 number.
        """
        self._trees.append(replace(tree, thresholds=floor32(tree.thresholds)))

    def __add__(self, other: Trees) -> Trees:
        return Trees(self.targets, [*self._trees, *other._trees])

    def thresholds(self) -> dict[int, NDArray[np.float32]]:
        """Return the distinct split thresholds of each feature."""
        splits = [~tree.is_leaf for tree in self._trees]
        features = np.concatenate([tree.features[at] for tree, at in zip(self._trees, splits, strict=True)])
        values = np.concatenate([tree.thresholds[at] for tree, at in zip(self._trees, splits, strict=True)])
        return {int(feature): np.unique(values[features == feature]) for feature in np.unique(features)}

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        """Add the trees to a graph and return the name of the raw scores [N, targets]."""
        sizes = [len(tree.true) for tree in self._trees]
        is_leaf = np.concatenate([tree.is_leaf for tree in self._trees])
        nodes: dict[str, NDArray[Any]] = {
            "treeids": np.repeat(np.arange(len(sizes)), sizes),
            "nodeids": np.concatenate([np.arange(size) for size in sizes]),
            "featureids": self._of_splits("features", is_leaf).astype(np.int64),
            "modes": np.where(is_leaf, "LEAF", "BRANCH_LEQ"),
            "values": self._of_splits("thresholds", is_leaf),
            "truenodeids": self._of_splits("true", is_leaf),
            "falsenodeids": self._of_splits("false", is_leaf),
        }
        if matrix.features:
            nodes |= _read_missing_values(nodes, is_leaf, matrix.features)
        table = {f"nodes_{key}": values.tolist() for key, values in nodes.items()} | self._leaves()
        return graph.node("TreeEnsembleRegressor", matrix.name, domain=ML, n_targets=self.targets, **table)

    def _of_splits(self, field: str, is_leaf: NDArray[np.bool_]) -> NDArray[Any]:
        """Return the values of a field for all nodes, with 0 for leaves."""
        return np.where(is_leaf, 0, np.concatenate([getattr(tree, field) for tree in self._trees]))

    def _leaves(self) -> dict[str, list[Any]]:
        parts = []
        for number, tree in enumerate(self._trees):
            nodes, width = np.flatnonzero(tree.is_leaf), tree.weights.shape[1]
            ids = np.tile(np.arange(tree.target, tree.target + width), len(nodes))
            weights = tree.weights[nodes].astype(np.float32).reshape(-1)
            parts.append((np.full(len(ids), number), np.repeat(nodes, width), ids, weights))
        keys = ("treeids", "nodeids", "ids", "weights")
        return {
            f"target_{key}": np.concatenate(arrays).tolist()
            for key, arrays in zip(keys, zip(*parts, strict=True), strict=True)
        }


def _read_missing_values(
    nodes: dict[str, NDArray[Any]], is_leaf: NDArray[np.bool_], features: Sequence[MatrixFeature]
) -> dict[str, NDArray[Any]]:
    """For each node, return the position of its feature, its threshold, and the branch that missing values take."""
    numbers, values = nodes["featureids"], nodes["values"]
    positions = np.array([feature.position for feature in features])[numbers]
    is_flag = np.array([feature.is_flag for feature in features])[numbers]
    # Without a replacement, no value is missing, and the direction has no effect.
    medians = np.array([np.inf if feature.median is None else feature.median for feature in features])[numbers]
    # All present values go where the flag 0 goes, and missing values go where the flag 1 goes.
    values = np.where(is_flag, np.where(values >= 0, np.inf, -np.inf), values)
    follows_true = np.where(is_flag, nodes["values"] >= 1, medians <= nodes["values"])
    return {
        "featureids": np.where(is_leaf, 0, positions),
        "values": np.where(is_leaf, 0.0, values),
        "missing_value_tracks_true": np.where(is_leaf, 0, follows_true).astype(np.int64),
    }


def floor32(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return the largest float32 <= value. For every float32 x, x <= value if and only if x <= floor32(value)."""
    values = np.asarray(values, np.float64)
    with np.errstate(over="ignore"):
        nearest = values.astype(np.float32)
    return np.where(nearest.astype(np.float64) > values, np.nextafter(nearest, np.float32(-np.inf)), nearest)


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    """Return the declaration of a graph input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


FLOAT: Final = TensorProto.FLOAT
DOUBLE: Final = TensorProto.DOUBLE
STRING: Final = TensorProto.STRING
