"""All candidates. To add a candidate, write a class that implements `Candidate` and list it here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rowcast.errors import TrainingError
from rowcast.schema.prediction import Task
from rowcast.training.models import network
from rowcast.training.models.boosting import Boosting
from rowcast.training.models.candidate import Candidate
from rowcast.training.models.forest import DecisionTree, ExtraTrees, Forest
from rowcast.training.models.linear import LeastSquares, Logistic, SparseLinear

CANDIDATES: Final[dict[str, Candidate]] = {
    "logistic": Logistic(),
    "ridge": LeastSquares(),
    "elasticnet": SparseLinear(),
    "tree": DecisionTree(),
    "boosting": Boosting(),
    "forest": Forest(),
    "extra": ExtraTrees(),
    "mlp": network.NetworkEnsemble(),
}
"""All candidates, cheapest first; the search tries them in this order."""
COUNTERPARTS: Final = {"logistic": "ridge"}
"""Maps classification candidates to the regression candidates that replace them."""


def check(names: Sequence[str]) -> None:
    """Raise TrainingError if a name is unknown, no name is given, or PyTorch is required but not installed."""
    unknown = [name for name in names if name not in CANDIDATES]
    if unknown or not names:
        problem = f"unknown candidate {', '.join(map(repr, unknown))}" if unknown else "no candidate is set"
        raise TrainingError(f"option 'candidates': {problem}; available candidates: {', '.join(CANDIDATES)}")
    if network.NetworkEnsemble.name in names:
        network.require()


def select(names: Sequence[str], task: Task) -> list[Candidate]:
    """Return the candidates with these names; raise TrainingError if a candidate does not support the task."""
    check(names)
    if task == "regression":
        names = [COUNTERPARTS.get(name, name) for name in names]
    selection = [candidate for name, candidate in CANDIDATES.items() if name in names]
    unsuitable = [candidate.name for candidate in selection if task not in candidate.tasks]
    if unsuitable:
        available = [name for name, candidate in CANDIDATES.items() if task in candidate.tasks]
        raise TrainingError(
            f"option 'candidates': {', '.join(unsuitable)} cannot be trained for a {task} target; "
            f"available candidates: {', '.join(available)}"
        )
    return selection
