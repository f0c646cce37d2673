"""Linear models."""

from __future__ import annotations

import numpy as np
import pytest

from rowcast.training import calibration
from rowcast.training.models.candidate import LabelledMatrix
from rowcast.training.models.candidates import CANDIDATES
from support.training import fit_setting

RNG = np.random.default_rng(7)


def test_ridge_class_scores_are_log_odds() -> None:
    matrix = RNG.normal(size=(4000, 1)).astype(np.float32)
    target = (RNG.random(4000) < calibration.sigmoid(matrix[:, 0].astype(float) * 1.5)).astype(np.int64)
    candidate, setting = CANDIDATES["ridge"], fit_setting("binary", 4000)

    raw = candidate.fit(LabelledMatrix(matrix, target), candidate.starts(setting)[0], setting).raw(matrix)

    assert np.polyfit(matrix[:, 0], raw[:, 0], 1) == pytest.approx([1.5, 0], abs=0.3)
