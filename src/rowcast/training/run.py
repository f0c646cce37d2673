"""The story of a training: a table becomes a certified, published bundle. Read `train` from top to bottom."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import TrainingError
from rowcast.registry import bundle
from rowcast.registry.bundle import Fingerprint, Manifest, Measure, Output, Parity
from rowcast.registry.ports import Graph, OpenGraph, Reference, RegistryWriter
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.prediction import Decision
from rowcast.tables import Table
from rowcast.training import (
    bundle_files,
    ensemble,
    metrics,
)
from rowcast.training import (
    calibration as calibrate,
)
from rowcast.training import (
    certificate as certify,
)
from rowcast.training.ensemble import Choice
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.export import export
from rowcast.training.models import candidates
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Trained
from rowcast.training.problem import LabelledRows, LearningProblem, build_problem
from rowcast.training.report.evaluation import EvaluatedModel
from rowcast.training.report.model_card import render_model_card
from rowcast.training.report.page import render_report
from rowcast.training.result import CandidateScore, TrainingResult
from rowcast.training.search import SearchResult, search
from rowcast.wire.codec import compile_template

VERSIONED: Final = ("rowcast", "numpy", "polars", "scikit-learn", "lightgbm", "optuna", "onnx", "onnxruntime", "torch")


@dataclass(frozen=True)
class ExportedModel:
    """A trained model with its graph, on its way to being published."""

    problem: LearningProblem
    choice: Choice
    judges: LabelledRows
    """Those that the choice has out-of-fold answers for."""
    metric: str
    trained: Trained
    content: bytes
    output: Output
    graph: Graph


@dataclass(frozen=True)
class Certification:
    """How a model decides, that its graph repeats it, and how good it is."""

    decision: Decision
    parity: Parity
    holdout: dict[str, Measure]
    output: NDArray[np.float32]
    """What the served graph says of the rows kept aside."""


def train(
    table: Table,
    options: TrainingOptions,
    *,
    open_graph: OpenGraph,
    registry: RegistryWriter,
    now: datetime,
    progress: Progress,
) -> TrainingResult:
    """Train, certify and publish one model; TableError or TrainingError says what stands in the way."""
    started = time.monotonic()
    candidates.check(options.candidates)  # a typing mistake is told before any work
    problem = build_problem(table, options)
    metric = metrics.resolve(options.metric, problem.task)
    _check_cost(problem, options)
    _check_wire(problem, options)
    registry.ready(options.name)  # not found out after an hour of trials
    progress(TrainingEvent(stage="check", message=_described(problem), findings=problem.findings))

    trials: list[TrainingEvent] = []

    def remember(event: TrainingEvent) -> None:
        trials.append(event)
        progress(event)

    found, setting = search(problem, options, remember)
    choice = ensemble.choose(found, problem, metric)

    def certified(problem: LearningProblem) -> tuple[ExportedModel, Certification]:
        message = f"{' and '.join(choice.weights)} on {len(problem.training)} rows"
        progress(TrainingEvent(stage="fit", message=message, best=choice.score))
        trained = ensemble.train_choice(problem, choice, setting)
        progress(TrainingEvent(stage="export", message="one ONNX graph from raw columns"))
        content, output = export(trained, problem.plan, len(problem.classes))
        model = ExportedModel(
            problem, choice, found.judges, metric, trained, content, output, open_graph(content, output.name)
        )
        progress(TrainingEvent(stage="certify", message="the graph against the trained model"))
        return model, prove(model, options)

    measured, proof = certified(problem)
    served = measured
    if options.refit:  # measured without the rows kept aside, served with them
        served, again = certified(replace(problem, training=problem.training.joined(problem.holdout)))
        proof = replace(again, holdout=proof.holdout, output=proof.output)

    progress(TrainingEvent(stage="publish", message=options.name))
    manifest = _manifest(served, proof, table, options, now)
    page = render_report(
        manifest,
        _evaluated_model(measured, proof, options),
        findings=problem.findings,
        candidates=_standings(found, choice),
        trials=trials,
    )
    reference, digest = _publish(registry, served, manifest, page, options)
    return TrainingResult(
        model=reference.name,
        version=reference.version,
        path=str(registry.folder(reference)),
        digest=digest,
        task=problem.task,
        metric=metric,
        score=choice.score,
        holdout=proof.holdout,
        parity=proof.parity,
        candidates=_standings(found, choice),
        findings=problem.findings,
        seconds=round(time.monotonic() - started, 3),
    )


def _standings(found: SearchResult, choice: Choice) -> tuple[CandidateScore, ...]:
    """The ensemble first when there is one, then every kind by its own score."""
    if len(choice.members) == 1:
        return found.scores
    return (CandidateScore(choice.name, choice.score, 0, 0.0, choice.weights), *found.scores)


def _check_cost(problem: LearningProblem, options: TrainingOptions) -> None:
    if options.cost is not None and problem.task != "binary":
        what = "holds values" if problem.task == "regression" else f"has {len(problem.classes)} classes"
        raise TrainingError(f"--cost needs a target of two classes; {problem.target!r} {what}")


def _check_wire(problem: LearningProblem, options: TrainingOptions) -> None:
    if options.wire is not None:
        decision = Decision(task=problem.task, classes=problem.classes, positive=problem.positive)
        compile_template(
            options.wire,
            model=options.name,
            version=1,
            schema=problem.schema,
            decision=decision,
            parse_row=RowEncoder(problem.schema, problem.plan).read,
        )


def prove(model: ExportedModel, options: TrainingOptions) -> Certification:
    """Decide the threshold, hold the graph against the trained model, measure the graph; ParityError when they part."""
    problem, seed = model.problem, options.seed
    rows = certify.build_probe(model.trained, problem.training, problem.holdout, seed)
    reference = model.trained.predict(rows.numbers, rows.texts)
    decision = Decision(task=problem.task, classes=problem.classes, positive=problem.positive)
    if problem.task == "binary":
        decision = msgspec.structs.replace(decision, threshold=_threshold(model, reference, options))
    answers = model.graph.run(rows.tensors())
    spread = float(problem.training.target.std()) if problem.task == "regression" else 1.0
    parity = certify.certify(reference, answers, decision, spread)
    aside = problem.holdout  # the probe begins with these rows
    output = answers[: len(aside)]
    return Certification(
        decision,
        parity,
        metrics.measure_holdout(decision, output, aside.target, seed, aside.weight, aside.group),
        output,
    )


def _threshold(model: ExportedModel, reference: NDArray[Any], options: TrainingOptions) -> float:
    """Chosen on out-of-fold scores; it keeps clear of the scores to be compared, whose labels it never sees."""
    scores = model.choice.answers().astype(np.float32)
    seen = reference[:, model.problem.positive].astype(np.float32)
    judges = model.judges
    return calibrate.choose_threshold(scores, judges.target, model.metric, seen, judges.weight, options.cost)


def _manifest(
    model: ExportedModel, proof: Certification, table: Table, options: TrainingOptions, now: datetime
) -> Manifest:
    problem = model.problem
    params, calibration = ensemble.describe(model.choice, model.trained)
    return Manifest(
        name=options.name,
        created=now.isoformat(timespec="seconds"),
        schema=problem.schema,
        plan=problem.plan,
        output=model.output,
        decision=proof.decision,
        wire=options.wire,
        metric=model.metric,
        score=model.choice.score,
        holdout=proof.holdout,
        parity=proof.parity,
        training=Fingerprint(
            table=table.name,
            sha256=table.sha256,
            rows=problem.frame.height,
            target=problem.target,
            seed=options.seed,
            candidate=model.choice.name,
            params=params,
            calibration=calibration,
            options=msgspec.to_builtins(options),
        ),
        versions=_versions(),
    )


def _evaluated_model(model: ExportedModel, proof: Certification, options: TrainingOptions) -> EvaluatedModel:
    problem = model.problem
    return EvaluatedModel(
        graph=model.graph,
        graph_bytes=len(model.content),
        decision=proof.decision,
        metric=model.metric,
        schema=problem.schema,
        plan=problem.plan,
        rows=problem.holdout,
        output=proof.output,
        seed=options.seed,
        cost=options.cost,
    )


def _publish(
    registry: RegistryWriter, model: ExportedModel, manifest: Manifest, page: str, options: TrainingOptions
) -> tuple[Reference, str]:
    """The published version and its digest."""
    problem = model.problem
    files = {
        bundle.MODEL: model.content,
        bundle.GOLDEN: msgspec.json.encode(
            bundle_files.golden_rows(problem, model.graph, manifest.decision, options.seed)
        ),
        bundle.REFERENCE: bundle_files.reference_sample(problem, options.seed),
        bundle.CARD: render_model_card(manifest, problem.findings).encode(),
        bundle.REPORT: page.encode(),
    }
    packed: list[Manifest] = []

    def fill(folder: Path) -> None:
        packed.append(bundle.pack(folder, manifest, files))

    reference = registry.publish(options.name, fill, options.alias)
    return reference, packed[-1].digest


def _versions() -> dict[str, str]:
    found = {}
    for package in VERSIONED:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a source folder, or a runtime of another name
            continue
    return found


def _described(problem: LearningProblem) -> str:
    what = problem.task if problem.task == "regression" else f"{len(problem.classes)} classes"
    rows, columns = problem.frame.height, len(problem.schema.columns)
    return f"{rows} rows, {columns} columns, {what}; {len(problem.holdout)} rows kept aside"
