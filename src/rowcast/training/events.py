"""Progress events of a training run, for progress bars and experiment trackers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from rowcast.tables.table import Finding

Stage = Literal["check", "tune", "fit", "export", "certify", "publish"]


class TrainingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a training run; fields that do not apply to the stage keep their defaults."""

    stage: Stage
    message: str
    trial: int = 0
    """Number of the trial that just finished, counted from 1; 0 if the event is not about a trial."""
    trials: int = 0
    """Number of trials in the budget."""
    candidate: str = ""
    best: float | None = None
    """Best cross-validated score so far."""
    seconds_left: float | None = None
    """Estimated duration of the remaining search."""
    findings: tuple[Finding, ...] = ()


Progress = Callable[[TrainingEvent], None]
