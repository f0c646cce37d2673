"""What a kind of model must be able to do to compete: try, fit, score, and be written as ONNX.

An estimator gives raw scores [N, k]: log-odds of the positive class, one score a class, or the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import optuna
from numpy.typing import NDArray

from rowcast.schema.prediction import Task
from rowcast.training.features import Numbers, Style
from rowcast.training.onnx_graph import GraphBuilder

MANY_ROWS: Final = 50_000
Params = dict[str, Any]
Raw = NDArray[np.float64]


@dataclass(frozen=True)
class Setting:
    """What every fit of one training shares."""

    task: Task
    width: int
    """Raw scores a row."""
    rows: int
    seed: int
    jobs: int
    out_of_time: Callable[[], bool]

    @property
    def threads(self) -> int:
        """For the loops inside a fit: over few rows they wait for each other ten times longer than they work."""
        return self.jobs if self.rows >= MANY_ROWS else 1


class LabelledMatrix(NamedTuple):
    """A matrix with what its rows should become."""

    matrix: Numbers
    target: NDArray[Any]
    weight: NDArray[np.float64] | None = None
    """How much each row counts, 1 on average; None: all alike."""


class Fitted(Protocol):
    """A trained estimator."""

    @property
    def params(self) -> Params:
        """Enough to fit it again without a validation part."""
        ...

    def raw(self, matrix: Numbers) -> Raw:
        """Raw scores [N, k] as the training library computes them."""
        ...

    def emit(self, graph: GraphBuilder, matrix: str) -> str:
        """The same scores, float32 [N, k], as the name of a tensor."""
        ...

    def thresholds(self) -> Mapping[int, NDArray[np.float32]]:
        """Where the model jumps: thresholds by feature of the matrix; empty for smooth models."""
        ...


class Candidate(Protocol):
    """One kind of model."""

    @property
    def name(self) -> str: ...

    @property
    def style(self) -> Style:
        """Which preprocessing it wants."""
        ...

    @property
    def tasks(self) -> frozenset[Task]:
        """What it can learn."""
        ...

    @property
    def threadsafe(self) -> bool:
        """Whether several threads may fit at once, and gain by it."""
        ...

    def starts(self, setting: Setting) -> Sequence[Params]:
        """Good first guesses, the best one first."""
        ...

    def suggest(self, trial: optuna.Trial, setting: Setting) -> Params:
        """The next guess."""
        ...

    def fit(
        self, rows: LabelledMatrix, params: Params, setting: Setting, validation: LabelledMatrix | None = None
    ) -> Fitted:
        """Train; with a validation part, stop early where the kind can, and say so in `params`."""
        ...
