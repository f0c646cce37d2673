"""Export a trained model as one ONNX graph that accepts raw columns."""

from __future__ import annotations

from typing import Final

import numpy as np

from rowcast.registry.bundle import Output
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan
from rowcast.training.onnx_graph import FLOAT, STRING, GraphBuilder, tensor
from rowcast.training.pipeline import Bag, Ensemble, Pipeline, Trained

PROBABILITIES: Final = Output("rowcast_probabilities", "probabilities")
VALUES: Final = Output("rowcast_values", "values")


def export(trained: Trained, plan: Plan, classes: int) -> tuple[bytes, Output]:
    """Return the serialized graph and a description of its output. Identical models produce identical bytes."""
    graph = GraphBuilder()
    prediction = _emit_average(graph, trained) if isinstance(trained, Ensemble) else _emit(graph, trained)
    inputs = [tensor(spec.name, STRING if spec.dtype == "string" else FLOAT, "N", *spec.shape) for spec in plan]
    if trained.task == "regression":
        graph.node("Reshape", prediction, graph.constant(np.array([-1], np.int64)), output=VALUES.name)
        return graph.model(inputs, tensor(VALUES.name, FLOAT, "N")), VALUES
    graph.rename(prediction, PROBABILITIES.name)
    return graph.model(inputs, tensor(PROBABILITIES.name, FLOAT, "N", classes)), PROBABILITIES


def _emit(graph: GraphBuilder, pipeline: Pipeline | Bag) -> str:
    """Add one model to the graph and return the name of its output: probabilities [N, k] or values [N, 1]."""
    raw = pipeline.calibration.emit(graph, pipeline.emit_raw(graph, NUMBERS, TEXTS), pipeline.positive)
    if pipeline.task == "regression":
        return raw
    return graph.node("Softmax", raw, axis=1) if pipeline.task == "multiclass" else graph.node("Sigmoid", raw)


def _emit_average(graph: GraphBuilder, ensemble: Ensemble) -> str:
    """Add the weighted average of all members, which share preprocessing because the builder merges identical nodes."""
    parts = [
        graph.node("Mul", _emit(graph, member), graph.constant(np.array(weight, np.float32)))
        for member, weight in zip(ensemble.members, ensemble.weights, strict=True)
    ]
    return graph.node("Sum", *parts)
