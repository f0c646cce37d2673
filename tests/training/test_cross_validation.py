"""Cross-validation: out-of-fold scores, early stopping and threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rowcast.training.cross_validation import CrossValidator, make_folds
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.options import TrainingOptions
from support.training import customers, fit_setting, learning_problem

PARAMS = {"max_leaf_nodes": 8, "min_samples_leaf": 5}


def validator(jobs: int = 1) -> CrossValidator:
    problem = learning_problem(customers(), exclude=("customer", "day"))
    setting = replace(fit_setting("binary", len(problem.training)), jobs=jobs)
    return CrossValidator(problem, setting, "roc_auc", *make_folds(problem, TrainingOptions(target="y", name="x")))


def test_every_validation_row_gets_a_score_and_the_result_is_the_mean_score_of_the_folds() -> None:
    means: list[float] = []

    result = validator().run(CANDIDATES["tree"], PARAMS, lambda index, mean, seconds: means.append(mean))

    assert len(means) == 3
    assert result.score == means[-1]
    assert np.isfinite(result.raw).all()
    assert np.count_nonzero(result.raw) == result.raw.size


def test_the_number_of_threads_does_not_change_the_scores() -> None:
    serial, parallel = (
        validator(jobs).run(CANDIDATES["tree"], PARAMS, lambda index, mean, seconds: None) for jobs in (1, 3)
    )

    assert parallel.score == serial.score
    assert parallel.raw.tobytes() == serial.raw.tobytes()


def test_the_callback_can_stop_cross_validation_after_a_fold() -> None:
    indices: list[int] = []

    def stop(index: int, mean: float, seconds: float) -> None:
        indices.append(index)
        raise TimeoutError

    with pytest.raises(TimeoutError):
        validator().run(CANDIDATES["tree"], PARAMS, stop)
    assert indices == [0]


def test_every_fold_stops_early_if_the_time_is_not_sufficient() -> None:
    params = CANDIDATES["boosting"].starts(fit_setting("binary", 400))[0]

    stopped, finished = (
        validator().run(CANDIDATES["boosting"], params, lambda index, mean, seconds: None, seconds=seconds)
        for seconds in (0.0, 600.0)
    )

    assert stopped.params["rounds"] == 1
    assert finished.params["rounds"] > 1
    assert np.count_nonzero(stopped.raw) == stopped.raw.size
