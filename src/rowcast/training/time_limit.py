"""Estimate the time needed after the search, so that a training run stays within its time limit."""

from __future__ import annotations

import math
from typing import Final

from rowcast.training import certificate
from rowcast.training.options import TrainingOptions
from rowcast.training.presets import PRESETS, Preset
from rowcast.training.problem import LearningProblem
from rowcast.training.report.evaluation import scored_rows

FINISH_SECONDS, FINISH_SHARE = 2.0, 0.03
"""The time reserved after the search, except for scoring: a number of seconds plus a share of the time limit."""
PROBE_PASSES: Final = 2.0
"""The certificate's probe is scored twice: by the trained model and by the graph."""
REFIT_SHARE: Final = 0.2
"""The maximum share of the time limit that is reserved for an optional refit."""
BATCH_SHARE: Final = 0.55
"""The time per row in a batch, as a share of the time for a single row."""


def finishing_seconds(problem: LearningProblem, timeout: float, preset: Preset, row_microseconds: float) -> float:
    """Return the expected duration of all steps after the search, but at most half of the time limit."""
    report_rows = scored_rows(len(problem.schema.columns), row_microseconds)
    rows = certificate.probe_rows(problem, row_microseconds) * PROBE_PASSES + report_rows
    seconds = FINISH_SECONDS + FINISH_SHARE * timeout + rows * BATCH_SHARE * row_microseconds / 1e6
    return min(seconds, timeout / 2)


def refit_seconds(options: TrainingOptions) -> float:
    """Return the maximum number of seconds that the search reserves for a refit."""
    if options.wants_refit is None and options.timeout is not None:
        return REFIT_SHARE * options.timeout
    return math.inf if options.wants_refit else 0.0


def is_refitted(
    options: TrainingOptions,
    problem: LearningProblem,
    *,
    fit_seconds: float,
    row_microseconds: float,
    seconds_left: float,
) -> bool:
    """Return whether to refit the chosen model on all rows. `fit_seconds` is the duration of its cross-validation."""
    if options.wants_refit is not None or options.timeout is None:
        return bool(options.wants_refit)
    rows = 1 + len(problem.holdout) / len(problem.training)
    finishing = finishing_seconds(problem, options.timeout, PRESETS[options.preset], row_microseconds)
    return fit_seconds * rows + finishing < seconds_left
