"""Small models for tests: handcrafted graphs in real bundles, and the trained loan example."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.onnxruntime.graph import open_graph
from rowcast.registry import bundle
from rowcast.registry.bundle import Fingerprint, GoldenRow, Manifest, Output, Parity
from rowcast.registry.ports import Reference
from rowcast.schema.encoding import NUMBERS, RowEncoder, own_plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.schema.scores import score_rows
from rowcast.schema.stacking import stack_rows
from rowcast.serving.live_models import LiveModel, load
from rowcast.tables import examples
from rowcast.tables.read import table_from_memory
from rowcast.training.options import TrainingOptions
from rowcast.training.run import train

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LOAN_ROWS = 1500


def trained_loans(root: Path, name: str = "loans") -> FolderRegistry:
    """Train boosted trees on the loan example and return the registry."""
    registry = FolderRegistry(root)
    train(
        table_from_memory(examples.loans(LOAN_ROWS), "loans"),
        TrainingOptions(target="loan_status", name=name, candidates=("boosting",), trials=2),
        open_graph=open_graph,
        registry=registry,
        now=NOW,
        progress=lambda event: None,
    )
    return registry


def loan_rows(count: int, seed: int = 7) -> list[dict[str, Any]]:
    """Return loan applications that are not in the training data."""
    columns = {name: cells for name, cells in examples.loans(count, seed).items() if name != "loan_status"}
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def with_models(home: Path, registry: Path) -> Path:
    """Create a home with a copy of the registry."""
    home.mkdir(parents=True, exist_ok=True)
    shutil.copytree(registry, home / "models")
    return home


def number_columns(count: int, **options: Any) -> Schema:
    """Return a schema with the numeric columns `x0`, `x1` and so on."""
    return Schema(tuple(Column(name=f"x{index}", kind="number", example=1.0, **options) for index in range(count)))


def _graph(nodes: list[Any], weights: dict[str, NDArray[Any]], inputs: int, outputs: int) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(NUMBERS, TensorProto.FLOAT, [None, inputs])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [None, outputs])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("ai.onnx.ml", 3)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _weights(seed: int, **shapes: tuple[int, ...]) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def regressor_graph(inputs: int, outputs: int, seed: int = 0) -> bytes:
    """Return a graph with LinearRegressor, the operator for scikit-learn's linear models.

    Without special handling, the results for most rows differ in the last bit between a batch and a single row.
    """
    weights = np.random.default_rng(seed).normal(size=outputs * inputs).tolist()
    shape = {"coefficients": weights, "intercepts": [0.1] * outputs, "targets": outputs}
    node = helper.make_node("LinearRegressor", [NUMBERS], ["out"], domain="ai.onnx.ml", **shape)
    return _graph([node], {}, inputs, outputs)


def trees_graph(inputs: int, outputs: int, seed: int = 0, trees: int = 60) -> bytes:
    """Return a graph that sums the outputs of decision stumps; each stump has one threshold and two leaves."""
    rng = np.random.default_rng(seed)
    nodes: dict[str, list[Any]] = {
        "nodes_treeids": [tree for tree in range(trees) for _ in range(3)],
        "nodes_nodeids": [0, 1, 2] * trees,
        "nodes_featureids": [feature for tree in range(trees) for feature in (int(rng.integers(inputs)), 0, 0)],
        "nodes_values": [value for tree in range(trees) for value in (float(rng.normal()), 0.0, 0.0)],
        "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"] * trees,
        "nodes_truenodeids": [1, 0, 0] * trees,
        "nodes_falsenodeids": [2, 0, 0] * trees,
    }
    ends = [(tree, node, output) for tree in range(trees) for node in (1, 2) for output in range(outputs)]
    leaves = {
        f"target_{key}": list(ids)
        for key, ids in zip(("treeids", "nodeids", "ids"), zip(*ends, strict=True), strict=True)
    }
    table = nodes | leaves | {"target_weights": rng.normal(size=len(ends)).tolist(), "n_targets": outputs}
    node = helper.make_node("TreeEnsembleRegressor", [NUMBERS], ["out"], domain="ai.onnx.ml", **table)
    return _graph([node], {}, inputs, outputs)


def linear_graph(inputs: int, outputs: int, seed: int = 0) -> bytes:
    """Return a graph that computes `x W + b`."""
    nodes = [helper.make_node("MatMul", [NUMBERS, "w"], ["xw"]), helper.make_node("Add", ["xw", "b"], ["out"])]
    return _graph(nodes, _weights(seed, w=(inputs, outputs), b=(outputs,)), inputs, outputs)


def sum_graph(inputs: int) -> bytes:
    """Return a graph that sums all columns, so that scores are easy to compute by hand."""
    nodes = [helper.make_node("MatMul", [NUMBERS, "w"], ["out"])]
    return _graph(nodes, {"w": np.ones((inputs, 1), np.float32)}, inputs, 1)


def miscounting_graph(at: int, more: int) -> bytes:
    """Return a graph that outputs its only column, and appends `more` extra rows if the batch has exactly `at` rows."""
    nodes = [
        helper.make_node("Shape", [NUMBERS], ["shape"], end=1),
        helper.make_node("Equal", ["shape", "at"], ["here"]),
        helper.make_node("Cast", ["here"], ["one"], to=TensorProto.INT64),
        helper.make_node("Mul", ["one", "more"], ["change"]),
        helper.make_node("Concat", ["none", "none", "change", "none"], ["pads"], axis=0),
        helper.make_node("Pad", [NUMBERS, "pads"], ["out"]),
    ]
    weights = {"at": np.array([at]), "more": np.array([more]), "none": np.array([0])}
    return _graph(nodes, weights, 1, 1)


def batch_size_graph(step: float) -> bytes:
    """Return a graph that outputs its only column, plus `step` for every other row in the batch."""
    nodes = [
        helper.make_node("Shape", [NUMBERS], ["shape"], end=1),
        helper.make_node("Sub", ["shape", "one"], ["others"]),
        helper.make_node("Cast", ["others"], ["count"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["count", "step"], ["change"]),
        helper.make_node("Add", [NUMBERS, "change"], ["out"]),
    ]
    return _graph(nodes, {"one": np.array([1]), "step": np.array([step], np.float32)}, 1, 1)


def picking_graph(values: int) -> bytes:
    """Return a graph that uses its only column as a list index and fails if the index is out of range."""
    nodes = [
        helper.make_node("Cast", [NUMBERS], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["list", "place"], ["out"]),
    ]
    return _graph(nodes, {"list": np.arange(values, dtype=np.float32)}, 1, 1)


def mlp_graph(inputs: int, classes: int, seed: int = 0, width: int = 37) -> bytes:
    """Return a neural network with one hidden layer."""
    nodes = [
        helper.make_node("Gemm", [NUMBERS, "w1", "b1"], ["h"]),
        helper.make_node("Sigmoid", ["h"], ["s"]),
        helper.make_node("Gemm", ["s", "w2", "b2"], ["g"]),
        helper.make_node("Softmax", ["g"], ["out"], axis=1),
    ]
    shapes = {"w1": (inputs, width), "b1": (width,), "w2": (width, classes), "b2": (classes,)}
    return _graph(nodes, _weights(seed, **shapes), inputs, classes)


def hungry_graph(inputs: int) -> bytes:
    """Return a graph that allocates 40 GB before it sums the columns."""
    shape = np.array([100_000, 100_000], np.int64)
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("MatMul", [NUMBERS, "w"], ["sum"]),
        helper.make_node("Add", ["sum", "zero"], ["out"]),
    ]
    return _graph(nodes, {"w": np.ones((inputs, 1), np.float32), "shape": shape}, inputs, 1)


def slow_graph(inputs: int) -> bytes:
    """Return a graph that multiplies large matrices for minutes before it sums the columns."""
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["product0"])]
    nodes += [
        helper.make_node("MatMul", [f"product{index}", f"product{index}"], [f"product{index + 1}"])
        for index in range(100)
    ]
    nodes += [
        helper.make_node("ReduceSum", ["product100"], ["zero"], keepdims=0),
        helper.make_node("MatMul", [NUMBERS, "w"], ["sum"]),
        helper.make_node("Add", ["sum", "zero"], ["out"]),
    ]
    weights = {"w": np.ones((inputs, 1), np.float32), "shape": np.array([4000, 4000])}
    return _graph(nodes, weights, inputs, 1)


def quadruple_graph() -> bytes:
    """Return a graph that adds every combination of four rows; the sums need 64 MB for 64 rows, but 16 GB for 256
    rows."""
    shapes = {f"s{at}": np.array([-1 if index == at else 1 for index in range(4)]) for at in range(4)}
    nodes = [helper.make_node("Reshape", [NUMBERS, f"s{at}"], [f"r{at}"]) for at in range(4)]
    nodes += [
        helper.make_node("Sum", ["r0", "r1", "r2", "r3"], ["all"]),
        helper.make_node("ReduceMin", ["all"], ["least"], keepdims=0),
        helper.make_node("Mul", ["least", "none"], ["zero"]),
        helper.make_node("Add", [NUMBERS, "zero"], ["out"]),
    ]
    return _graph(nodes, shapes | {"none": np.array(0, np.float32)}, 1, 1)


def endless_graph(inputs: int) -> bytes:
    """Return a graph that runs a nearly endless loop before it sums the columns."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["on"], ["still_on"]), helper.make_node("Add", ["one", "step"], ["more"])],
        "round",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("one", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("still_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.array(0.0, np.float32), "step")],
    )
    nodes = [
        helper.make_node("ReduceMax", [NUMBERS], ["most"], keepdims=0),
        helper.make_node("Loop", ["turns", "yes", "most"], ["looped"], body=body),
        helper.make_node("MatMul", [NUMBERS, "w"], ["sum"]),
        helper.make_node("Add", ["sum", "looped"], ["out"]),
    ]
    weights: dict[str, Any] = {"w": np.ones((inputs, 1), np.float32)}
    weights |= {"turns": np.array(10**15, np.int64), "yes": np.array(True)}
    return _graph(nodes, weights, inputs, 1)


def publish(
    registry: FolderRegistry,
    name: str,
    model: bytes,
    schema: Schema,
    decision: Decision,
    kind: Any,
    wire: dict[str, Any] | None = None,
) -> Reference:
    """Publish a handcrafted graph with one golden row as the next version and champion of a model."""
    plan = own_plan(schema)
    encoder = RowEncoder(schema, plan)
    row: dict[str, Any] = {column.name: column.example for column in schema.columns}
    (score,) = score_rows(decision, open_graph(model, "out").run(stack_rows(encoder.plan, [encoder.parse(row)])))
    manifest = Manifest(
        name=name,
        created=NOW.isoformat(),
        schema=schema,
        plan=plan,
        output=Output("out", kind),
        decision=decision,
        wire=wire,
        metric="none",
        score=0.0,
        holdout={},
        parity=Parity(1, 0.0, 0),
        training=Fingerprint(
            table="none", sha256="", rows=0, target="y", seed=0, candidate="made", params={}, calibration={}
        ),
        versions={},
    )
    golden = [GoldenRow(row, score)]
    files = {bundle.MODEL: model, bundle.GOLDEN: bundle_json(golden)}
    reference = registry.publish(name, lambda folder: bundle.pack(folder, manifest, files) and None)
    registry.point(reference, "champion")
    return reference


def bundle_json(value: Any) -> bytes:
    """Encode part of a bundle as JSON."""
    return msgspec.json.encode(value)


def live(
    root: Path,
    name: str,
    model: bytes,
    schema: Schema,
    decision: Decision,
    kind: Any,
    wire: dict[str, Any] | None = None,
) -> LiveModel:
    """Publish a handcrafted graph and load it as a server does."""
    registry = FolderRegistry(root)
    return load(publish(registry, name, model, schema, decision, kind, wire), registry, open_graph)


def loader(registry: FolderRegistry) -> Callable[[Reference], LiveModel]:
    """Return a function that loads a published version as a server does."""
    return lambda reference: load(reference, registry, open_graph)


def classes(*labels: Any) -> Decision:
    """Return the decision of a classifier with these labels."""
    return Decision(task="binary" if len(labels) == 2 else "multiclass", classes=tuple(labels))


REGRESSION = Decision(task="regression")


def random_rows(schema: Schema, count: int, seed: int = 0) -> list[dict[str, float]]:
    """Return rows of normally distributed numbers."""
    values = np.random.default_rng(seed).normal(size=(count, len(schema.columns)))
    return [dict(zip(schema.names(), row, strict=True)) for row in values.tolist()]
