"""Search for the best configuration, using only the training rows.

The first trials use good default parameters for every candidate. Optuna suggests the configurations of the remaining
trials. If there is a time limit and no number of trials is given, the number
of trials is unlimited, and the search stops early only after many consecutive trials without an improvement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final, NamedTuple, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from rowcast.errors import TrainingError
from rowcast.training import metrics, trial_storage
from rowcast.training.cross_validation import CrossValidator, TrialResult, make_folds
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.models.candidate import Candidate, Params, Setting
from rowcast.training.models.candidates import select
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS
from rowcast.training.problem import LabelledRows, LearningProblem
from rowcast.training.result import CandidateScore
from rowcast.training.time_limit import finishing_seconds, refit_seconds
from rowcast.training.trial_storage import FOLD_SECONDS, KIND, NO_TIME, SLOT, Study

FINAL_FIT: Final = 1.5
"""The expected ratio of the duration of a fit on all training rows to that of one fold in threefold
cross-validation."""
DEFAULT_TRIALS: Final = 20
"""The number of trials if neither a number nor a time limit is given."""
UNLIMITED: Final = 100_000
STALE_TRIALS: Final = 30
"""If the number of trials is not given, the search stops after this number of trials without an improvement."""
LIKELY_MICROSECONDS: Final = 50.0
"""The assumed cost of a row until every candidate has been tried. The preset can lower it."""
LEAST_SHARE: Final = 0.3
"""A trial whose fits can stop early starts only if at least this share of its expected duration remains."""
KEPT_TRIALS: Final = 3
"""The number of trials of each candidate that can become members of an average."""


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
    """The number of trials without an improvement, if the search stopped because of them."""

    @property
    def best(self) -> TrialResult:
        return self.trials[0]


class KeptTrial(NamedTuple):
    """A trial that can become a member of an average. Ranks are unique, so results are never compared."""

    rank: tuple[float, int]
    result: TrialResult


@dataclass
class CandidateState:
    """The state of the search for one candidate."""

    trials: int = 0
    seconds: float = 0.0
    folds: int = 0
    kept: list[KeptTrial] = field(default_factory=list)
    """This process's best trials, from best to worst."""
    remote: list[FrozenTrial] = field(default_factory=list)
    """Trials from other processes that are among the best of all processes, from best to worst. This process must
    repeat a trial before it can use the trial's models.
    """
    score: float | None = None
    """The best score across all processes."""
    remote_fold_seconds: float = 0.0
    """The duration of a fold, as measured by another process."""

    @property
    def best(self) -> TrialResult | None:
        """The best trial of this process."""
        return self.kept[0].result if self.kept else None

    @property
    def fold_seconds(self) -> float:
        """The expected duration of one fold."""
        return self.seconds / self.folds if self.folds else self.remote_fold_seconds


@dataclass
class Search:
    """The state of the search for all candidates, and the remaining time."""

    validator: CrossValidator
    candidates: dict[str, Candidate]
    states: dict[str, CandidateState]
    seconds_left: Callable[[], float]
    """Returns the number of seconds until the search must end."""
    refit_seconds: float = 0.0
    """The maximum number of seconds reserved for refitting the chosen model on all rows."""
    stale_trials: int = 0
    """The number of trials since the most recent improvement of the best score."""

    @property
    def has_model(self) -> bool:
        """Whether any process has finished a trial."""
        return any(state.score is not None for state in self.states.values())

    @property
    def has_local_model(self) -> bool:
        """Whether this process has finished a trial."""
        return any(state.best is not None for state in self.states.values())

    def try_params(
        self, candidate: Candidate, params: Params, slot: int, after_fold: Callable[[int, float], None]
    ) -> TrialResult:
        """Cross-validate one configuration; `after_fold` can stop the trial by raising an exception."""
        self.states[candidate.name].trials += 1
        best = self.best_score
        self.stale_trials += 1
        result = self._cross_validate(candidate, params, after_fold)
        if best is None or self.is_better(result.score, best):
            self.stale_trials = 0
        self._keep(result, slot)
        return result

    @property
    def best_score(self) -> float | None:
        """The best score across all candidates and processes."""
        scores = [state.score for state in self.states.values() if state.score is not None]
        return None if not scores else max(scores) if self.validator.metric in metrics.GREATER else min(scores)

    def _keep(self, result: TrialResult, slot: int) -> None:
        """Keep the best trials of each candidate."""
        state = self.states[result.candidate.name]
        state.kept = sorted([*state.kept, KeptTrial(self._rank(result.score, slot), result)])[:KEPT_TRIALS]
        if state.score is None or self.is_better(result.score, state.score):
            state.score = result.score

    def _rank(self, score: float, slot: int) -> tuple[float, int]:
        """Return a key that sorts better trials first, and trials with the same score by their slots."""
        return -metrics.sign(self.validator.metric) * score, slot

    def _cross_validate(
        self, candidate: Candidate, params: Params, after_fold: Callable[[int, float], None]
    ) -> TrialResult:
        state = self.states[candidate.name]

        def count(index: int, mean: float, seconds: float) -> None:
            state.seconds += seconds
            state.folds += 1
            after_fold(index, mean)

        seconds = self.seconds_for_trial()
        if state.score is None:  # leave time for this candidate's final fit, and for candidates without a trial
            turns = self.validator.turns(candidate)
            seconds *= turns / (turns + FINAL_FIT) / (1 + sum(map(self._is_untried, self.states)) / 2)
        return self.validator.run(candidate, params, count, seconds=seconds)

    def row_microseconds(self) -> float:
        """Return the estimated cost of scoring a row with the best trials of all candidates."""
        best = [state.best.size.microseconds for state in self.states.values() if state.best is not None]
        least = LIKELY_MICROSECONDS if any(map(self._is_untried, self.states)) else 10.0
        return min(self.validator.setting.preset.microseconds, least + sum(best))

    def _is_untried(self, name: str) -> bool:
        """Return whether no process has started a trial of this candidate."""
        state = self.states[name]
        return state.trials == 0 and state.score is None

    def has_time_for(self, candidate: Candidate) -> bool:
        """Return whether another trial and the final fits are expected to finish in time.

        If the fits can stop early, time for part of a trial is sufficient. Until a model exists, the result is always
        True, because the search must return a model.
        """
        if not self.has_model:
            return True
        share = LEAST_SHARE if candidate.stops_in_time else 1.0
        expected = self.states[candidate.name].fold_seconds * self.validator.turns(candidate)
        return self.seconds_for_trial() > share * expected

    def seconds_for_trial(self) -> float:
        """Return the remaining time minus the expected duration of the final fits."""
        return self.seconds_left() - self.final_fit_seconds()

    def final_fit_seconds(self) -> float:
        """Return the expected duration of the final fits. It includes all candidates, because any of them may be
        chosen."""
        total, refits = 0.0, 0.0
        for state in self.states.values():
            if state.score is not None:
                turns = len(self.validator.folds) * state.fold_seconds
                total += len(state.remote) * turns
                if state.best is not None and state.best.is_bagged:
                    refits += turns
                else:
                    total += FINAL_FIT * state.fold_seconds
        return total + min(refits, self.refit_seconds)

    def sync_remote_trials(self, study: Study) -> None:
        """For each candidate, find the trials from other processes that are among the best of all processes."""
        for name, state in self.states.items():
            ranks: list[tuple[tuple[float, int], FrozenTrial | None]] = [(kept.rank, None) for kept in state.kept]
            for trial in study.remote_trials(name):
                if trial.state == TrialState.COMPLETE and trial.value is not None:
                    state.remote_fold_seconds = trial.user_attrs[FOLD_SECONDS]
                    ranks.append((self._rank(trial.value, trial.user_attrs[SLOT]), trial))
            ranks.sort(key=lambda pair: pair[0])
            state.remote = [trial for _, trial in ranks[:KEPT_TRIALS] if trial is not None]
            if ranks:
                state.score = -metrics.sign(self.validator.metric) * ranks[0][0][0]

    def repeat_remote_trials(self, progress: Progress) -> None:
        """Repeat the best trials from other processes, because the storage contains no out-of-fold scores."""
        sign = metrics.sign(self.validator.metric)
        for name, state in sorted(self.states.items(), key=lambda pair: -sign * (pair[1].score or 0.0)):
            trials, state.remote = state.remote, []
            for trial in trials:
                seconds = (len(self.validator.folds) + FINAL_FIT) * state.fold_seconds + self.final_fit_seconds()
                if self.has_local_model and self.seconds_left() < seconds:
                    continue
                message = f"repeating a {name} trial from another process"
                progress(TrainingEvent(stage="tune", message=message, best=trial.value))
                slot = trial.user_attrs[SLOT]
                candidate, params = _params(trial, slot, self.candidates, self.validator.setting)
                self._keep(self._cross_validate(candidate, params, lambda index, mean: None), slot)

    def is_better(self, left: float, right: float) -> bool:
        return left > right if self.validator.metric in metrics.GREATER else left < right


def search(
    problem: LearningProblem, options: TrainingOptions, progress: Progress, *, elapsed: float = 0.0
) -> tuple[SearchResult, Setting]:
    """Run trials until all are finished or the time limit is reached; return the best configurations.

    `elapsed` is the time, in seconds, that was used before the search. Ctrl-C stops the search early.
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
    states = {name: CandidateState() for name in candidates}
    running = Search(validator, candidates, states, seconds_left, refit_seconds(options))
    total = max(_trial_limit(options), len(candidates))
    study = trial_storage.open_study(options, problem.sha256, metric, total)
    runner = TrialRunner(running, study, total, progress, is_patient=options.trials is not None)
    with threadpool_limits(setting.threads):
        interrupted = runner.run()
    if not running.has_local_model:
        raise TrainingError(
            "the search stopped before this process trained a model; increase the value of 'timeout' or 'trials'"
        )
    stale_trials = running.stale_trials if runner.is_stale else 0
    return replace(_result(running, study), interrupted=interrupted, stale_trials=stale_trials), setting


def _trial_limit(options: TrainingOptions) -> int:
    if options.trials is not None:
        return options.trials
    return DEFAULT_TRIALS if options.timeout is None else UNLIMITED


def _result(running: Search, study: Study) -> SearchResult:
    best = {name: state.best for name, state in running.states.items() if state.best is not None}
    sign = metrics.sign(running.validator.metric)
    ranked = sorted(best, key=lambda name: -sign * best[name].score)
    scores = [
        CandidateScore(
            name,
            best[name].score,
            running.states[name].trials + len(study.remote_trials(name)),
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
            self.study.optimise(self._objective, self._stop_in_time)
        except KeyboardInterrupt:
            if not self.search.has_model:
                raise
            interrupted = True
            self.progress(TrainingEvent(stage="tune", message="interrupted; keeping the best model so far"))
        try:
            self.search.repeat_remote_trials(self.progress)
        except KeyboardInterrupt:
            if not self.search.has_local_model:
                raise
            interrupted = True
        return interrupted

    def _objective(self, trial: optuna.Trial) -> float:
        slot = self.study.claim(trial)
        if slot is None:
            trial.study.stop()
            return float("nan")  # Optuna marks this trial as failed; failed trials do not occupy a slot
        candidates = self.search.candidates
        candidate, params = _params(trial, slot, candidates, self.search.validator.setting)
        trial.set_user_attr(KIND, candidate.name)

        def after_fold(index: int, mean: float) -> None:
            trial.report(mean, index)
            if index + 1 == len(self.search.validator.folds):
                return
            if slot >= len(candidates) and trial.should_prune():  # the first trial of each candidate is never pruned
                raise optuna.TrialPruned
            if self.search.has_model and self.search.seconds_for_trial() <= 0:
                self._prune_without_time(trial, candidate)

        self._prune_without_time(trial, candidate)
        try:
            return self.search.try_params(candidate, params, slot, after_fold).score
        finally:
            trial.set_user_attr(FOLD_SECONDS, self.search.states[candidate.name].fold_seconds)
            self._report(candidate.name)

    def _prune_without_time(self, trial: optuna.Trial, candidate: Candidate) -> None:
        if not self.search.has_time_for(candidate):
            trial.set_user_attr(NO_TIME, True)
            raise optuna.TrialPruned

    def _stop_in_time(self, study: optuna.Study, _trial: FrozenTrial) -> None:
        candidates = self.search.candidates.values()
        if self.study.is_used_up or self.is_stale or not any(map(self.search.has_time_for, candidates)):
            study.stop()

    def _report(self, name: str) -> None:
        """Report the trial that is about to finish."""
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


def _params(
    trial: BaseTrial, slot: int, candidates: dict[str, Candidate], setting: Setting
) -> tuple[Candidate, Params]:
    """Return the configuration of a trial: default parameters for the first slots, then the sampler's suggestions."""
    starts = _starts(candidates.values(), setting)
    if slot < len(starts):
        return starts[slot]
    candidate = candidates[trial.suggest_categorical("candidate", list(candidates))]
    # For a finished trial, Optuna returns the recorded parameters.
    return candidate, candidate.suggest(cast(optuna.Trial, trial), setting)


def _starts(candidates: Iterable[Candidate], setting: Setting) -> list[tuple[Candidate, Params]]:
    """Return the default parameters: every candidate's first set, then every candidate's second set."""
    defaults = [[(candidate, params) for params in candidate.starts(setting)] for candidate in candidates]
    return [each for rank in zip_longest(*defaults) for each in rank if each is not None]
