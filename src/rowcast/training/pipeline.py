"""The trained model as Python runs it: the reference that the exported graph must repeat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.domain.prediction import Task
from rowcast.training.calibrate import Calibration
from rowcast.training.candidate import Fitted
from rowcast.training.features import Features, Numbers, Texts


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
