"""The trained model as one ONNX graph that takes raw columns."""

from __future__ import annotations

from typing import Final

import numpy as np

from rowcast.bundle import Output
from rowcast.domain.encode import NUMBERS, TEXTS, Plan
from rowcast.training.graphs import FLOAT, STRING, GraphBuilder, tensor
from rowcast.training.pipeline import Pipeline

PROBABILITIES: Final = Output("rowcast_probabilities", "probabilities")
VALUES: Final = Output("rowcast_values", "values")


def export(pipeline: Pipeline, plan: Plan, classes: int) -> tuple[bytes, Output]:
    """The graph and which of its outputs to read; the same pipeline gives the same bytes."""
    graph = GraphBuilder()
    matrix = pipeline.features.emit(graph, NUMBERS, TEXTS)
    raw = pipeline.calibration.emit(graph, pipeline.estimator.emit(graph, matrix), pipeline.positive)
    inputs = [tensor(spec.name, STRING if spec.dtype == "string" else FLOAT, "N", *spec.shape) for spec in plan]
    if pipeline.task == "regression":
        graph.node("Reshape", raw, graph.constant(np.array([-1], np.int64)), output=VALUES.name)
        return graph.model(inputs, tensor(VALUES.name, FLOAT, "N")), VALUES
    if pipeline.task == "multiclass":
        graph.node("Softmax", raw, axis=1, output=PROBABILITIES.name)
    else:
        graph.node("Sigmoid", raw, output=PROBABILITIES.name)
    return graph.model(inputs, tensor(PROBABILITIES.name, FLOAT, "N", classes)), PROBABILITIES
