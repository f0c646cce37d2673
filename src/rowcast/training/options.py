"""The options of a training run."""

from __future__ import annotations

from typing import Any, Final, get_args

import msgspec

from rowcast.errors import TrainingError
from rowcast.schema.prediction import Task
from rowcast.training.cost import Cost
from rowcast.training.presets import PRESETS, PresetName

TASKS: Final[tuple[Task, ...]] = get_args(Task)


class TrainingOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options that the caller sets; everything else is derived from the data.

    The bundle records the options under the same names.
    """

    target: str
    name: str
    task: Task | None = None
    """The task; by default, it is inferred from the values of the target."""
    positive: str | None = None
    exclude: tuple[str, ...] = ()
    """Columns to drop; an entry may list several names separated by commas."""
    keep: tuple[str, ...] = ()
    """Columns to use as they are, even if they look like constants, identifiers or codes."""
    optional: tuple[str, ...] = ()
    """Columns whose values can be missing in requests, although no value is missing in the table; `all` means every
    column."""
    sensitive: tuple[str, ...] = ()
    """Columns whose values never appear in errors. The setting `sensitive` controls how the history stores them."""
    derive: tuple[str, ...] = ()
    """Derived columns, each in the form `NAME = EXPRESSION`; an expression can use earlier derived columns."""
    map: tuple[str, ...] = ()
    """Label corrections, each in the form `OLD=NEW`."""
    time: str | None = None
    """A column of dates or numbers that determines the order of the rows. The latest rows become the holdout."""
    group: str | None = None
    """A column that identifies groups of rows, such as the rows of one customer. Groups are never split."""
    weight: str | None = None
    """A column of row weights, used for fitting and for metrics."""
    class_weight: str = "none"
    """With `balanced`, all classes have the same total weight during fitting. Probabilities still reflect the true
    class proportions."""
    seed: int = 0
    preset: PresetName = "balanced"
    """How much time the model can take to score a row: `fast` produces a single model, and `best` averages many
    models."""
    trials: int | None = None
    """The total number of trials; every candidate gets at least one. None means 20 trials or, with a time limit, no
    maximum."""
    timeout: float | None = None
    """The time limit for the training run, in seconds. The search stops early enough to leave time for building the
    model."""
    jobs: int = 1
    candidates: tuple[str, ...] = ("logistic", "boosting", "forest", "extra")
    """Names of the candidates to try; `ridge` replaces `logistic` in regression."""
    metric: str | None = None
    refit: bool | None = None
    """Whether to fit the published model to all rows after the holdout metrics have been measured.

    With None, this is done for the preset `best` if the time limit permits.
    """
    cost: Cost | None = None
    """The cost of a false positive and of a false negative, used to choose the threshold; binary targets only."""
    storage: str | None = None
    """Where to store trials: a file or a Redis URL. Stored trials of the same problem count toward `trials`."""
    holdout: float = 0.2
    folds: int | None = None
    """The number of cross-validation folds; None to derive it from the preset and the number of rows."""
    alias: str | None = "champion"
    """The alias of the published version. A version gets the alias `champion` only if it is not worse than the current
    champion.
    """
    promote: bool | None = None
    """Whether the published version becomes the champion; None to decide by comparison with the current champion."""
    wire: dict[str, Any] | None = None
    """The wire template of the model; None for the native JSON format."""

    @property
    def wants_refit(self) -> bool | None:
        """Whether the published model is fitted to all rows; None if this depends on the remaining time."""
        if self.refit is not None or self.preset != "best":
            return bool(self.refit)
        return True if self.timeout is None else None

    def __post_init__(self) -> None:
        if self.task not in (None, *TASKS):
            raise TrainingError(f"option 'task' must be one of {', '.join(TASKS)}, got {self.task!r}")
        if not 0 < self.holdout < 0.9:
            raise TrainingError(f"option 'holdout' must be between 0 and 0.9, got {self.holdout}")
        if self.preset not in PRESETS:
            raise TrainingError(f"option 'preset' must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        for option, value, least in (("folds", self.folds, 2), ("trials", self.trials, 1), ("jobs", self.jobs, 1)):
            if value is not None and value < least:
                raise TrainingError(f"option {option!r} must be at least {least}, got {value}")
        if self.class_weight not in ("none", "balanced"):
            raise TrainingError(f"option 'class_weight' must be 'none' or 'balanced', got {self.class_weight!r}")
        if self.promote and self.alias != "champion":
            raise TrainingError("options 'alias' and 'promote' cannot be combined; 'promote' sets the alias 'champion'")
        if self.group is not None and self.time is not None:
            raise TrainingError(
                "options 'group' and 'time' cannot be combined; use only 'time' if the earlier rows of a group are "
                "known when its later rows are predicted"
            )
