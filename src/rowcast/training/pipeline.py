"""The trained model in Python: a pipeline, a bag, or an average of pipelines and bags.

The exported graph is compared with this model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training.calibration import Calibration
from rowcast.training.features import Features, Numbers, Texts
from rowcast.training.models.candidate import Estimator, Params, Raw, TreeEstimator
from rowcast.training.onnx_graph import GraphBuilder
from rowcast.training.presets import Size

Thresholds = Mapping[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Pipeline:
    """The features, estimator and calibration of one model."""

    task: Task
    positive: int
    features: Features
    estimator: Estimator
    calibration: Calibration

    @property
    def params(self) -> Params:
        return dict(self.estimator.params)

    @property
    def size(self) -> Size:
        return self.estimator.size

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Return probabilities [N, k] in the order of the classes, or values [N], in float64."""
        return _finish(self, self.estimator.raw(self.features.transform(numbers, texts)))

    def emit_raw(self, graph: GraphBuilder, numbers: str, texts: str) -> str:
        """Add the features and the estimator to a graph, and return the name of the raw scores [N, k]."""
        return self.estimator.emit(graph, self.features.emit(graph, numbers, texts))

    def thresholds(self) -> Thresholds:
        """Return the tree thresholds of each feature."""
        return self.estimator.thresholds()


@dataclass(frozen=True)
class Bag:
    """The average of the models of all folds, which becomes one table of trees in the graph."""

    task: Task
    positive: int
    features: Features
    """The features of all training rows. The target means of a fold were used only to train its estimator."""
    estimators: tuple[TreeEstimator, ...]
    """The estimator of each fold, scaled so that the sums of all estimators add up to the average."""
    calibration: Calibration

    @property
    def params(self) -> Params:
        """The parameters, including the number of rounds of each fold's model."""
        params = dict(self.estimators[0].params)
        if "rounds" in params:
            params["rounds"] = [estimator.params["rounds"] for estimator in self.estimators]
        return params | {"folds": len(self.estimators)}

    @property
    def size(self) -> Size:
        return reduce(add, (estimator.size for estimator in self.estimators))

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Return probabilities [N, k] in the order of the classes, or values [N], in float64."""
        matrix = self.features.transform(numbers, texts)
        sums: Raw = reduce(add, (estimator.sums(matrix) for estimator in self.estimators))
        return _finish(self, self.estimators[0].link(sums))

    def emit_raw(self, graph: GraphBuilder, numbers: str, texts: str) -> str:
        """Add the features and the trees of all folds to a graph, and return the name of the raw scores [N, k]."""
        trees = reduce(add, (estimator.trees() for estimator in self.estimators))
        return self.estimators[0].emit_link(graph, trees.emit(graph, self.features.emit(graph, numbers, texts)))

    def thresholds(self) -> Thresholds:
        """Return the tree thresholds of all folds. Numeric columns have the same feature indices in every fold."""
        return _union(estimator.thresholds() for estimator in self.estimators)


@dataclass(frozen=True)
class Ensemble:
    """A weighted average of several models with the same input columns."""

    members: tuple[Pipeline | Bag, ...]
    weights: tuple[float, ...]

    @property
    def task(self) -> Task:
        return self.members[0].task

    @property
    def size(self) -> Size:
        return reduce(add, (member.size for member in self.members))

    def predict(self, numbers: Numbers, texts: Texts) -> NDArray[Any]:
        """Return probabilities [N, k] in the order of the classes, or values [N], in float64."""
        predictions = (member.predict(numbers, texts) for member in self.members)
        return np.asarray(sum(weight * each for weight, each in zip(self.weights, predictions, strict=True)))

    def thresholds(self) -> Thresholds:
        """Return the tree thresholds of all members. Numeric columns have the same feature indices in every member."""
        return _union(member.thresholds() for member in self.members)


Trained = Pipeline | Bag | Ensemble


def _finish(model: Pipeline | Bag, raw: Raw) -> Raw:
    """Convert raw scores into probabilities or values."""
    if model.task == "regression":
        return raw[:, 0]
    if model.task == "multiclass":
        return model.calibration.classes(raw)
    p = model.calibration.positive(raw)
    return np.stack([1 - p, p] if model.positive == 1 else [p, 1 - p], axis=1)


def _union(models: Iterable[Thresholds]) -> Thresholds:
    merged: dict[int, list[NDArray[np.float32]]] = {}
    for thresholds in models:
        for feature, values in thresholds.items():
            merged.setdefault(feature, []).append(values)
    return {feature: np.unique(np.concatenate(values)) for feature, values in sorted(merged.items())}
