"""A training run turns a table into a certified, published bundle. `train` performs all steps in order."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

from rowcast.engines import Engine
from rowcast.errors import RegistryError, TrainingError
from rowcast.registry import bundle
from rowcast.registry.bundle import Fingerprint, Manifest
from rowcast.registry.lifecycle import CHALLENGER
from rowcast.registry.ports import OpenGraph, Reference, RegistryWriter
from rowcast.registry.resolve import CHAMPION
from rowcast.schema.encoding import RowEncoder
from rowcast.schema.prediction import Decision
from rowcast.tables.table import Table
from rowcast.training import bundle_files, ensemble, metrics
from rowcast.training.ensemble import Choice
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.model_builder import CertifiedModel, ModelBuilder
from rowcast.training.models import candidates
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS
from rowcast.training.problem import LearningProblem, build_problem
from rowcast.training.promotion import NewVersion, PromotionRule
from rowcast.training.report.evaluation import EvaluatedModel
from rowcast.training.report.model_card import render_model_card
from rowcast.training.report.page import render_report
from rowcast.training.result import CandidateScore, Promotion, TrainingResult
from rowcast.training.search import SearchResult, search
from rowcast.training.time_limit import BATCH_SHARE, is_refitted
from rowcast.wire.codec import compile_template

PACKAGES: Final = ("rowcast", "numpy", "polars", "scikit-learn", "lightgbm", "optuna", "onnx", "onnxruntime", "torch")
"""Packages whose versions the bundle records."""


def train(
    table: Table,
    options: TrainingOptions,
    *,
    open_graph: OpenGraph,
    registry: RegistryWriter,
    now: datetime,
    progress: Progress,
    reading_seconds: float = 0.0,
    engine: Engine | None = None,
) -> TrainingResult:
    """Train, certify and publish one model; raise TableError or TrainingError if no model can be trained."""
    started = time.monotonic() - reading_seconds  # reading the table counts toward the time limit
    candidates.check(options.candidates)
    problem = build_problem(table, options)
    metric = metrics.resolve(options.metric, problem.task)
    _check_options(problem, options)
    rule = PromotionRule(registry, open_graph, options, progress)
    rule.champion()
    registry.ready(options.name)  # these calls report errors before the search, not after it
    progress(TrainingEvent(stage="check", message=_summary(problem), findings=problem.findings))

    trials: list[TrainingEvent] = []

    def record(event: TrainingEvent) -> None:
        trials.append(event)
        progress(event)

    search_result, setting = search(problem, options, record, elapsed=time.monotonic() - started, engine=engine)
    choice = ensemble.choose(search_result, problem, metric, PRESETS[options.preset])
    options = _with_refit(options, choice, problem, _seconds_left(options, started))
    builder = ModelBuilder(options, metric, choice, setting, search_result.validation, open_graph, progress)
    measured = builder.build(problem, is_served=not options.refit)
    served = builder.refit(measured) if options.refit else measured
    progress(TrainingEvent(stage="publish", message=options.name))
    manifest = _manifest(served, choice, metric, table=table, options=options, now=now)
    scores = _candidate_scores(search_result, choice)
    evaluated = _evaluated_model(measured, served.decision, metric, options, _seconds_left(options, started))
    page = render_report(manifest, evaluated, findings=problem.findings, candidates=scores, trials=trials)
    files = _files(served, manifest, page, options.seed)
    promotion = rule.decide(NewVersion(manifest, problem, measured.holdout_output, search_result.interrupted))
    reference, digest, promotion = _publish(registry, manifest, files, promotion, options)
    return TrainingResult(
        model=reference.name,
        version=reference.version,
        path=str(registry.folder(reference)),
        digest=digest,
        promotion=promotion,
        task=problem.task,
        metric=metric,
        score=choice.score,
        preset=options.preset,
        row_microseconds=served.row_microseconds,
        stale_trials=search_result.stale_trials,
        holdout=served.holdout,
        parity=served.parity,
        candidates=scores,
        findings=problem.findings,
        seconds=round(time.monotonic() - started, 3),
    )


def _seconds_left(options: TrainingOptions, started: float) -> float:
    return math.inf if options.timeout is None else options.timeout - (time.monotonic() - started)


def _with_refit(
    options: TrainingOptions, choice: Choice, problem: LearningProblem, seconds_left: float
) -> TrainingOptions:
    """Return the options with a decision on `refit`: whether to train the chosen model again on all rows."""
    refit = is_refitted(
        options,
        problem,
        fit_seconds=choice.fit_seconds,
        row_microseconds=choice.row_microseconds,
        seconds_left=seconds_left,
    )
    return msgspec.structs.replace(options, refit=refit)


def _candidate_scores(result: SearchResult, choice: Choice) -> tuple[CandidateScore, ...]:
    """Return the scores of all candidates, with the ensemble first if there is one."""
    if len(choice.members) == 1:
        return result.scores
    return (CandidateScore(choice.name, choice.score, 0, 0.0, choice.weights), *result.scores)


def _check_options(problem: LearningProblem, options: TrainingOptions) -> None:
    """Raise an error if an option does not suit the problem."""
    _check_cost(problem, options)
    _check_wire(problem, options)


def _check_cost(problem: LearningProblem, options: TrainingOptions) -> None:
    if options.cost is not None and problem.task != "binary":
        actual = "is numeric" if problem.task == "regression" else f"has {len(problem.classes)} classes"
        raise TrainingError(f"option 'cost' requires a binary target; {problem.target!r} {actual}")


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


def _manifest(
    model: CertifiedModel, choice: Choice, metric: str, *, table: Table, options: TrainingOptions, now: datetime
) -> Manifest:
    problem = model.problem
    params, calibration = ensemble.describe(choice, model.trained)
    return Manifest(
        name=options.name,
        created=now.isoformat(timespec="seconds"),
        schema=problem.schema,
        plan=problem.plan,
        output=model.output,
        decision=model.decision,
        wire=options.wire,
        metric=metric,
        score=choice.score,
        holdout=model.holdout,
        parity=model.parity,
        training=Fingerprint(
            table=table.name,
            sha256=table.sha256,
            rows=problem.frame.height,
            target=problem.target,
            seed=options.seed,
            candidate=choice.name,
            params=params,
            calibration=calibration,
            options=msgspec.to_builtins(options),
        ),
        versions=_versions(),
    )


def _evaluated_model(
    model: CertifiedModel, decision: Decision, metric: str, options: TrainingOptions, seconds_left: float
) -> EvaluatedModel:
    problem = model.problem
    row_seconds = model.row_microseconds * BATCH_SHARE / 1e6
    return EvaluatedModel(
        graph=model.graph,
        row_microseconds=model.row_microseconds,
        row_cost=model.trained.size.microseconds,
        decision=decision,
        metric=metric,
        schema=problem.schema,
        plan=problem.plan,
        rows=problem.holdout,
        output=model.holdout_output,
        seed=options.seed,
        cost=options.cost,
        row_limit=max(0.0, seconds_left / row_seconds),
    )


def _files(model: CertifiedModel, manifest: Manifest, page: str, seed: int) -> dict[str, bytes]:
    """Return the files of the bundle."""
    problem = model.problem
    golden_rows = bundle_files.golden_rows(problem, model.graph, manifest.decision, seed)
    return {
        bundle.MODEL: model.content,
        bundle.GOLDEN: msgspec.json.encode(golden_rows),
        bundle.REFERENCE: bundle_files.reference_sample(problem, seed),
        bundle.TRAINING_ROWS: bundle_files.training_row_hashes(problem, manifest.decision),
        bundle.CARD: render_model_card(manifest, problem.findings).encode(),
        bundle.REPORT: page.encode(),
    }


def _publish(
    registry: RegistryWriter,
    manifest: Manifest,
    files: Mapping[str, bytes],
    promotion: Promotion,
    options: TrainingOptions,
) -> tuple[Reference, str, Promotion]:
    """Publish the bundle and return its reference, its digest and the promotion.

    If the champion has changed since the comparison, the version is published as a challenger.
    """
    packed: list[Manifest] = []

    def fill(folder: Path) -> None:
        packed.append(bundle.pack(folder, manifest, files))

    is_replacing = promotion.alias == CHAMPION and options.promote is None
    expected = (promotion.champion or 0) if is_replacing else None
    try:
        reference = registry.publish(options.name, fill, promotion.alias, reason=promotion.reason, expected=expected)
    except RegistryError as error:
        if error.slug != "alias-moved":
            raise
        promotion = Promotion(CHALLENGER, promotion.champion, "the champion changed during the training run")
        reference = registry.publish(options.name, fill, promotion.alias, reason=promotion.reason)
    return reference, packed[-1].digest, promotion


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:  # not installed, or installed under another name
            continue
    return versions


def _summary(problem: LearningProblem) -> str:
    target = problem.task if problem.task == "regression" else f"{len(problem.classes)} classes"
    rows, columns = problem.frame.height, len(problem.schema.columns)
    return f"{rows} rows, {columns} columns, {target}; holdout of {len(problem.holdout)} rows"
