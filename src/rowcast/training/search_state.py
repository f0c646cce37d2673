"""The state of a search: the best trials of all candidates, and whether there is time for another trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from rowcast.engines import Task
from rowcast.training import metrics
from rowcast.training.candidate_state import CandidateState, KeptTrial
from rowcast.training.configurations import params_of
from rowcast.training.cross_validation import AfterFold, CrossValidator, FoldResult, TrialResult
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.fold_tasks import FoldEngine
from rowcast.training.models.candidate import Candidate, Params
from rowcast.training.trial_storage import FOLD_SECONDS, NO_TIME, SLOT, Study
from rowcast.training.trial_window import StartedTrial

FINAL_FIT: Final = 1.5
"""The expected duration of a fit on all training rows, relative to that of one fold in threefold cross-validation."""
LIKELY_MICROSECONDS: Final = 50.0
"""The assumed cost of scoring a row until every candidate has been tried, unless the preset has a lower limit."""
LEAST_SHARE: Final = 0.3
"""A trial whose fits can stop early starts only if at least this share of its expected duration remains."""
LATE_SECONDS: Final = 1.0
"""The time limit for a fit that this process repeats because the engine was too slow."""
KEPT_TRIALS: Final = 3
"""The number of trials of each candidate that can become members of an average."""


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
        return self._compare(lambda: self._cross_validate(candidate, params, after_fold), slot)

    def start_folds(self, folds: FoldEngine, candidate: Candidate, params: Params) -> list[Task[FoldResult]]:
        """Start cross-validating one configuration on an engine."""
        seconds = self._seconds_for(candidate)
        self.states[candidate.name].trials += 1
        return folds.start(candidate, params, seconds / self.validator.turns(candidate))

    def finish_folds(self, trial: StartedTrial, after_fold: Callable[[int, float], None]) -> TrialResult:
        """Wait for the folds of a trial; `after_fold` can stop the trial by raising an exception."""
        count = self._counting(trial.candidate, after_fold)
        results = self._results(trial)
        return self._compare(lambda: self.validator.combine(trial.candidate, trial.params, results, count), trial.slot)

    def _results(self, trial: StartedTrial) -> Iterator[FoldResult]:
        """Yield the results of the folds in order; raise TrialPruned if a fold takes longer than the time limit.

        If there is no model yet, this process fits a late fold itself, because the search must return a model.
        """
        for index, task in enumerate(trial.tasks):
            left = max(self.seconds_for_trial(), 0.0)
            try:
                result = task.result(left if left < np.inf else None)
            except TimeoutError:
                if self.has_model:
                    trial.trial.set_user_attr(NO_TIME, True)
                    raise optuna.TrialPruned from None
                task.cancel()
                setting = replace(self.validator.setting, jobs=1)
                result = self.validator.fit_fold(trial.candidate, trial.params, setting, index, LATE_SECONDS)
            yield result

    def _compare(self, validate: Callable[[], TrialResult], slot: int) -> TrialResult:
        """Validate a configuration, and keep the result if it is one of the best."""
        best = self.best_score
        self.stale_trials += 1
        result = validate()
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
        seconds = self._seconds_for(candidate)
        return self.validator.run(candidate, params, self._counting(candidate, after_fold), seconds=seconds)

    def _counting(self, candidate: Candidate, after_fold: Callable[[int, float], None]) -> AfterFold:
        state = self.states[candidate.name]

        def count(index: int, mean: float, seconds: float) -> None:
            state.seconds += seconds
            state.folds += 1
            after_fold(index, mean)

        return count

    def _seconds_for(self, candidate: Candidate) -> float:
        """Return the time limit for a candidate's trial."""
        seconds = self.seconds_for_trial()
        if self.states[candidate.name].score is None:  # leave time for the final fit, and for untried candidates
            turns = self.validator.turns(candidate)
            seconds *= turns / (turns + FINAL_FIT) / (1 + sum(map(self._is_untried, self.states)) / 2)
        return seconds

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
        """Return the expected duration of the final fits. The estimate includes all candidates, because any of them may
        be chosen.
        """
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
            remote = study.remote_trials(name)
            state.remote_trials = len(remote)
            for trial in remote:
                if trial.state != TrialState.COMPLETE or trial.value is None:
                    continue
                state.remote_fold_seconds = trial.user_attrs[FOLD_SECONDS]
                if trial.user_attrs[SLOT] not in state.repeated:
                    ranks.append((self._rank(trial.value, trial.user_attrs[SLOT]), trial))
            ranks.sort(key=lambda pair: pair[0])
            state.remote = [trial for _, trial in ranks[:KEPT_TRIALS] if trial is not None]
            if ranks:
                state.score = -metrics.sign(self.validator.metric) * ranks[0][0][0]

    def repeat_remote_trials(self, study: Study, progress: Progress) -> None:
        """Repeat the best trials from other processes, because the storage contains no out-of-fold scores.

        Other processes may finish better trials in the meantime, so continue until there is nothing left to repeat.
        """
        self.sync_remote_trials(study)
        while any(state.remote for state in self.states.values()):
            self._repeat(progress)
            self.sync_remote_trials(study)

    def _repeat(self, progress: Progress) -> None:
        sign = metrics.sign(self.validator.metric)
        for name, state in sorted(self.states.items(), key=lambda pair: -sign * (pair[1].score or 0.0)):
            trials, state.remote = state.remote, []
            for trial in trials:
                slot = trial.user_attrs[SLOT]
                state.repeated.add(slot)
                seconds = (len(self.validator.folds) + FINAL_FIT) * state.fold_seconds + self.final_fit_seconds()
                if self.has_local_model and self.seconds_left() < seconds:
                    continue
                message = f"repeating a {name} trial from another process"
                progress(TrainingEvent(stage="tune", message=message, best=trial.value))
                candidate, params = params_of(trial, slot, self.candidates, self.validator.setting)
                self._keep(self._cross_validate(candidate, params, lambda index, mean: None), slot)

    def is_better(self, left: float, right: float) -> bool:
        return left > right if self.validator.metric in metrics.GREATER else left < right
