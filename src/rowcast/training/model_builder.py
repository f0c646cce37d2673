"""Build the chosen model: train it, export it to ONNX, certify it and measure its quality."""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import median
from time import perf_counter
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.registry.bundle import Measure, Output, Parity
from rowcast.registry.ports import Graph, OpenGraph
from rowcast.schema.prediction import Decision
from rowcast.training import calibration, certificate, ensemble, metrics
from rowcast.training.ensemble import Choice
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.export import export
from rowcast.training.models.candidate import Setting
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Trained
from rowcast.training.problem import LabelledRows, LearningProblem

TIMED_ROWS: Final = 200


@dataclass(frozen=True)
class CertifiedModel:
    """A trained model with its graph, parity certificate and holdout metrics."""

    problem: LearningProblem
    trained: Trained
    content: bytes
    """The content of the ONNX file."""
    output: Output
    graph: Graph
    decision: Decision
    parity: Parity
    holdout: dict[str, Measure]
    """The graph's metrics on the holdout."""
    holdout_output: NDArray[np.float32]
    """The graph's output for the holdout rows."""
    row_microseconds: float
    """The measured time that the graph takes to score a single row on one core."""


@dataclass(frozen=True)
class ModelBuilder:
    """Builds the chosen model."""

    options: TrainingOptions
    metric: str
    choice: Choice
    setting: Setting
    validation: LabelledRows
    """The rows with out-of-fold predictions."""
    open_graph: OpenGraph
    progress: Progress

    def build(self, problem: LearningProblem, *, is_served: bool = True) -> CertifiedModel:
        """Train, export, certify and measure the model; raise ParityError if the graph and the trained model differ.

        If the model is measured but not served, the certificate covers only the holdout.
        """
        message = f"{' and '.join(self.choice.weights)} on {len(problem.training)} rows"
        self.progress(TrainingEvent(stage="fit", message=message, best=self.choice.score))
        trained = ensemble.train_choice(problem, self.choice, self.setting)
        self.progress(TrainingEvent(stage="export", message="building one ONNX graph that takes raw columns"))
        content, output = export(trained, problem.plan, len(problem.classes))
        graph = self.open_graph(content, output.name)
        self.progress(TrainingEvent(stage="certify", message="comparing the graph with the trained model"))
        rows = problem.holdout
        holdout_only = certificate.Probe(rows.numbers, rows.texts)
        probe = certificate.build_probe(trained, problem, self.options.seed) if is_served else holdout_only
        reference = trained.predict(probe.numbers, probe.texts)
        decision = self._decide(problem, reference)
        result = graph.run(probe.tensors())
        spread = float(problem.training.target.std()) if problem.task == "regression" else 1.0
        parity = certificate.certify(reference, result, decision, spread)
        holdout_output = result[: len(rows)]  # the probe starts with the holdout rows
        holdout = metrics.measure_holdout(
            decision, holdout_output, rows.target, seed=self.options.seed, weight=rows.weight, group=rows.group
        )
        return CertifiedModel(
            problem,
            trained,
            content,
            output,
            graph,
            decision,
            parity,
            holdout,
            holdout_output,
            row_microseconds(graph, rows),
        )

    def refit(self, model: CertifiedModel) -> CertifiedModel:
        """Rebuild the model on the training rows and the holdout, but keep the holdout metrics of `model`."""
        problem = model.problem
        problem = replace(problem, training=problem.training.concat(problem.holdout))
        choice = ensemble.refit_choice(self.choice, problem, self.setting, self.options, self.metric)
        refitted = replace(self, choice=choice).build(problem)
        return replace(refitted, holdout=model.holdout, holdout_output=model.holdout_output)

    def _decide(self, problem: LearningProblem, reference: NDArray[Any]) -> Decision:
        """Return the rule that converts the graph's output into labels.

        For a binary target, the out-of-fold scores determine the threshold, which keeps a minimum distance from the
        scores in `reference`. It does not depend on the labels of the reference rows.
        """
        decision = Decision(task=problem.task, classes=problem.classes, positive=problem.positive)
        if problem.task != "binary":
            return decision
        threshold = calibration.choose_threshold(
            self.choice.predictions().astype(np.float32),
            self.validation.target,
            metric=self.metric,
            avoid=reference[:, problem.positive].astype(np.float32),
            weight=self.validation.weight,
            cost=self.options.cost,
        )
        return msgspec.structs.replace(decision, threshold=threshold)


def row_microseconds(graph: Graph, rows: LabelledRows) -> float:
    """Return the median time that the graph takes to score a single row in the caller's thread."""
    probes = []
    for number in range(TIMED_ROWS):
        row = rows.take(np.array([number % len(rows)]))
        probes.append(certificate.Probe(row.numbers, row.texts).tensors())
    seconds = []
    for tensors in [*probes[:20], *probes]:  # the first runs fill the caches
        began = perf_counter()
        graph.run(tensors)
        seconds.append(perf_counter() - began)
    return round(median(seconds[20:]) * 1e6, 1)
