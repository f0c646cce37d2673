"""Progress events of a training run, for progress bars and experiment trackers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from rowcast.tables.table import Finding

Stage = Literal["check", "tune", "fit", "export", "certify", "publish"]


class TrainingEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A progress event. Fields that do not apply to its stage keep their defaults."""

    stage: Stage
    message: str
    trial: int = 0
    """The number of the trial that just finished, counted from 1; 0 if the event does not concern a trial."""
    trials: int = 0
    """The maximum number of trials."""
    candidate: str = ""
    best: float | None = None
    """The best cross-validated score so far."""
    seconds_left: float | None = None
    """The estimated remaining duration of the search."""
    findings: tuple[Finding, ...] = ()


Progress = Callable[[TrainingEvent], None]
