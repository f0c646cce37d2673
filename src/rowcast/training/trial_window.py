"""Run several trials at the same time, and record their results in the order of their slots.

With a window of N trials, slot S starts when the slots up to S - N, and no later slots, have been recorded. Optuna's
suggestions are therefore the same in every run, no matter how long each trial takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import optuna

from rowcast.engines import Task
from rowcast.training.cross_validation import FoldResult
from rowcast.training.models.candidate import Candidate, Params


class StartedTrial(NamedTuple):
    """A trial whose folds are being fitted on an engine."""

    trial: optuna.Trial
    slot: int
    candidate: Candidate
    params: Params
    tasks: list[Task[FoldResult]]

    def cancel(self) -> None:
        """Stop the folds whose results are not needed."""
        for task in self.tasks:
            task.cancel()


def run_in_window(
    window: int,
    start: Callable[[], StartedTrial | None],
    finish: Callable[[StartedTrial], None],
    abandon: Callable[[optuna.Trial], None],
) -> None:
    """Run trials until `start` returns None and all are finished.

    If an exception ends the run, abandon the unfinished trials.
    """
    running: deque[StartedTrial] = deque()
    try:
        while True:
            while len(running) < window and (started := start()) is not None:
                running.append(started)
            if not running:
                return
            finish(running[0])
            running.popleft()
    finally:
        for started in running:
            started.cancel()
            abandon(started.trial)
