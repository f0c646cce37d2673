"""What the story of a training is told with: the options it starts from, the events on the way, the result."""

from __future__ import annotations

from typing import Any

import msgspec

from rowcast.errors import TrainingError
from rowcast.schema.prediction import Task
from rowcast.training.cost import Cost


class TrainingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the caller decides. Everything else is decided by the data."""

    target: str
    name: str
    task: Task | None = None
    positive: str | None = None
    exclude: tuple[str, ...] = ()
    """Columns that must not be learnt from; an entry may join several names by commas."""
    keep: tuple[str, ...] = ()
    """Columns that stay as they are, though the data check would leave them out or take them for codes."""
    sensitive: tuple[str, ...] = ()
    """Columns whose values are never shown in errors, and kept in history as the setting `sensitive` says."""
    map: tuple[str, ...] = ()
    """How labels are mended, each `OLD=NEW`."""
    time: str | None = None
    """A column of moments or numbers: the rows kept aside are later than all others."""
    group: str | None = None
    """A column whose equal values stay together: rows of one customer are never on both sides of a split."""
    weight: str | None = None
    """A column of numbers that say how much each row counts, in fits and in figures."""
    class_weight: str = "none"
    """`balanced`: in fits every class counts the same; probabilities are brought back to the real shares."""
    seed: int = 0
    trials: int = 20
    """Of all candidates together; every candidate gets one at least."""
    timeout: float | None = None
    """Seconds for the search; what was found by then is used."""
    jobs: int = 1
    candidates: tuple[str, ...] = ("logistic", "boosting", "forest", "extra")
    """Where a value is predicted, `ridge` takes the place of `logistic`."""
    metric: str | None = None
    refit: bool = False
    """Whether the certified model learns from the rows kept aside too, once its figures are known."""
    cost: Cost | None = None
    """What mistakes cost: the threshold is chosen by it. Of two classes only."""
    storage: str | None = None
    """Where the trials are kept: a file or the URL of a Redis. Trials of the same problem there count as done."""
    holdout: float = 0.2
    folds: int = 3
    alias: str | None = "champion"
    wire: dict[str, Any] | None = None
    """The JSON that clients of the model send and get, when it is not the native one."""

    def __post_init__(self) -> None:
        if not 0 < self.holdout < 0.9:
            raise TrainingError(f"the holdout must be a share between 0 and 0.9, not {self.holdout}")
        if self.folds < 2 or self.trials < 1 or self.jobs < 1:
            raise TrainingError("training needs at least two folds, one trial and one job")
        if self.class_weight not in ("none", "balanced"):
            raise TrainingError(f"--class-weight is none or balanced, not {self.class_weight!r}")
        if self.group is not None and self.time is not None:
            raise TrainingError(
                "--group and --time cannot both decide the split; with --time alone the earlier rows of a group are "
                "learnt from, as they will be known by then"
            )
