"""The trained model in Python: a pipeline or an ensemble of pipelines. It is the reference for the exported graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training.calibration import Calibration
from rowcast.training.features import Features, Numbers, Texts
from rowcast.training.models.candidate import Estimator


@dataclass(frozen=True)
class Pipeline:
    """The features, estimator and calibration of one model."""

    task: Task
    positive: int
    features: Features
    estimator: Estimator
    calibration: Calibration

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Return probabilities [N, k] in the order of the classes, or values [N], in float64."""
        return self.finish(self.estimator.raw(self.features.transform(numbers, texts)))

    def finish(self, raw: NDArray[np.float64]) -> NDArray[np.float64]:
        """Convert raw scores into probabilities or values."""
        if self.task == "regression":
            return raw[:, 0]
        if self.task == "multiclass":
            return self.calibration.classes(raw)
        p = self.calibration.positive(raw)
        return np.stack([1 - p, p] if self.positive == 1 else [p, 1 - p], axis=1)

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        """Return the tree thresholds of each feature."""
        return self.estimator.thresholds()


@dataclass(frozen=True)
class Ensemble:
    """A weighted average of several models with the same input columns."""

    members: tuple[Pipeline, ...]
    weights: tuple[float, ...]

    @property
    def task(self) -> Task:
        return self.members[0].task

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Return probabilities [N, k] in the order of the classes, or values [N], in float64."""
        predictions = (member.predict(numbers, texts) for member in self.members)
        return np.asarray(sum(weight * each for weight, each in zip(self.weights, predictions, strict=True)))

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        """Return the tree thresholds of all members. Numeric columns have the same feature indices in every member."""
        union: dict[int, NDArray[np.float32]] = {}
        for member in self.members:
            for feature, thresholds in member.thresholds().items():
                union[feature] = np.union1d(union.get(feature, thresholds), thresholds)
        return dict(sorted(union.items()))


Trained = Pipeline | Ensemble
