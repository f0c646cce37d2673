"""Small ONNX graphs, similar to those that other tools export, and a sandbox that opens graphs in the test process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from rowcast.adapters.onnxruntime.graph import ForeignOnnxGraph, open_graph
from rowcast.registry import archive
from rowcast.registry.onnx_import import exchange
from rowcast.registry.onnx_import.convert import convert
from rowcast.registry.onnx_import.request import ConvertedModel, ImportRequest
from rowcast.registry.ports import Reference
from rowcast.serving.live_models import load_folder

FLOAT, DOUBLE, INT, BOOL, TEXT = (
    TensorProto.FLOAT,
    TensorProto.DOUBLE,
    TensorProto.INT64,
    TensorProto.BOOL,
    TensorProto.STRING,
)


class InProcessSandbox:
    """Opens models without a child process."""

    def describe_onnx(self, folder: Path) -> bytes:
        return exchange.answer_request(folder, ForeignOnnxGraph)

    def describe_archive(self, folder: Path, max_nodes: int) -> bytes:
        return archive.description(folder, max_nodes)

    def verify_bundle(self, folder: Path, reference: Reference) -> None:
        load_folder(reference, folder, open_graph)


def onnx_model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, Any] | None = None) -> bytes:
    """Return a model with these nodes. An input or output is a tuple of name, type and shape, or a ValueInfoProto."""
    arrays = [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()]
    graph = helper.make_graph(
        nodes, "g", [_value_info(each) for each in inputs], [_value_info(o) for o in outputs], arrays
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()


def _value_info(value: Any) -> Any:
    return value if isinstance(value, onnx.ValueInfoProto) else helper.make_tensor_value_info(*value)


def classifier(width: int = 3, *more: Any, outputs: list[Any]) -> bytes:
    """Return a model that computes raw scores `s` and their softmax `p` from four columns."""
    rng = np.random.default_rng(0)
    weights = {"w": rng.normal(size=(4, width)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=1),
        *more,
    ]
    return onnx_model(nodes, [("x", FLOAT, ["N", 4])], outputs, weights)


def converted(content: bytes, **request: Any) -> ConvertedModel:
    """Convert a model in this process."""
    return convert(ForeignOnnxGraph(content), ImportRequest(name="m", **request))


PROBABILITIES = classifier(outputs=[("p", FLOAT, ["N", 3])])
RAW_SCORES = classifier(outputs=[("s", FLOAT, ["N", 3])])
ARGMAX = helper.make_node("ArgMax", ["s"], ["label"], axis=1, keepdims=0)
