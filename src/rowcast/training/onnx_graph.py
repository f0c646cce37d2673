"""Write ONNX by hand: a small builder, and the table of trees that becomes one TreeEnsembleRegressor.

No converter: what a node means is decided here, once, and the parity certificate holds it against the trained model.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Nodes and constants in the order they are asked for, each only once; equal requests give equal bytes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._known: dict[tuple[object, ...] | bytes, str] = {}

    def constant(self, array: NDArray[Any]) -> str:
        """The name of a constant tensor."""
        content = np.asarray(array, order="C")
        key = (content.dtype.str, content.shape, content.tobytes())
        if key not in self._known:
            self._known[key] = f"constant_{len(self._constants)}"
            self._constants.append(numpy_helper.from_array(content, self._known[key]))
        return self._known[key]

    def node(self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any) -> str:
        """The name of the single output of a node."""
        node = helper.make_node(operator, list(inputs), [], domain=domain, **attributes)
        key = sha256(node.SerializeToString(deterministic=True)).digest()
        if key in self._known and not output:
            return self._known[key]
        self._known[key] = output or f"{operator.lower()}_{len(self._nodes)}"
        node.output.append(self._known[key])
        self._nodes.append(node)
        return self._known[key]

    def rename(self, made: str, output: str) -> None:
        """Give the last node's output the name that the graph is read by."""
        assert list(self._nodes[-1].output) == [made]
        self._nodes[-1].output[0] = output

    def model(self, inputs: Sequence[onnx.ValueInfoProto], output: onnx.ValueInfoProto) -> bytes:
        """The checked model as bytes that depend on nothing but what was asked for."""
        graph = helper.make_graph(self._nodes, "rowcast", list(inputs), [output], self._constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="rowcast")
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString(deterministic=True))


class Trees:
    """Additive trees as flat lists: one raw score a target, `x <= threshold` goes to the true side."""

    def __init__(self, targets: int) -> None:
        self.targets = targets
        self._nodes: dict[str, list[Any]] = {
            key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")
        }
        self._leaves: dict[str, list[Any]] = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}

    def split(self, tree: int, node: int, feature: int, threshold: float, true: int, false: int) -> None:
        """An inner node; the threshold is floored, so that every float32 goes the way float64 would send it."""
        self._node(tree, node, feature, "BRANCH_LEQ", float(floor32(threshold)), true, false)

    def leaf(self, tree: int, node: int, weights: dict[int, float]) -> None:
        """A leaf that adds a weight to some targets."""
        self._node(tree, node, 0, "LEAF", 0.0, 0, 0)
        for target, weight in weights.items():
            for key, value in zip(self._leaves, (tree, node, target, float(np.float32(weight))), strict=True):
                self._leaves[key].append(value)

    def _node(self, *values: Any) -> None:
        for key, value in zip(self._nodes, values, strict=True):
            self._nodes[key].append(value)

    def thresholds(self) -> dict[int, NDArray[np.float32]]:
        """The distinct thresholds of each feature that any tree asks about."""
        found: dict[int, set[float]] = {}
        nodes = self._nodes
        for feature, mode, value in zip(nodes["featureids"], nodes["modes"], nodes["values"], strict=True):
            if mode != "LEAF":
                found.setdefault(feature, set()).add(value)
        return {feature: np.array(sorted(values), np.float32) for feature, values in sorted(found.items())}

    def emit(self, graph: GraphBuilder, matrix: str) -> str:
        """The raw scores [N, targets] of the rows in `matrix`."""
        table: dict[str, Any] = {f"nodes_{key}": values for key, values in self._nodes.items()}
        table |= {f"target_{key}": values for key, values in self._leaves.items()}
        return graph.node("TreeEnsembleRegressor", matrix, domain=ML, n_targets=self.targets, **table)


def floor32(value: float) -> np.float32:
    """The largest float32 not above the value: x <= value and x <= floor32(value) agree for every float32 x."""
    with np.errstate(over="ignore"):
        near = np.float32(value)
    return np.nextafter(near, np.float32(-np.inf)) if float(near) > value else near


def tensor(name: str, kind: int, *shape: int | str) -> onnx.ValueInfoProto:
    """The declaration of an input or output."""
    return helper.make_tensor_value_info(name, kind, list(shape))


FLOAT: Final = TensorProto.FLOAT
DOUBLE: Final = TensorProto.DOUBLE
STRING: Final = TensorProto.STRING
