"""The interfaces of candidates (kinds of models) and of estimators (fitted models).

An estimator returns raw scores [N, k]: the log-odds of the positive class, one score per class, or the value. It
computes them in two steps: `sums` adds up the leaves or terms of a row, and `link` converts the sums into raw scores.
The average of several estimators is therefore the average of their sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import optuna
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training.features import Numbers, Style
from rowcast.training.onnx_graph import GraphBuilder, Matrix, Trees
from rowcast.training.presets import Preset, Size

MANY_ROWS: Final = 50_000
Params = dict[str, Any]
Raw = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """Settings that all fits of a training run share."""

    task: Task
    width: int
    """The number of raw scores per row."""
    rows: int
    """The number of training rows."""
    seed: int
    jobs: int
    out_of_time: Callable[[], bool]
    """Whether a fit should stop early because of the time limit."""
    preset: Preset
    bags: int = 1
    """The number of fold models whose average is served; 1 if one model is fitted to all training rows."""

    @property
    def threads(self) -> int:
        """The number of threads for one fit. With few rows, synchronization takes ten times as long as computation."""
        return self.jobs if self.rows >= MANY_ROWS else 1


class LabelledMatrix(NamedTuple):
    """A feature matrix with the target of each row."""

    matrix: Numbers
    target: NDArray[Any]
    weight: NDArray[np.float64] | None = None
    """Row weights with a mean of 1; None if all rows have equal weight."""


class Estimator(Protocol):
    """A trained estimator."""

    @property
    def params(self) -> Params:
        """Parameters that are sufficient to refit the estimator without validation rows."""
        ...

    def raw(self, matrix: Numbers) -> Raw:
        """Return the raw scores [N, k] as the training library computes them."""
        ...

    def emit(self, graph: GraphBuilder, matrix: Matrix) -> str:
        """Add the estimator to a graph and return the name of the raw scores, float32 [N, k]."""
        ...

    @property
    def size(self) -> Size:
        """The number of trees and nodes."""
        ...

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        """Return the split thresholds of each feature in the matrix. A model without splits returns no thresholds."""
        ...


@runtime_checkable
class TreeEstimator(Estimator, Protocol):
    """An estimator that consists of trees, so that the average of several estimators is one table of trees."""

    def sums(self, matrix: Numbers) -> Raw:
        """Return the sum of each row's leaves in all trees, [N, k]."""
        ...

    def link(self, sums: Raw) -> Raw:
        """Convert the sums of all averaged estimators into raw scores."""
        ...

    def emit_link(self, graph: GraphBuilder, sums: str) -> str:
        """Add `link` to a graph and return the name of the raw scores."""
        ...

    def trees(self) -> Trees:
        """Return the trees as a flat table."""
        ...

    def reduced(self, trees: int, nodes: int) -> TreeEstimator:
        """Return the estimator, reduced to these limits if its trees do not depend on each other."""
        ...

    def averaged(self, others: Sequence[Any]) -> Sequence[TreeEstimator]:
        """Scale this estimator and the others so that adding up their `sums` yields the average; return them."""
        ...


@runtime_checkable
class StagedEstimator(Estimator, Protocol):
    """An estimator that is trained in rounds. Its state after any of these rounds can be restored."""

    @property
    def losses(self) -> Sequence[float]:
        """The validation loss after each round; empty if the number of rounds was given."""
        ...

    def after(self, rounds: int) -> StagedEstimator:
        """Return the state of this estimator after a number of rounds, or after its last round."""
        ...


class Candidate(Protocol):
    """A kind of model that can be trained."""

    @property
    def name(self) -> str: ...

    @property
    def style(self) -> Style:
        """The preprocessing that the candidate needs."""
        ...

    @property
    def tasks(self) -> frozenset[Task]:
        """The tasks that the candidate supports."""
        ...

    @property
    def threadsafe(self) -> bool:
        """Whether fitting in parallel threads is safe and saves time."""
        ...

    @property
    def stops_in_time(self) -> bool:
        """Whether fits with validation rows stop early when `Setting.out_of_time` is true."""
        ...

    def is_bagged(self, setting: Setting) -> bool:
        """Whether the average of the fold models is served if the preset allows it. Averaging does not improve linear
        models.
        """
        ...

    def starts(self, setting: Setting) -> Sequence[Params]:
        """Return sets of good default parameters, starting with the best set."""
        ...

    def suggest(self, trial: optuna.Trial, setting: Setting) -> Params:
        """Return the parameters that the sampler suggests for a trial."""
        ...

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Estimator:
        """Fit an estimator to the rows.

        If validation rows are given, fitting can stop early; the estimator's `params` then record the number of rounds.
        If `params` contain the number of rounds, fitting runs exactly this number.
        """
        ...
