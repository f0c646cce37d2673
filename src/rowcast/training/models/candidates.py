"""The kinds of models that compete. A new kind is a file of its own and one line here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rowcast.errors import TrainingError
from rowcast.schema.prediction import Task
from rowcast.training.models import network
from rowcast.training.models.boosting import Boosting
from rowcast.training.models.candidate import Candidate
from rowcast.training.models.forest import DecisionTree, ExtraTrees, Forest
from rowcast.training.models.linear import LeastSquares, Logistic, Sparse

CANDIDATES: Final[dict[str, Candidate]] = {
    "logistic": Logistic(),
    "ridge": LeastSquares(),
    "elasticnet": Sparse(),
    "tree": DecisionTree(),
    "boosting": Boosting(),
    "forest": Forest(),
    "extra": ExtraTrees(),
    "mlp": network.NetworkEnsemble(),
}
"""Cheap ones first: the search tries them in this order."""
COUNTERPARTS: Final = {"logistic": "ridge"}
"""Who takes the place of a kind that cannot predict values."""


def check(names: Sequence[str]) -> None:
    """TrainingError lists the candidates there are, when one of these is not, or says what one lacks."""
    unknown = [name for name in names if name not in CANDIDATES]
    if unknown or not names:
        raise TrainingError(f"unknown candidate {', '.join(unknown) or '(none)'}; choose from {', '.join(CANDIDATES)}")
    if network.NetworkEnsemble.name in names:
        network.require()


def select(names: Sequence[str], task: Task) -> list[Candidate]:
    """The candidates of these names for a task; TrainingError when one of them cannot learn it."""
    check(names)
    if task == "regression":
        names = [COUNTERPARTS.get(name, name) for name in names]
    found = [candidate for name, candidate in CANDIDATES.items() if name in names]
    unfit = [candidate.name for candidate in found if task not in candidate.tasks]
    if unfit:
        able = [name for name, candidate in CANDIDATES.items() if task in candidate.tasks]
        raise TrainingError(f"{', '.join(unfit)} cannot learn a {task} target; choose from {', '.join(able)}")
    return found
