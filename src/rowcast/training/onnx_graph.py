"""A small builder for ONNX graphs, and a table of trees that is exported as one TreeEnsembleRegressor.

Rowcast builds graphs itself instead of using converters (decision 0010). The parity certificate compares every graph
with the trained model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
        """Rename the output `name`, which must belong to the most recently added node."""
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
    """How trees read each feature; empty if the matrix contains exactly the features, without missing values."""


class Trees:
    """Additive trees as flat lists, with one raw score per target. Rows with `x <= threshold` go to the true child."""

    def __init__(self, targets: int) -> None:
        self.targets = targets
        self._nodes: dict[str, list[Any]] = {
            key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
        }
        self._leaves: dict[str, list[Any]] = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}

    def split(self, tree: int, node: int, feature: int, threshold: float, true: int, false: int) -> None:
        """Add an inner node.

        Rounding the threshold down to float32 does not change the path of any float32 number.
        """
        self._node(tree, node, feature, "BRANCH_LEQ", float(floor32(threshold)), true, false)

    def leaf(self, tree: int, node: int, weights: dict[int, float]) -> None:
        """Add a leaf with a weight for each target."""
        self._node(tree, node, 0, "LEAF", 0.0, 0, 0)
        for target, weight in weights.items():
            for key, value in zip(self._leaves, (tree, node, target, float(np.float32(weight))), strict=True):
                self._leaves[key].append(value)

    def _node(self, *values: Any) -> None:
        for key, value in zip(self._nodes, values, strict=True):
            self._nodes[key].append(value)

    def thresholds(self) -> dict[int, NDArray[np.float32]]:
        """Return the distinct split thresholds of each feature."""
        thresholds: dict[int, set[float]] = {}
        nodes = self._nodes
        for feature, mode, value in zip(nodes["featureids"], nodes["modes"], nodes["values"], strict=True):
            if mode != "LEAF":
                thresholds.setdefault(feature, set()).add(value)
        return {feature: np.array(sorted(values), np.float32) for feature, values in sorted(thresholds.items())}

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        """Add the trees to a graph and return the name of the raw scores [N, targets]."""
        table: dict[str, Any] = {f"nodes_{key}": values for key, values in self._nodes.items()}
        table |= {f"target_{key}": values for key, values in self._leaves.items()}
        if matrix.features:
            splits = list(zip(*self._splits(matrix.features), strict=True))
            for key, values in zip(("featureids", "values", "missing_value_tracks_true"), splits, strict=True):
                table[f"nodes_{key}"] = values
        return graph.node("TreeEnsembleRegressor", matrix.name, domain=ML, n_targets=self.targets, **table)

    def _splits(self, features: Sequence[MatrixFeature]) -> Iterator[tuple[int, float, int]]:
        """Yield each node's position in the matrix, threshold, and direction for a missing value."""
        nodes = self._nodes
        for number, mode, value in zip(nodes["featureids"], nodes["modes"], nodes["values"], strict=True):
            feature = features[number]
            if mode == "LEAF":
                yield 0, value, 0
            elif feature.is_flag:  # all present values go where the flag 0 goes
                yield feature.position, np.inf if value >= 0 else -np.inf, int(value >= 1)
            else:
                yield feature.position, value, int(feature.median is not None and feature.median <= value)


def floor32(value: float) -> np.float32:
    """Return the largest float32 <= value. For every float32 x, x <= value if and only if x <= floor32(value)."""
    with np.errstate(over="ignore"):
        nearest = np.float32(value)
    return np.nextafter(nearest, np.float32(-np.inf)) if float(nearest) > value else nearest


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    """Return the declaration of a graph input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


FLOAT: Final = TensorProto.FLOAT
DOUBLE: Final = TensorProto.DOUBLE
STRING: Final = TensorProto.STRING
