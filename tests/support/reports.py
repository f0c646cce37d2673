"""An evaluated model for report tests; its graph computes a formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.encoding import own_plan
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.training.cost import Cost
from rowcast.training.problem import LabelledRows
from rowcast.training.report.evaluation import EvaluatedModel


class SigmoidGraph:
    """A two-class graph that uses only one column and counts the rows that it scores."""

    def __init__(self, feature: int = 0) -> None:
        self.scored = 0
        self._feature = feature

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        (values,) = tensors.values()
        self.scored += len(values)
        positive = 1 / (1 + np.exp(-values[:, self._feature]))
        return np.stack([1 - positive, positive], axis=1).astype(np.float32)


def evaluated_model(
    count: int = 500,
    *,
    row_cost: float = 10.0,
    threshold: float = 0.5,
    metric: str = "roc_auc",
    cost: Cost | None = None,
) -> EvaluatedModel:
    """Return a model with the columns `used` and `idle`; the target depends only on `used` and random noise."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(count, 2)).astype(np.float32)
    target = (numbers[:, 0] + rng.normal(size=count) > 0).astype(np.int64)
    schema = Schema((Column(name="used", kind="number"), Column(name="idle", kind="number")))
    return EvaluatedModel(
        graph=SigmoidGraph(),
        row_microseconds=12.5,
        row_cost=row_cost,
        decision=Decision(task="binary", classes=("no", "yes"), positive=1, threshold=threshold),
        metric=metric,
        schema=schema,
        plan=own_plan(schema),
        rows=LabelledRows(numbers, np.empty((count, 0), object), target, np.arange(count)),
        output=SigmoidGraph().run({"numbers": numbers}),
        seed=0,
        cost=cost,
    )
