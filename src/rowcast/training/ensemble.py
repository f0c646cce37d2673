"""Which models answer in the end: the best one, or a few of different kinds whose answers are averaged.

Decided on out-of-fold answers alone. One model is served faster than several: they must win by more than a hair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training import calibration as calibrate
from rowcast.training import metrics
from rowcast.training.calibration import Calibration
from rowcast.training.models.candidate import Setting
from rowcast.training.pipeline import Ensemble, Pipeline, Trained
from rowcast.training.problem import LearningProblem
from rowcast.training.search import SearchResult, TrialResult, train_best

PICKS: Final = 8
MOST: Final = 4
LEAST_GAIN: Final = 0.01
"""Share of the way to perfect, below which a second model is not worth its time in every answer."""

Answers = NDArray[np.float64]


@dataclass(frozen=True)
class EnsembleMember:
    """One way to train, how its scores become answers, and its share in the average."""

    attempt: TrialResult
    calibration: Calibration
    weight: float

    def answers(self) -> Answers:
        """Out-of-fold, as metrics read them."""
        return self.calibration.answers(self.attempt.raw)


@dataclass(frozen=True)
class Choice:
    """What will be trained on all training rows."""

    members: tuple[EnsembleMember, ...]
    score: float

    @property
    def name(self) -> str:
        return "ensemble" if len(self.members) > 1 else self.members[0].attempt.candidate.name

    @property
    def weights(self) -> dict[str, float]:
        """Each member's share in the average."""
        return {member.attempt.candidate.name: member.weight for member in self.members}

    def answers(self) -> Answers:
        """Out-of-fold answers of the average."""
        return np.asarray(sum(member.weight * member.answers() for member in self.members))


@dataclass(frozen=True)
class FoldScorer:
    """Scores answers fold by fold."""

    metric: str
    task: Task
    target: NDArray[Any]
    weight: NDArray[np.float64] | None
    folds: Sequence[NDArray[np.intp]]

    def scores(self, answers: Answers) -> NDArray[np.float64]:
        """One score a fold, the greater the better; NaN where a fold cannot be scored."""
        sign = 1.0 if self.metric in metrics.GREATER else -1.0
        weights = [None if self.weight is None else self.weight[fold] for fold in self.folds]
        return np.array(
            [
                sign * metrics.score(self.metric, answers[fold], self.target[fold], self.task, weight)
                for fold, weight in zip(self.folds, weights, strict=True)
            ]
        )

    def mean(self, answers: Answers) -> float:
        scores = self.scores(answers)
        return float(scores[np.isfinite(scores)].mean()) if np.isfinite(scores).any() else -np.inf


def choose(found: SearchResult, problem: LearningProblem, metric: str) -> Choice:
    """The best model, or the average of a few when that is better."""
    judges = found.judges
    rivals = [
        EnsembleMember(
            each, calibrate.fit(each.raw, judges.target, problem.task, judges.weight, problem.class_weights), 1.0
        )
        for each in found.attempts
    ]
    single = Choice((rivals[0],), found.best.score)
    if len(rivals) == 1:
        return single
    jury = FoldScorer(metric, problem.task, judges.target, judges.weight, found.folds)
    answers = [rival.answers() for rival in rivals]
    picked = Counter(_greedy(jury, answers))
    if len(picked) == 1:
        return single
    total = picked.total()
    members = [
        EnsembleMember(rivals[place].attempt, rivals[place].calibration, count / total)
        for place, count in sorted(picked.items())
    ]
    several = Choice(tuple(members), 0.0)
    if not _worth_it(jury.scores(several.answers()) - jury.scores(answers[0]), found.best.score, metric):
        return single
    return Choice(several.members, abs(jury.mean(several.answers())))


def _greedy(jury: FoldScorer, answers: Sequence[Answers]) -> list[int]:
    """Picks with repetition, each the one that helps the average most, from the best rival on (Caruana, 2004)."""
    picks, total = [0], answers[0]
    best, kept = jury.mean(total), 1
    while len(picks) < PICKS:
        open_to = range(len(answers)) if len(set(picks)) < MOST else sorted(set(picks))
        gains = {place: jury.mean((total + answers[place]) / (len(picks) + 1)) for place in open_to}
        place = max(gains, key=lambda each: gains[each])
        picks.append(place)
        total = total + answers[place]
        if gains[place] > best:
            best, kept = gains[place], len(picks)
    return picks[:kept]


def _worth_it(gains: NDArray[np.float64], score: float, metric: str) -> bool:
    gains = gains[np.isfinite(gains)]
    missing = 1.0 - score if metric in metrics.GREATER else score
    return bool(len(gains) and gains.mean() > LEAST_GAIN * missing)


def train_choice(problem: LearningProblem, choice: Choice, setting: Setting) -> Trained:
    """The chosen models on the whole training part."""
    trained = [train_best(problem, member.attempt, setting, member.calibration) for member in choice.members]
    if len(trained) == 1:
        return trained[0]
    return Ensemble(tuple(trained), tuple(member.weight for member in choice.members))


def describe(choice: Choice, trained: Trained) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the fingerprint says of the settings and of the calibration."""
    if isinstance(trained, Pipeline):
        return dict(trained.estimator.params), _calibration(trained.calibration)
    members = [
        {
            "candidate": member.attempt.candidate.name,
            "weight": member.weight,
            "params": dict(pipeline.estimator.params),
            "calibration": _calibration(pipeline.calibration),
        }
        for member, pipeline in zip(choice.members, trained.members, strict=True)
    ]
    return {"members": members}, {"method": "of each member"}


def _calibration(found: Calibration) -> dict[str, Any]:
    shifts = {"shifts": list(found.shifts)} if found.shifts else {}
    return {"method": found.method, "scale": found.scale, "shift": found.shift, **shifts}
