"""Cross-validate a candidate's configuration on the training rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, reduce
from operator import add
from typing import NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rowcast.training import calibration, features, metrics, split
from rowcast.training.calibration import Calibration
from rowcast.training.features import Features, Numbers, Style
from rowcast.training.models.candidate import (
    Candidate,
    Estimator,
    LabelledMatrix,
    Params,
    Raw,
    Setting,
    StagedEstimator,
    TreeEstimator,
)
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Bag, Pipeline
from rowcast.training.presets import MEMBER_SHARE, NO_TREES, Size
from rowcast.training.problem import LabelledRows, LearningProblem


@dataclass(frozen=True)
class TrialResult:
    """A candidate with its parameters and its cross-validated score."""

    candidate: Candidate
    params: Params
    score: float
    raw: Raw
    """The out-of-fold raw scores of all validation rows."""
    estimators: tuple[TreeEstimator, ...] = ()
    """The estimators of all folds, if their average is served. Otherwise empty, because the served model is fitted
    later, to all training rows."""
    features: Features | None = None
    """The features of all training rows, if the average of the estimators is served."""
    size: Size = NO_TREES
    """The size of the served model."""
    seconds: float = field(default=0.0, compare=False)
    """The duration of cross-validation."""

    @property
    def is_bagged(self) -> bool:
        """Whether the average of the fold models is served."""
        return bool(self.estimators)


@dataclass(frozen=True)
class Fold:
    """The training rows and the validation rows of one fold."""

    train: LabelledRows
    valid: LabelledRows
    places: NDArray[np.intp]
    """The positions of this fold's validation rows among the validation rows of all folds."""


class FoldResult(NamedTuple):
    """The raw scores of one fold's validation rows, with the fold's estimator and the duration."""

    raw: Raw
    estimator: Estimator
    seconds: float


AfterFold = Callable[[int, float, float], None]
"""Called after each fold with the fold's index, the mean score so far and the fold's duration in seconds.

The callback can stop cross-validation by raising an exception.
"""


@dataclass
class CrossValidator:
    """Cross-validates all configurations on the same folds. Each feature matrix is computed once and then reused."""

    problem: LearningProblem
    setting: Setting
    metric: str
    folds: list[Fold]
    validation: LabelledRows
    """The validation rows of all folds. A time-based split never uses the earliest rows for validation."""
    parallel_folds: int | None = None
    """The number of a trial's folds that an engine fits at the same time; None if this process fits them."""
    _matrices: dict[tuple[int, Style], tuple[Numbers, Numbers]] = field(default_factory=dict)

    def run(
        self, candidate: Candidate, params: Params, after_fold: AfterFold, *, seconds: float = np.inf
    ) -> TrialResult:
        """Cross-validate one configuration; if `seconds` is too short, the fit of every fold stops early."""
        with closing(self._fold_results(candidate, params, seconds)) as results:
            return self.combine(candidate, params, results, after_fold)

    def combine(
        self, candidate: Candidate, params: Params, results: Iterable[FoldResult], after_fold: AfterFold
    ) -> TrialResult:
        """Return the result of a trial, given the results of its folds in order."""
        started = time.monotonic()
        estimators: list[Estimator] = []
        staged: Sequence[Estimator] = ()
        raws: list[Raw] = []
        scores: list[float] = []
        for index, (_, result) in enumerate(zip(self.folds, results, strict=True)):
            estimators.append(result.estimator)
            staged = stop_together(estimators)
            raws = [
                result.raw if each is result.estimator else self._raw(place, candidate, each)
                for place, each in enumerate(staged)
            ]
            scores = [self._score(raw, fold.valid) for raw, fold in zip(raws, self.folds, strict=False)]
            after_fold(index, self._mean(scores), result.seconds)
        raw = np.zeros((len(self.validation), self.setting.width))
        for fold, rows in zip(self.folds, raws, strict=True):
            raw[fold.places] = rows
        score, duration = self._mean(scores), time.monotonic() - started
        return self._trial(candidate, staged, raw, score, duration)

    def _raw(self, index: int, candidate: Candidate, estimator: Estimator) -> Raw:
        """Return the raw scores of a fold's validation rows."""
        return estimator.raw(self._matrix(index, candidate.style)[1])

    def _trial(
        self, candidate: Candidate, estimators: Sequence[Estimator], raw: Raw, score: float, seconds: float
    ) -> TrialResult:
        """Return a trial's result. The result includes the estimators of the folds only if their average is within the
        preset's limits.
        """
        rounds = [int(estimator.params.get("rounds", 0)) for estimator in estimators]
        params = {**estimators[-1].params}
        if any(rounds):
            params["rounds"] = max(rounds)
        if candidate.is_bagged(self.setting):
            reduced = tuple(_reduced(estimator, self.setting) for estimator in estimators)
            size = reduce(add, (each.size for each in reduced))
            if self.setting.preset.allows_member(size):
                return TrialResult(candidate, params, score, raw, reduced, self._common_features, size, seconds)
        size = max((each.size for each in estimators), key=lambda each: each.nodes)
        return TrialResult(candidate, params, score, raw, size=size, seconds=seconds)

    def _fold_results(self, candidate: Candidate, params: Params, seconds: float) -> Generator[FoldResult, None, None]:
        """Yield the results in fold order. If the candidate is thread-safe, the folds are processed in parallel."""
        folds = range(len(self.folds))
        if self.setting.jobs == 1 or not candidate.threadsafe:
            share = seconds / len(folds)
            yield from (self.fit_fold(candidate, params, self.setting, index, share) for index in folds)
            return
        for index in folds:
            self._matrix(index, candidate.style)  # fill the cache before threads read it
        setting, share = replace(self.setting, jobs=1), seconds / self.turns(candidate)
        pool = ThreadPoolExecutor(self.setting.jobs, "rowcast-fold")
        try:
            yield from pool.map(lambda index: self.fit_fold(candidate, params, setting, index, share), folds)
        finally:
            pool.shutdown(cancel_futures=True)

    def turns(self, candidate: Candidate) -> int:
        """Return how many batches of parallel folds are processed one after another."""
        return -(-len(self.folds) // (self.parallel_folds or (self.setting.jobs if candidate.threadsafe else 1)))

    def fit_fold(
        self, candidate: Candidate, params: Params, setting: Setting, index: int, seconds: float
    ) -> FoldResult:
        """Fit one fold; the fit may stop early after `seconds`."""
        started, fold = time.monotonic(), self.folds[index]

        def out_of_time() -> bool:
            return setting.out_of_time() or time.monotonic() - started > seconds

        train, valid = self._matrix(index, candidate.style)
        bounded = replace(setting, out_of_time=out_of_time)
        model = candidate.fit(_label(train, fold.train), params, bounded, _label(valid, fold.valid))
        return FoldResult(model.raw(valid), model, time.monotonic() - started)

    def _score(self, raw: Raw, rows: LabelledRows) -> float:
        base = calibration.uncalibrated(self.problem.task, self.problem.class_weights)
        return metrics.score(self.metric, base.predictions(raw), rows.target, self.problem.task, rows.weight)

    def _mean(self, scores: list[float]) -> float:
        """Return the mean of the defined scores. In a fold without positive rows, for example, AUC is undefined."""
        finite = [score for score in scores if np.isfinite(score)]
        worst = 0.0 if self.metric in metrics.GREATER else 1e300
        return float(np.mean(finite)) if finite else worst

    def _matrix(self, index: int, style: Style) -> tuple[Numbers, Numbers]:
        """Return the feature matrices of a fold's training rows and validation rows."""
        if (index, style) not in self._matrices:
            fold = self.folds[index]
            common = self._common_features if style == "trees" and self.setting.bags > 1 else None
            transformation, train = _fit_features(self.problem, fold.train, style, common)
            self._matrices[index, style] = train, transformation.transform(fold.valid.numbers, fold.valid.texts)
        return self._matrices[index, style]

    @cached_property
    def _common_features(self) -> Features:
        """The preprocessing for trees, fitted to all training rows."""
        return _fit_features(self.problem, self.problem.training, "trees")[0]


def stop_together(estimators: Sequence[Estimator]) -> Sequence[Estimator]:
    """If the estimators are trained in rounds, reduce the estimators of all folds to the same number of rounds.

    This number is the mean of the folds' best numbers of rounds. If each fold stopped at its own best round, the same
    validation rows would determine both an estimator's number of rounds and its score. Scores on small, noisy tables
    would then be too good, and configurations with uneven losses would win (decision 0073).
    """
    if not all(isinstance(each, StagedEstimator) and each.losses for each in estimators):
        return estimators
    staged = cast(Sequence[StagedEstimator], estimators)
    rounds = round(float(np.mean([1 + int(np.argmin(each.losses)) for each in staged])))
    return [each.after(rounds) for each in staged]


def _reduced(estimator: Estimator, setting: Setting) -> TreeEstimator:
    """Return a fold's estimator, reduced to as many trees as the preset allows."""
    assert isinstance(estimator, TreeEstimator)
    nodes = int(setting.preset.nodes * MEMBER_SHARE)
    return estimator.reduced(setting.preset.forest_trees // setting.bags, nodes // setting.bags)


def make_folds(problem: LearningProblem, options: TrainingOptions) -> tuple[list[Fold], LabelledRows]:
    """Return the folds and their combined validation rows."""
    rows = problem.training
    sides = split.make_folds(rows.target, problem.task, problem.folds, options.seed, rows.split_column)
    validated = np.sort(np.concatenate([valid for _, valid in sides]))
    folds = [Fold(rows.take(train), rows.take(valid), np.searchsorted(validated, valid)) for train, valid in sides]
    return folds, rows if len(validated) == len(rows) else rows.take(validated)


def bag(problem: LearningProblem, trial: TrialResult, calibration: Calibration) -> Bag:
    """Return the average of the estimators of all folds."""
    assert trial.features is not None
    first, *others = trial.estimators
    return Bag(problem.task, problem.positive, trial.features, tuple(first.averaged(others)), calibration)


def refit_bag(
    problem: LearningProblem, trial: TrialResult, setting: Setting, options: TrainingOptions, metric: str
) -> TrialResult:
    """Return the trial with its original scores, and with estimators refitted to the folds of `problem`. The fits
    ignore the time limit, because the time for the search has already been used up.
    """
    unlimited = replace(setting, out_of_time=lambda: False)
    validator = CrossValidator(problem, unlimited, metric, *make_folds(problem, options))
    with threadpool_limits(setting.threads):
        again = validator.run(trial.candidate, trial.params, lambda index, mean, seconds: None)
    return replace(trial, estimators=again.estimators, features=again.features)


def train_final(problem: LearningProblem, trial: TrialResult, setting: Setting, calibration: Calibration) -> Pipeline:
    """Train a model on all training rows with a trial's parameters."""
    transformation, matrix = _fit_features(problem, problem.training, trial.candidate.style)
    with threadpool_limits(setting.threads):
        model = trial.candidate.fit(_label(matrix, problem.training), trial.params, setting)
    return Pipeline(problem.task, problem.positive, transformation, model, calibration)


def _fit_features(
    problem: LearningProblem, rows: LabelledRows, style: Style, common: Features | None = None
) -> tuple[Features, Numbers]:
    """Fit the preprocessing to the rows; return it with the resulting feature matrix."""
    if problem.task == "multiclass":
        target = np.eye(problem.width)[rows.target]
    else:
        target = rows.target.astype(np.float64)[:, None]
    inner = split.make_inner_folds(rows.split_column)
    return features.fit(
        rows.numbers,
        rows.texts,
        target,
        style=style,
        inner=inner,
        weight=rows.weight,
        common=common,
        derivation=problem.derivation,
    )


def _label(matrix: Numbers, rows: LabelledRows) -> LabelledMatrix:
    return LabelledMatrix(matrix, rows.target, rows.emphasis)
