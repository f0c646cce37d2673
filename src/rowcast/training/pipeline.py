"""The trained model as Python runs it, one or an average of a few: the reference that the graph must repeat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training.calibration import Calibration
from rowcast.training.features import Features, Numbers, Texts
from rowcast.training.models.candidate import Fitted


@dataclass(frozen=True)
class Pipeline:
    """Features, estimator and calibration of one model."""

    task: Task
    positive: int
    features: Features
    estimator: Fitted
    calibration: Calibration

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Probabilities [N, k] in the order of the classes, or values [N]; float64."""
        return self.finish(self.estimator.raw(self.features.transform(numbers, texts)))

    def finish(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Raw scores to the model's output."""
        if self.task == "regression":
            return raw[:, 0]
        if self.task == "multiclass":
            return self.calibration.classes(raw)
        p = self.calibration.positive(raw)
        return np.stack([1 - p, p] if self.positive == 1 else [p, 1 - p], axis=1)

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        """Where the model jumps, by feature."""
        return self.estimator.thresholds()


@dataclass(frozen=True)
class Ensemble:
    """Models of different kinds over the same columns; the weighted average of their answers."""

    members: tuple[Pipeline, ...]
    weights: tuple[float, ...]

    @property
    def task(self) -> Task:
        return self.members[0].task

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Probabilities [N, k] in the order of the classes, or values [N]; float64."""
        answers = (member.predict(numbers, texts) for member in self.members)
        return np.asarray(sum(weight * answer for weight, answer in zip(self.weights, answers, strict=True)))

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        """Where any member jumps, by feature; the numbers are the first features of every member."""
        found: dict[int, NDArray[np.float32]] = {}
        for member in self.members:
            for feature, each in member.thresholds().items():
                found[feature] = np.union1d(found.get(feature, each), each)
        return dict(sorted(found.items()))


Trained = Pipeline | Ensemble
