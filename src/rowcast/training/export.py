"""The trained model as one ONNX graph that takes raw columns."""

from __future__ import annotations

from typing import Final

import numpy as np

from rowcast.registry.bundle import Output
from rowcast.schema.encoding import NUMBERS, TEXTS, Plan
from rowcast.training.onnx_graph import FLOAT, STRING, GraphBuilder, tensor
from rowcast.training.pipeline import Ensemble, Pipeline, Trained

PROBABILITIES: Final = Output("rowcast_probabilities", "probabilities")
VALUES: Final = Output("rowcast_values", "values")


def export(trained: Trained, plan: Plan, classes: int) -> tuple[bytes, Output]:
    """The graph and which of its outputs to read; the same model gives the same bytes."""
    graph = GraphBuilder()
    answer = _average(graph, trained) if isinstance(trained, Ensemble) else _answer(graph, trained)
    inputs = [tensor(spec.name, STRING if spec.dtype == "string" else FLOAT, "N", *spec.shape) for spec in plan]
    if trained.task == "regression":
        graph.node("Reshape", answer, graph.constant(np.array([-1], np.int64)), output=VALUES.name)
        return graph.model(inputs, tensor(VALUES.name, FLOAT, "N")), VALUES
    graph.rename(answer, PROBABILITIES.name)
    return graph.model(inputs, tensor(PROBABILITIES.name, FLOAT, "N", classes)), PROBABILITIES


def _answer(graph: GraphBuilder, pipeline: Pipeline) -> str:
    """Probabilities [N, k] or values [N, 1]."""
    matrix = pipeline.features.emit(graph, NUMBERS, TEXTS)
    raw = pipeline.calibration.emit(graph, pipeline.estimator.emit(graph, matrix), pipeline.positive)
    if pipeline.task == "regression":
        return raw
    return graph.node("Softmax", raw, axis=1) if pipeline.task == "multiclass" else graph.node("Sigmoid", raw)


def _average(graph: GraphBuilder, ensemble: Ensemble) -> str:
    """Members share whatever they ask for alike: the builder answers equal requests with one node."""
    parts = [
        graph.node("Mul", _answer(graph, member), graph.constant(np.array(weight, np.float32)))
        for member, weight in zip(ensemble.members, ensemble.weights, strict=True)
    ]
    return graph.node("Sum", *parts)
