"""Cross-validation: out-of-fold scores, early stopping and threads."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from rowcast.training.cross_validation import CrossValidator, make_folds, stop_together
from rowcast.training.models.boosting import BoostedTrees
from rowcast.training.models.candidate import LabelledMatrix
from rowcast.training.models.candidates import CANDIDATES
from rowcast.training.options import TrainingOptions
from support.training import customers, fit_setting, learning_problem

PARAMS = {"max_leaf_nodes": 8, "min_samples_leaf": 5}
PARAMS_OF_TREES = {"learning_rate": 0.2, "num_leaves": 8, "min_data_in_leaf": 5}


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


def boosted_folds(*, rows: int = 60) -> list[BoostedTrees]:
    """Return the boosted trees of five folds whose target is a weak signal with a lot of noise."""
    random, setting = np.random.default_rng(0), fit_setting("regression", rows)
    matrix = random.normal(size=(5 * rows, 4)).astype(np.float32)
    target = matrix[:, 0] + 3 * random.normal(size=len(matrix))
    fitted = []
    for valid in np.split(np.arange(len(matrix)), 5):
        train = np.setdiff1d(np.arange(len(matrix)), valid)
        sides = [LabelledMatrix(matrix[side], target[side]) for side in (train, valid)]
        fitted.append(CANDIDATES["boosting"].fit(sides[0], PARAMS_OF_TREES, setting, sides[1]))
    return [each for each in fitted if isinstance(each, BoostedTrees)]


def test_all_folds_use_the_mean_of_their_best_numbers_of_rounds() -> None:
    folds = boosted_folds()

    stopped = [each for each in stop_together(folds) if isinstance(each, BoostedTrees)]

    best = round(sum(1 + int(np.argmin(each.losses)) for each in folds) / len(folds))
    assert len({each.params["rounds"] for each in folds}) > 1
    assert {each.params["rounds"] for each in stopped} == {best}
    assert {len(each.booster.dump_model(best)["tree_info"]) for each in stopped} == {best}


def test_an_estimator_can_predict_with_a_given_number_of_rounds() -> None:
    fold, matrix = boosted_folds()[0], np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)

    longer = fold.after(len(fold.losses))

    assert longer.params["rounds"] == len(fold.losses) > fold.params["rounds"]
    assert longer.size.trees == len(fold.losses)
    expected = longer.booster.predict(matrix, raw_score=True, num_iteration=len(fold.losses))
    np.testing.assert_array_equal(longer.raw(matrix)[:, 0], expected)
    assert fold.after(10_000).params["rounds"] == len(fold.losses)


def test_the_folds_of_a_boosted_bag_have_the_same_number_of_rounds_and_their_estimators_reproduce_its_scores() -> None:
    problem = learning_problem(customers(), exclude=("customer", "day"))
    setting = fit_setting("binary", len(problem.training), preset="best", bags=3)
    sides = make_folds(problem, TrainingOptions(target="y", name="x"))
    checker = CrossValidator(problem, setting, "roc_auc", *sides)

    result = checker.run(CANDIDATES["boosting"], PARAMS_OF_TREES, lambda index, mean, seconds: None)

    assert {each.params["rounds"] for each in result.estimators} == {result.params["rounds"]}
    assert result.features is not None
    for fold, estimator in zip(sides[0], result.estimators, strict=True):
        matrix = result.features.transform(fold.valid.numbers, fold.valid.texts)
        np.testing.assert_allclose(result.raw[fold.places], estimator.raw(matrix))
