"""The configuration of each trial: default parameters first, then Optuna's suggestions."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import cast

import optuna
from optuna.trial import BaseTrial

from rowcast.training.models.candidate import Candidate, Params, Setting


def params_of(
    trial: BaseTrial, slot: int, candidates: dict[str, Candidate], setting: Setting
) -> tuple[Candidate, Params]:
    """Return the configuration of a trial: default parameters for the first slots, then the sampler's suggestions."""
    starts = _starts(candidates.values(), setting)
    if slot < len(starts):
        return starts[slot]
    candidate = candidates[trial.suggest_categorical("candidate", list(candidates))]
    # For a finished trial, Optuna returns the recorded parameters.
    return candidate, candidate.suggest(cast(optuna.Trial, trial), setting)


def _starts(candidates: Iterable[Candidate], setting: Setting) -> list[tuple[Candidate, Params]]:
    """Return the default parameters: every candidate's first set, then every candidate's second set."""
    defaults = [[(candidate, params) for params in candidate.starts(setting)] for candidate in candidates]
    return [each for rank in zip_longest(*defaults) for each in rank if each is not None]
