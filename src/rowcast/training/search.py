"""Search for the best configuration, using only the training rows.

The first trials use good default parameters for every candidate. Optuna suggests the configurations of the remaining
trials. If a time limit is given without a number of trials, the number of trials is unlimited. The search then stops
early only after many consecutive trials without an improvement.

On an engine, folds are tasks, and several trials run at the same time. The configuration of a trial depends only on the
results of earlier slots, so the search does not depend on which task ends first.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from rowcast.engines import Engine
from rowcast.errors import TrainingError
from rowcast.training import metrics, trial_storage
from rowcast.training.candidate_state import CandidateState
from rowcast.training.configurations import params_of
from rowcast.training.cross_validation import CrossValidator, TrialResult, make_folds
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.fold_tasks import FoldEngine, open_folds
from rowcast.training.models.candidate import Candidate, Params, Setting
from rowcast.training.models.candidates import select
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS
from rowcast.training.problem import LabelledRows, LearningProblem
from rowcast.training.result import CandidateScore
from rowcast.training.search_state import Search
from rowcast.training.time_limit import finishing_seconds, refit_seconds
from rowcast.training.trial_storage import FOLD_SECONDS, KIND, NO_TIME, Study
from rowcast.training.trial_window import StartedTrial, run_in_window

DEFAULT_TRIALS: Final = 20
"""The number of trials if neither a number nor a time limit is given."""
UNLIMITED: Final = 100_000
STALE_TRIALS: Final = 30
"""If the number of trials is not given, the search stops after this number of trials without an improvement."""


@dataclass(frozen=True)
class SearchResult:
    """The best trials of each candidate, from best to worst, with the validation rows and the folds."""

    trials: tuple[TrialResult, ...]
    scores: tuple[CandidateScore, ...]
    validation: LabelledRows
    """The validation rows of all folds. A time-based split never uses the earliest rows for validation."""
    folds: tuple[NDArray[np.intp], ...]
    """The positions of each fold's rows in `validation`."""
    interrupted: bool = False
    """Whether Ctrl-C stopped the search early."""
    stale_trials: int = 0
    """The number of consecutive trials without an improvement that stopped the search; 0 if they did not stop it."""

    @property
    def best(self) -> TrialResult:
        return self.trials[0]


def search(
    problem: LearningProblem,
    options: TrainingOptions,
    progress: Progress,
    *,
    elapsed: float = 0.0,
    engine: Engine | None = None,
) -> tuple[SearchResult, Setting]:
    """Run trials until all are finished or the time limit is reached; return the best configurations.

    `elapsed` is the time, in seconds, that was used before the search. Ctrl-C stops the search early.
    On an engine, `options.jobs` trials run at the same time.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # failures are reported by the caller
    started = time.monotonic()

    def seconds_left() -> float:
        if options.timeout is None:
            return np.inf
        finishing = finishing_seconds(problem, options.timeout, preset, running.row_microseconds())
        return options.timeout - elapsed - (time.monotonic() - started) - finishing

    def out_of_time() -> bool:
        return running.seconds_for_trial() <= 0

    preset = PRESETS[options.preset]
    setting = Setting(
        problem.task,
        problem.width,
        len(problem.training),
        options.seed,
        options.jobs,
        out_of_time,
        preset,
        problem.folds if preset.is_bagged and not problem.is_split_by_time else 1,
    )
    candidates = {candidate.name: candidate for candidate in select(options.candidates, problem.task)}
    metric = metrics.resolve(options.metric, problem.task)
    validator = CrossValidator(problem, setting, metric, *make_folds(problem, options))
    folds = None if engine is None else open_folds(engine, validator, options)
    states = {name: CandidateState() for name in candidates}
    running = Search(validator, candidates, states, seconds_left, refit_seconds(options))
    total = max(_trial_limit(options), len(candidates))
    study = trial_storage.open_study(options, problem.sha256, metric, total)
    runner = TrialRunner(running, study, total, progress, is_patient=options.trials is not None, folds=folds)
    with threadpool_limits(setting.threads):
        interrupted = runner.run()
    if not running.has_local_model:
        raise TrainingError(
            "the search stopped before this process trained a model; increase the value of 'timeout' or 'trials'"
        )
    stale_trials = running.stale_trials if runner.is_stale else 0
    return replace(_result(running), interrupted=interrupted, stale_trials=stale_trials), setting


def _trial_limit(options: TrainingOptions) -> int:
    if options.trials is not None:
        return options.trials
    return DEFAULT_TRIALS if options.timeout is None else UNLIMITED


def _result(running: Search) -> SearchResult:
    best = {name: state.best for name, state in running.states.items() if state.best is not None}
    sign = metrics.sign(running.validator.metric)
    ranked = sorted(best, key=lambda name: -sign * best[name].score)
    scores = [
        CandidateScore(
            name,
            best[name].score,
            running.states[name].trials + running.states[name].remote_trials,
            round(running.states[name].seconds, 3),
        )
        for name in ranked
    ]
    places = tuple(fold.places for fold in running.validator.folds)
    kept = [trial.result for name in ranked for trial in running.states[name].kept]
    trials = sorted(kept, key=lambda trial: -sign * trial.score)
    return SearchResult(tuple(trials), tuple(scores), running.validator.validation, places)


@dataclass
class TrialRunner:
    """Runs the trials of a study until all are finished or the time limit is reached."""

    search: Search
    study: Study
    total: int
    progress: Progress
    is_patient: bool
    """Whether to run all trials, even if they do not improve the score."""
    folds: FoldEngine | None = None
    """The engine that fits the folds; None to fit them in this process."""

    @property
    def is_stale(self) -> bool:
        """Whether the search stops because too many consecutive trials have not improved the score."""
        return not self.is_patient and self.search.stale_trials >= STALE_TRIALS

    def __post_init__(self) -> None:
        self._started, self._finished_before = time.monotonic(), self.study.finished_count

    def run(self) -> bool:
        """Run the trials; return whether Ctrl-C stopped the search early.

        If no model exists yet, KeyboardInterrupt propagates.
        """
        interrupted = False
        self.search.sync_remote_trials(self.study)
        try:
            self._optimise()
        except KeyboardInterrupt:
            if not self.search.has_model:
                raise
            interrupted = True
            self.progress(TrainingEvent(stage="tune", message="interrupted; keeping the best model so far"))
        try:
            self.search.repeat_remote_trials(self.study, self.progress)
        except KeyboardInterrupt:
            if not self.search.has_local_model:
                raise
            interrupted = True
        return interrupted

    def _optimise(self) -> None:
        if self.folds is None:
            self.study.optimise(self._objective, self._stop_in_time)
        else:
            run_in_window(self.folds.trials, self._start, self._finish, self.study.abandon)

    def _objective(self, trial: optuna.Trial) -> float:
        slot = self.study.claim(trial)
        if slot is None:
            trial.study.stop()
            return float("nan")  # Optuna marks this trial as failed; failed trials do not occupy a slot
        candidate, params = self._configure(trial, slot)
        self._prune_without_time(trial, candidate)
        try:
            return self.search.try_params(candidate, params, slot, self._after_fold(trial, slot, candidate)).score
        finally:
            self._report(trial, candidate.name)

    def _start(self) -> StartedTrial | None:
        """Start the next trial on the engine; return None if no trial is left or the remaining time is too short."""
        assert self.folds is not None
        while not self._is_over:
            asked = self.study.ask()
            if asked is None:
                return None
            trial, slot = asked
            candidate, params = self._configure(trial, slot)
            if self.search.has_time_for(candidate):
                tasks = self.search.start_folds(self.folds, candidate, params)
                return StartedTrial(trial, slot, candidate, params, tasks)
            trial.set_user_attr(NO_TIME, True)
            self.study.optuna.tell(trial, state=TrialState.PRUNED)
        return None

    def _finish(self, started: StartedTrial) -> None:
        """Wait for a trial, and record its result."""
        trial, slot, candidate = started.trial, started.slot, started.candidate
        score = None
        try:
            score = self.search.finish_folds(started, self._after_fold(trial, slot, candidate)).score
        except optuna.TrialPruned:
            started.cancel()
        finally:
            self._report(trial, candidate.name)
        if score is None:
            self.study.optuna.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.optuna.tell(trial, score)

    def _configure(self, trial: optuna.Trial, slot: int) -> tuple[Candidate, Params]:
        candidate, params = params_of(trial, slot, self.search.candidates, self.search.validator.setting)
        trial.set_user_attr(KIND, candidate.name)
        return candidate, params

    def _after_fold(self, trial: optuna.Trial, slot: int, candidate: Candidate) -> Callable[[int, float], None]:
        def after_fold(index: int, mean: float) -> None:
            trial.report(mean, index)
            if index + 1 == len(self.search.validator.folds):
                return
            # The first trial of each candidate is never pruned.
            if slot >= len(self.search.candidates) and trial.should_prune():
                raise optuna.TrialPruned
            if self.search.has_model and self.search.seconds_for_trial() <= 0:
                self._prune_without_time(trial, candidate)

        return after_fold

    def _prune_without_time(self, trial: optuna.Trial, candidate: Candidate) -> None:
        if not self.search.has_time_for(candidate):
            trial.set_user_attr(NO_TIME, True)
            raise optuna.TrialPruned

    @property
    def _is_over(self) -> bool:
        """Whether no further trial should start."""
        candidates = self.search.candidates.values()
        return self.study.is_used_up or self.is_stale or not any(map(self.search.has_time_for, candidates))

    def _stop_in_time(self, study: optuna.Study, _trial: FrozenTrial) -> None:
        if self._is_over:
            study.stop()

    def _report(self, trial: optuna.Trial, name: str) -> None:
        """Report the trial that is about to finish."""
        trial.set_user_attr(FOLD_SECONDS, self.search.states[name].fold_seconds)
        self.search.sync_remote_trials(self.study)
        finished = self.study.finished_count + 1
        elapsed = time.monotonic() - self._started
        left = elapsed / (finished - self._finished_before) * max(self.total - finished, 0)
        metric = self.search.validator.metric
        self.progress(
            TrainingEvent(
                stage="tune",
                message=f"{metric} in {len(self.search.validator.folds)}-fold cross-validation",
                trial=min(finished, self.total),
                trials=self.total if self.total < UNLIMITED else finished,
                candidate=name,
                best=self.search.best_score,
                seconds_left=max(0.0, min(left, self.search.seconds_left())),
            )
        )
