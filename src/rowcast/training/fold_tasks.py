"""Fit the folds of cross-validation as tasks on an engine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from rowcast.engines import Engine, Shared, Task
from rowcast.training.cross_validation import CrossValidator, FoldResult, make_folds
from rowcast.training.models.candidate import Candidate, Params, Setting
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.options import TrainingOptions
from rowcast.training.problem import LearningProblem


def _never() -> bool:
    return False


@dataclass(frozen=True)
class FoldWork:
    """The data that a task needs to fit a fold. It can be pickled. Each process computes the feature matrices only
    once.
    """

    problem: LearningProblem
    options: TrainingOptions
    setting: Setting
    metric: str

    @cached_property
    def validator(self) -> CrossValidator:
        return CrossValidator(self.problem, self.setting, self.metric, *make_folds(self.problem, self.options))


def fit_fold(work: FoldWork, candidate: str, params: Params, index: int, seconds: float) -> FoldResult:
    """Fit one fold; the fit may stop early after `seconds`."""
    with threadpool_limits(work.setting.threads):
        return work.validator.fit_fold(CANDIDATES[candidate], params, work.setting, index, seconds)


class FoldEngine(NamedTuple):
    """Fits folds on an engine."""

    engine: Engine
    work: Shared[FoldWork]
    folds: int
    trials: int
    """The number of trials that run at the same time."""

    def start(self, candidate: Candidate, params: Params, seconds: float) -> list[Task[FoldResult]]:
        """Start fitting all folds of one configuration."""
        return [
            self.engine.submit(fit_fold, self.work, candidate.name, params, index, seconds)
            for index in range(self.folds)
        ]


def open_folds(engine: Engine, validator: CrossValidator, options: TrainingOptions) -> FoldEngine:
    """Send the training rows to the engine. The holdout and the table are not needed to fit folds."""
    problem, trials = validator.problem, options.jobs
    folds = len(validator.folds)
    nothing = np.empty(0, np.intp)
    rows = replace(problem, frame=problem.frame.clear(), holdout=problem.holdout.take(nothing))
    setting = replace(validator.setting, jobs=1, out_of_time=_never)
    validator.parallel_folds = max(1, engine.slots // trials)
    return FoldEngine(engine, engine.share(FoldWork(rows, options, setting, validator.metric)), folds, trials)
