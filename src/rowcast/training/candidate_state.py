"""The state of the search for one candidate: its best trials and the duration of its folds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from optuna.trial import FrozenTrial

from rowcast.training.cross_validation import TrialResult


class KeptTrial(NamedTuple):
    """A trial that can become a member of an average. Trials are ordered by their ranks, which are unique."""

    rank: tuple[float, int]
    result: TrialResult


@dataclass
class CandidateState:
    """The state of the search for one candidate."""

    trials: int = 0
    seconds: float = 0.0
    folds: int = 0
    kept: list[KeptTrial] = field(default_factory=list)
    """This process's best trials, from best to worst."""
    remote: list[FrozenTrial] = field(default_factory=list)
    """Trials from other processes that are among the best of all processes, from best to worst. This process must
    repeat a trial before it can use the trial's models.
    """
    repeated: set[int] = field(default_factory=set)
    """The slots of other processes' trials that this process has repeated, or had no time to repeat."""
    remote_trials: int = 0
    """The number of trials that other processes have finished."""
    score: float | None = None
    """The best score across all processes."""
    remote_fold_seconds: float = 0.0
    """The duration of a fold, as measured by another process."""

    @property
    def best(self) -> TrialResult | None:
        """The best trial of this process."""
        return self.kept[0].result if self.kept else None

    @property
    def fold_seconds(self) -> float:
        """The expected duration of one fold."""
        return self.seconds / self.folds if self.folds else self.remote_fold_seconds
