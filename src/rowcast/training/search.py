"""The search: every candidate gets its good default, then Optuna spends the rest where it pays. Training part only."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Final, NamedTuple, cast

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import BaseTrial, FrozenTrial, TrialState
from threadpoolctl import threadpool_limits

from rowcast.errors import TrainingError
from rowcast.training import calibration as calibrate
from rowcast.training import features, metrics, split
from rowcast.training import trial_storage as study
from rowcast.training.calibration import Calibration
from rowcast.training.events import Progress, TrainingEvent
from rowcast.training.features import Features, Numbers, Style
from rowcast.training.models.candidate import Candidate, LabelledMatrix, Params, Raw, Setting
from rowcast.training.models.candidates import select
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Pipeline
from rowcast.training.problem import LabelledRows, LearningProblem
from rowcast.training.result import CandidateScore
from rowcast.training.trial_storage import FOLD_SECONDS, KIND, NO_TIME, SLOT, Study

LAST_FIT: Final = 1.5
"""Seconds for the whole training part against those for the two thirds of a fold."""


@dataclass(frozen=True)
class TrialResult:
    """One way to train, with what cross-validation says of it."""

    candidate: Candidate
    params: Params
    score: float
    raw: Raw
    """Out-of-fold raw scores of every row that judged."""


@dataclass(frozen=True)
class SearchResult:
    """The best attempt of each kind, best kind first, the training rows that judged them, and those of each fold.

    In order of time the first rows only learn: no fold judges by them.
    """

    attempts: tuple[TrialResult, ...]
    scores: tuple[CandidateScore, ...]
    judges: LabelledRows
    folds: tuple[NDArray[np.intp], ...]

    @property
    def best(self) -> TrialResult:
        return self.attempts[0]


@dataclass(frozen=True)
class Fold:
    """One cut of the training part."""

    train: LabelledRows
    valid: LabelledRows
    places: NDArray[np.intp]
    """Where the validated rows stand among all that judge."""


class FoldResult(NamedTuple):
    """A fold's raw scores of the rows it did not learn from."""

    raw: Raw
    rounds: int
    seconds: float


@dataclass
class Standing:
    """What is known of one candidate so far."""

    trials: int = 0
    seconds: float = 0.0
    folds: int = 0
    best: TrialResult | None = None
    theirs: FrozenTrial | None = None
    """The best trial of other processes, where it beats `best`."""
    repeat: int = 0
    """Folds to compute again before that trial can be trained here."""
    told_seconds: float = 0.0
    """What other processes say one fold takes."""

    @property
    def fold_seconds(self) -> float:
        """What one fit and its scoring usually take."""
        return self.seconds / self.folds if self.folds else self.told_seconds

    @property
    def score(self) -> float | None:
        """The best score of all processes."""
        if self.theirs is not None:
            return self.theirs.value
        return self.best.score if self.best else None


@dataclass
class Search:
    """Scores attempts; features of each fold are made once a style and shared by all trials."""

    problem: LearningProblem
    setting: Setting
    metric: str
    cuts: list[Fold]
    judges: LabelledRows
    standings: dict[str, Standing]
    seconds_left: Callable[[], float]
    _matrices: dict[tuple[int, Style], tuple[Numbers, Numbers]] = field(default_factory=dict)

    def attempt(self, candidate: Candidate, params: Params, after_fold: Callable[[int, float], None]) -> TrialResult:
        """Cross-validate one way to train; `after_fold` may stop it."""
        standing = self.standings[candidate.name]
        standing.trials += 1
        found = self._cross_validated(candidate, params, after_fold)
        if standing.best is None or self.better(found.score, standing.best.score):
            standing.best = found
        return found

    def _cross_validated(
        self, candidate: Candidate, params: Params, after_fold: Callable[[int, float], None]
    ) -> TrialResult:
        raw = np.zeros((len(self.judges), self.setting.width))
        scores, rounds = [], []
        standing = self.standings[candidate.name]
        with closing(self._judged(candidate, params)) as judged:
            for index, (fold, found) in enumerate(zip(self.cuts, judged, strict=True)):
                raw[fold.places] = found.raw
                scores.append(self._score(found.raw, fold.valid))
                rounds.append(found.rounds)
                standing.seconds += found.seconds
                standing.folds += 1
                after_fold(index, self._mean(scores))
        known = {"rounds": max(1, round(float(np.mean(rounds))))} if any(rounds) else {}
        return TrialResult(candidate, params | known, self._mean(scores), raw)

    def _judged(self, candidate: Candidate, params: Params) -> Generator[FoldResult, None, None]:
        """Every fold in order; side by side where there are threads for it, each fit with one."""
        if self.setting.jobs == 1 or not candidate.threadsafe:
            yield from (self._judge(candidate, params, self.setting, index) for index in range(len(self.cuts)))
            return
        for index in range(len(self.cuts)):
            self._matrix(index, candidate.style)  # not for several threads to make
        setting = replace(self.setting, jobs=1)
        pool = ThreadPoolExecutor(self.setting.jobs, "rowcast-fold")
        try:
            yield from pool.map(lambda index: self._judge(candidate, params, setting, index), range(len(self.cuts)))
        finally:
            pool.shutdown(cancel_futures=True)

    def _judge(self, candidate: Candidate, params: Params, setting: Setting, index: int) -> FoldResult:
        started, fold = time.monotonic(), self.cuts[index]
        train, valid = self._matrix(index, candidate.style)
        fitted = candidate.fit(labelled(train, fold.train), params, setting, labelled(valid, fold.valid))
        return FoldResult(fitted.raw(valid), fitted.params.get("rounds", 0), time.monotonic() - started)

    def _score(self, raw: Raw, rows: LabelledRows) -> float:
        answers = calibrate.uncalibrated(self.problem.task, self.problem.class_weights).answers(raw)
        return metrics.score(self.metric, answers, rows.target, self.problem.task, rows.weight)

    def _mean(self, scores: list[float]) -> float:
        """Of the folds that can be scored: one without a positive row has no AUC."""
        finite = [score for score in scores if np.isfinite(score)]
        worst = 0.0 if self.metric in metrics.GREATER else 1e300
        return float(np.mean(finite)) if finite else worst

    def _matrix(self, index: int, style: Style) -> tuple[Numbers, Numbers]:
        if (index, style) not in self._matrices:
            fold = self.cuts[index]
            made, train = fit_features(self.problem, fold.train, style)
            self._matrices[index, style] = train, made.transform(fold.valid.numbers, fold.valid.texts)
        return self._matrices[index, style]

    def has_time_for_a_fold(self, candidate: Candidate) -> bool:
        """Whether the next fold will end in time, as far as earlier folds of this kind tell, and what was found can be
        trained after it. The first model is always finished: without it there is nothing to keep."""
        if all(standing.score is None for standing in self.standings.values()):
            return True
        return self.seconds_left() > self.standings[candidate.name].fold_seconds + self.last_fits()

    def last_fits(self) -> float:
        """Seconds to train the best of every kind on the whole training part: any of them may be chosen."""
        known = [standing for standing in self.standings.values() if standing.score is not None]
        return sum((LAST_FIT + standing.repeat) * standing.fold_seconds for standing in known)

    def look_around(self, shared: Study) -> None:
        """Note what other processes found, as long as nothing here is better."""
        for name, standing in self.standings.items():
            standing.theirs, standing.repeat = None, 0
            for trial in shared.elsewhere(name):
                if trial.state != TrialState.COMPLETE or trial.value is None:
                    continue
                standing.told_seconds = trial.user_attrs[FOLD_SECONDS]
                if standing.score is None or self.better(trial.value, standing.score):
                    standing.theirs, standing.repeat = trial, len(self.cuts)

    def repeat_theirs(self, candidates: dict[str, Candidate], progress: Progress) -> None:
        """Cross-validate what other processes found again: their out-of-fold scores are known to them alone."""
        sign = -1.0 if self.metric in metrics.GREATER else 1.0
        for name, standing in sorted(self.standings.items(), key=lambda pair: sign * (pair[1].score or 0.0)):
            trial, standing.theirs, standing.repeat = standing.theirs, None, 0
            if trial is None:
                continue
            needed = (len(self.cuts) + LAST_FIT) * standing.fold_seconds + self.last_fits()
            if any(each.best for each in self.standings.values()) and self.seconds_left() < needed:
                continue
            progress(TrainingEvent(stage="tune", message=f"the best {name} of another process again", best=trial.value))
            candidate, params = _params(trial, trial.user_attrs[SLOT], candidates, self.setting)
            standing.best = self._cross_validated(candidate, params, lambda index, mean: None)

    def better(self, left: float, right: float) -> bool:
        return left > right if self.metric in metrics.GREATER else left < right


def fit_features(problem: LearningProblem, rows: LabelledRows, style: Style) -> tuple[Features, Numbers]:
    """Features learnt from these rows, and their matrix."""
    if problem.task == "multiclass":
        wanted = np.eye(problem.width)[rows.target]
    else:
        wanted = rows.target.astype(np.float64)[:, None]
    return features.fit(rows.numbers, rows.texts, wanted, style, split.make_inner_folds(rows.tie), rows.weight)


def labelled(matrix: Numbers, rows: LabelledRows) -> LabelledMatrix:
    """The matrix of these rows, as a candidate learns from it."""
    return LabelledMatrix(matrix, rows.target, rows.emphasis)


def search(problem: LearningProblem, options: TrainingOptions, progress: Progress) -> tuple[SearchResult, Setting]:
    """The best way to train that the trials and the time allow; Ctrl-C keeps the best so far."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # a failure is told once, by whoever catches it
    started = time.monotonic()

    def seconds_left() -> float:
        return np.inf if options.timeout is None else options.timeout - (time.monotonic() - started)

    def out_of_time() -> bool:
        return seconds_left() <= trying.last_fits()

    setting = Setting(problem.task, problem.width, len(problem.training), options.seed, options.jobs, out_of_time)
    candidates = {candidate.name: candidate for candidate in select(options.candidates, problem.task)}
    metric = metrics.resolve(options.metric, problem.task)
    standings = {name: Standing() for name in candidates}
    trying = Search(problem, setting, metric, *_cuts(problem, options), standings, seconds_left)
    total = max(options.trials, len(candidates))
    shared = study.open_study(options, problem.sha256, metric, total)
    with threadpool_limits(setting.threads):
        TrialRunner(trying, candidates, shared, total, progress).run()
    found = {name: standing.best for name, standing in trying.standings.items() if standing.best is not None}
    if not found:
        raise TrainingError("the search was stopped before one model was trained; give it more time")
    sign = -1 if metric in metrics.GREATER else 1
    ranked = sorted(found, key=lambda name: sign * found[name].score)
    trials = {name: standings[name].trials + len(shared.elsewhere(name)) for name in ranked}
    scores = tuple(_score_of(found[name], standings[name], trials[name]) for name in ranked)
    places = tuple(cut.places for cut in trying.cuts)
    return SearchResult(tuple(found[name] for name in ranked), scores, trying.judges, places), setting


@dataclass
class TrialRunner:
    """Tries what the study asks for, slot by slot, until the trials or the time are used up."""

    trying: Search
    candidates: dict[str, Candidate]
    shared: Study
    total: int
    progress: Progress

    def __post_init__(self) -> None:
        self._started, self._before = time.monotonic(), self.shared.done

    def run(self) -> None:
        """Ctrl-C ends it early, once there is something to keep."""
        self.trying.look_around(self.shared)
        try:
            self.shared.optimise(self._objective, self._stop_in_time)
        except KeyboardInterrupt:
            if all(standing.score is None for standing in self.trying.standings.values()):
                raise
            self.progress(TrainingEvent(stage="tune", message="interrupted: the best so far is kept"))
        try:
            self.trying.repeat_theirs(self.candidates, self.progress)
        except KeyboardInterrupt:
            if not any(standing.best for standing in self.trying.standings.values()):
                raise

    def _objective(self, trial: optuna.Trial) -> float:
        slot = self.shared.claim(trial)
        if slot is None:
            trial.study.stop()
            return float("nan")  # a trial that failed holds no slot
        candidate, params = _params(trial, slot, self.candidates, self.trying.setting)
        trial.set_user_attr(KIND, candidate.name)

        def after_fold(index: int, mean: float) -> None:
            trial.report(mean, index)
            if index + 1 == len(self.trying.cuts):
                return
            if slot >= len(self.candidates) and trial.should_prune():  # every kind may show its default
                raise optuna.TrialPruned
            self._stop_without_time(trial, candidate)

        self._stop_without_time(trial, candidate)
        try:
            return self.trying.attempt(candidate, params, after_fold).score
        finally:
            trial.set_user_attr(FOLD_SECONDS, self.trying.standings[candidate.name].fold_seconds)
            self._tell(candidate.name)

    def _stop_without_time(self, trial: optuna.Trial, candidate: Candidate) -> None:
        if not self.trying.has_time_for_a_fold(candidate):
            trial.set_user_attr(NO_TIME, True)
            raise optuna.TrialPruned

    def _stop_in_time(self, found: optuna.Study, _trial: FrozenTrial) -> None:
        candidates = self.candidates.values()
        if self.shared.is_used_up or not any(self.trying.has_time_for_a_fold(each) for each in candidates):
            found.stop()

    def _tell(self, name: str) -> None:
        self.trying.look_around(self.shared)
        done = self.shared.done + 1  # with the one that is about to end
        spent = time.monotonic() - self._started
        left = spent / (done - self._before) * max(self.total - done, 0)
        self.progress(_event(self.trying, name, min(done, self.total), self.total, left))


def _params(
    trial: BaseTrial, slot: int, candidates: dict[str, Candidate], setting: Setting
) -> tuple[Candidate, Params]:
    """What a trial tries: the good defaults of every kind first, then what the sampler thought best."""
    starts = _starts(candidates.values(), setting)
    if slot < len(starts):
        return starts[slot]
    candidate = candidates[trial.suggest_categorical("candidate", list(candidates))]
    return candidate, candidate.suggest(cast(optuna.Trial, trial), setting)  # a finished trial suggests what it had


def _starts(candidates: Iterable[Candidate], setting: Setting) -> list[tuple[Candidate, Params]]:
    """The first guess of every kind, then the second guesses."""
    guesses = [[(candidate, params) for params in candidate.starts(setting)] for candidate in candidates]
    return [guess for turn in zip_longest(*guesses) for guess in turn if guess is not None]


def _event(trying: Search, name: str, done: int, total: int, left: float) -> TrainingEvent:
    scores = [standing.score for standing in trying.standings.values() if standing.score is not None]
    best = None if not scores else max(scores) if trying.metric in metrics.GREATER else min(scores)
    return TrainingEvent(
        stage="tune",
        message=f"{trying.metric} by {len(trying.cuts)}-fold cross-validation",
        trial=done,
        trials=total,
        candidate=name,
        best=best,
        seconds_left=max(0.0, min(left, trying.seconds_left())),
    )


def _cuts(problem: LearningProblem, options: TrainingOptions) -> tuple[list[Fold], LabelledRows]:
    """The folds, and the rows that judge in one of them."""
    rows = problem.training
    sides = split.make_folds(rows.target, problem.task, options.folds, options.seed, rows.tie)
    judging = np.sort(np.concatenate([judge for _, judge in sides]))
    cuts = [Fold(rows.take(learn), rows.take(judge), np.searchsorted(judging, judge)) for learn, judge in sides]
    return cuts, rows if len(judging) == len(rows) else rows.take(judging)


def _score_of(best: TrialResult, standing: Standing, trials: int) -> CandidateScore:
    return CandidateScore(best.candidate.name, best.score, trials, round(standing.seconds, 3))


def train_best(problem: LearningProblem, best: TrialResult, setting: Setting, calibration: Calibration) -> Pipeline:
    """The chosen way, on the whole training part."""
    made, matrix = fit_features(problem, problem.training, best.candidate.style)
    with threadpool_limits(setting.threads):
        fitted = best.candidate.fit(labelled(matrix, problem.training), best.params, setting)
    return Pipeline(problem.task, problem.positive, made, fitted, calibration)
