"""Cross-validate a candidate's configuration on the training rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from rowcast.training import calibration, features, metrics, split
from rowcast.training.calibration import Calibration
from rowcast.training.features import Features, Numbers, Style
from rowcast.training.models.candidate import Candidate, LabelledMatrix, Params, Raw, Setting
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Pipeline
from rowcast.training.problem import LabelledRows, LearningProblem


@dataclass(frozen=True)
class TrialResult:
    """A candidate with its parameters and its cross-validated score."""

    candidate: Candidate
    params: Params
    score: float
    raw: Raw
    """The out-of-fold raw scores of all validation rows."""


@dataclass(frozen=True)
class Fold:
    """The training rows and the validation rows of one fold."""

    train: LabelledRows
    valid: LabelledRows
    places: NDArray[np.intp]
    """The positions of this fold's validation rows among the validation rows of all folds."""


class FoldResult(NamedTuple):
    """The raw scores of one fold's validation rows, with the number of training rounds and the duration."""

    raw: Raw
    rounds: int
    """0 if the candidate does not train in rounds."""
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
    _matrices: dict[tuple[int, Style], tuple[Numbers, Numbers]] = field(default_factory=dict)

    def run(self, candidate: Candidate, params: Params, after_fold: AfterFold) -> TrialResult:
        """Cross-validate one configuration."""
        raw = np.zeros((len(self.validation), self.setting.width))
        scores, rounds = [], []
        with closing(self._fold_results(candidate, params)) as results:
            for index, (fold, result) in enumerate(zip(self.folds, results, strict=True)):
                raw[fold.places] = result.raw
                scores.append(self._score(result.raw, fold.valid))
                rounds.append(result.rounds)
                after_fold(index, self._mean(scores), result.seconds)
        fixed = {"rounds": max(1, round(float(np.mean(rounds))))} if any(rounds) else {}
        return TrialResult(candidate, params | fixed, self._mean(scores), raw)

    def _fold_results(self, candidate: Candidate, params: Params) -> Generator[FoldResult, None, None]:
        """Yield the results in fold order. If the candidate is thread-safe, the folds are processed in parallel."""
        if self.setting.jobs == 1 or not candidate.threadsafe:
            yield from (self._fit_fold(candidate, params, self.setting, index) for index in range(len(self.folds)))
            return
        for index in range(len(self.folds)):
            self._matrix(index, candidate.style)  # fill the cache before threads read it
        setting = replace(self.setting, jobs=1)
        pool = ThreadPoolExecutor(self.setting.jobs, "rowcast-fold")
        try:
            yield from pool.map(lambda index: self._fit_fold(candidate, params, setting, index), range(len(self.folds)))
        finally:
            pool.shutdown(cancel_futures=True)

    def _fit_fold(self, candidate: Candidate, params: Params, setting: Setting, index: int) -> FoldResult:
        started, fold = time.monotonic(), self.folds[index]
        train, valid = self._matrix(index, candidate.style)
        model = candidate.fit(_label(train, fold.train), params, setting, _label(valid, fold.valid))
        return FoldResult(model.raw(valid), model.params.get("rounds", 0), time.monotonic() - started)

    def _score(self, raw: Raw, rows: LabelledRows) -> float:
        base = calibration.uncalibrated(self.problem.task, self.problem.class_weights)
        return metrics.score(self.metric, base.predictions(raw), rows.target, self.problem.task, rows.weight)

    def _mean(self, scores: list[float]) -> float:
        """Return the mean of the defined scores. In a fold without positive rows, for example, AUC is undefined."""
        finite = [score for score in scores if np.isfinite(score)]
        worst = 0.0 if self.metric in metrics.GREATER else 1e300
        return float(np.mean(finite)) if finite else worst

    def _matrix(self, index: int, style: Style) -> tuple[Numbers, Numbers]:
        if (index, style) not in self._matrices:
            fold = self.folds[index]
            transformation, train = _fit_features(self.problem, fold.train, style)
            self._matrices[index, style] = train, transformation.transform(fold.valid.numbers, fold.valid.texts)
        return self._matrices[index, style]


def make_folds(problem: LearningProblem, options: TrainingOptions) -> tuple[list[Fold], LabelledRows]:
    """Return the folds and their combined validation rows."""
    rows = problem.training
    sides = split.make_folds(rows.target, problem.task, options.folds, options.seed, rows.split_column)
    validated = np.sort(np.concatenate([valid for _, valid in sides]))
    folds = [Fold(rows.take(train), rows.take(valid), np.searchsorted(validated, valid)) for train, valid in sides]
    return folds, rows if len(validated) == len(rows) else rows.take(validated)


def train_final(problem: LearningProblem, trial: TrialResult, setting: Setting, calibration: Calibration) -> Pipeline:
    """Train a model with the parameters of a trial on all training rows."""
    transformation, matrix = _fit_features(problem, problem.training, trial.candidate.style)
    with threadpool_limits(setting.threads):
        model = trial.candidate.fit(_label(matrix, problem.training), trial.params, setting)
    return Pipeline(problem.task, problem.positive, transformation, model, calibration)


def _fit_features(problem: LearningProblem, rows: LabelledRows, style: Style) -> tuple[Features, Numbers]:
    """Fit the preprocessing to the rows; return it with the resulting feature matrix."""
    if problem.task == "multiclass":
        target = np.eye(problem.width)[rows.target]
    else:
        target = rows.target.astype(np.float64)[:, None]
    inner = split.make_inner_folds(rows.split_column)
    return features.fit(rows.numbers, rows.texts, target, style=style, inner=inner, weight=rows.weight)


def _label(matrix: Numbers, rows: LabelledRows) -> LabelledMatrix:
    return LabelledMatrix(matrix, rows.target, rows.emphasis)
