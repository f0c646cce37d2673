"""Choose between the best single model and a weighted average of several models (an ensemble).

The choice is based only on out-of-fold predictions. The preset limits the number of members and the estimated cost of
scoring a row (decision 0017).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training import calibration, metrics
from rowcast.training.calibration import Calibration
from rowcast.training.cross_validation import TrialResult, bag, refit_bag, train_final
from rowcast.training.models.candidate import Setting
from rowcast.training.options import TrainingOptions
from rowcast.training.pipeline import Ensemble, Trained
from rowcast.training.presets import Preset, Size
from rowcast.training.problem import LearningProblem
from rowcast.training.search import SearchResult

PICKS: Final = 25
MOST_ROWS: Final = 20_000
"""The approximate number of rows used to choose the members. The number is limited because hundreds of averages are
scored.
"""

Predictions = NDArray[np.float64]


@dataclass(frozen=True)
class EnsembleMember:
    """A trial result with its calibration and its weight in the ensemble."""

    trial: TrialResult
    calibration: Calibration
    weight: float

    def predictions(self) -> Predictions:
        """Return the out-of-fold predictions in the form that the metrics expect."""
        return self.calibration.predictions(self.trial.raw)


@dataclass(frozen=True)
class Choice:
    """The chosen model, not yet trained on all training rows, and its cross-validated score."""

    members: tuple[EnsembleMember, ...]
    score: float

    @property
    def name(self) -> str:
        """The name of the candidate, or `ensemble` if there are several members."""
        return "ensemble" if len(self.members) > 1 else self.members[0].trial.candidate.name

    @property
    def weights(self) -> dict[str, float]:
        """The weight of each candidate in the average: the total weight of the members that it produced."""
        weights: dict[str, float] = {}
        for member in self.members:
            weights[member.trial.candidate.name] = weights.get(member.trial.candidate.name, 0.0) + member.weight
        return weights

    @property
    def row_microseconds(self) -> float:
        """The estimated cost of scoring a row."""
        return sum(member.trial.size.microseconds for member in self.members)

    @property
    def fit_seconds(self) -> float:
        """The total duration of the members' cross-validation."""
        return sum(member.trial.seconds for member in self.members)

    def predictions(self) -> Predictions:
        """Return the weighted average of the members' out-of-fold predictions."""
        return np.asarray(sum(member.weight * member.predictions() for member in self.members))


@dataclass(frozen=True)
class FoldScorer:
    """Computes the metric for out-of-fold predictions, separately for each fold."""

    metric: str
    task: Task
    target: NDArray[Any]
    weight: NDArray[np.float64] | None
    folds: Sequence[NDArray[np.intp]]

    def scores(self, predictions: Predictions) -> NDArray[np.float64]:
        """Return the score of each fold, signed so that higher is better. An undefined score is NaN."""
        sign = metrics.sign(self.metric)
        weights = [None if self.weight is None else self.weight[fold] for fold in self.folds]
        return np.array(
            [
                sign * metrics.score(self.metric, predictions[fold], self.target[fold], self.task, weight)
                for fold, weight in zip(self.folds, weights, strict=True)
            ]
        )

    def mean(self, predictions: Predictions) -> float:
        """Return the mean of the defined fold scores."""
        scores = self.scores(predictions)
        return float(scores[np.isfinite(scores)].mean()) if np.isfinite(scores).any() else -np.inf


def choose(result: SearchResult, problem: LearningProblem, metric: str, preset: Preset) -> Choice:
    """Return the best single model, or an ensemble if it is better."""
    rows = result.validation
    rivals = [
        EnsembleMember(
            trial,
            calibration.fit(
                trial.raw, rows.target, problem.task, weight=rows.weight, class_weights=problem.class_weights
            ),
            1.0,
        )
        for trial in _affordable(result.trials, preset)
    ]
    single = Choice((rivals[0],), rivals[0].trial.score)
    if len(rivals) == 1 or preset.members == 1:
        return single
    scorer = FoldScorer(metric, problem.task, rows.target, rows.weight, result.folds)
    step = max(1, len(rows) // MOST_ROWS)
    quick = replace(scorer, folds=[fold[::step] for fold in result.folds])
    predictions = [rival.predictions() for rival in rivals]
    sizes = [rival.trial.size for rival in rivals]
    picks = Counter(_pick_greedily(quick, predictions, sizes, preset))
    if len(picks) == 1:
        return single
    total = picks.total()
    members = [
        EnsembleMember(rivals[index].trial, rivals[index].calibration, count / total)
        for index, count in sorted(picks.items())
    ]
    average = Choice(tuple(members), 0.0)
    score = scorer.mean(average.predictions())
    return Choice(average.members, abs(score)) if score > scorer.mean(predictions[0]) else single


def _affordable(trials: Sequence[TrialResult], preset: Preset) -> Sequence[TrialResult]:
    """Return the trials whose models the preset allows; if there are none, return the trial with the lowest cost."""
    allowed = [trial for trial in trials if preset.allows([trial.size])]
    return allowed or [min(trials, key=lambda trial: trial.size.microseconds)]


def _pick_greedily(
    scorer: FoldScorer, predictions: Sequence[Predictions], sizes: Sequence[Size], preset: Preset
) -> list[int]:
    """Start with the best model and repeatedly add the model that yields the best average (Caruana, 2004).

    A model can be added several times. Models that were added after the best average was reached are dropped.
    """
    picks, total = [0], predictions[0]
    best, best_length = scorer.mean(total), 1
    while len(picks) < PICKS:
        chosen = sorted(set(picks))
        options = [
            index
            for index in range(len(predictions))
            if index in chosen or preset.allows([sizes[each] for each in [*chosen, index]])
        ]
        means = {index: scorer.mean((total + predictions[index]) / (len(picks) + 1)) for index in options}
        index = max(means, key=lambda each: means[each])
        picks.append(index)
        total = total + predictions[index]
        if means[index] > best:
            best, best_length = means[index], len(picks)
    return picks[:best_length]


def train_choice(problem: LearningProblem, choice: Choice, setting: Setting) -> Trained:
    """Train the chosen model on all training rows."""
    trained = [
        bag(problem, member.trial, member.calibration)
        if member.trial.is_bagged
        else train_final(problem, member.trial, setting, member.calibration)
        for member in choice.members
    ]
    if len(trained) == 1:
        return trained[0]
    return Ensemble(tuple(trained), tuple(member.weight for member in choice.members))


def refit_choice(
    choice: Choice, problem: LearningProblem, setting: Setting, options: TrainingOptions, metric: str
) -> Choice:
    """Return the choice with new fold models that are fitted to the rows of `problem`."""
    members = []
    for member in choice.members:
        if member.trial.is_bagged:
            member = replace(member, trial=refit_bag(problem, member.trial, setting, options, metric))
        members.append(member)
    return replace(choice, members=tuple(members))


def describe(choice: Choice, trained: Trained) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters and the calibration to record in the bundle's training fingerprint."""
    if not isinstance(trained, Ensemble):
        return trained.params, _describe_calibration(trained.calibration)
    members = [
        {
            "candidate": member.trial.candidate.name,
            "weight": member.weight,
            "params": model.params,
            "calibration": _describe_calibration(model.calibration),
        }
        for member, model in zip(choice.members, trained.members, strict=True)
    ]
    return {"members": members}, {"method": "of each member"}


def _describe_calibration(calibration: Calibration) -> dict[str, Any]:
    shifts = {"shifts": list(calibration.shifts)} if calibration.shifts else {}
    return {"method": calibration.method, "scale": calibration.scale, "shift": calibration.shift, **shifts}
