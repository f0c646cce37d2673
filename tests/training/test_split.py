"""Holdouts and folds in random, group and time splits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rowcast.errors import TableError
from rowcast.training import split
from rowcast.training.split import SplitColumn
from support.training import customers, learning_problem


def owners(columns: dict[str, list[Any]], places: Any) -> set[str]:
    return {columns["customer"][place] for place in places}


@pytest.mark.parametrize("seed", range(4))
def test_no_group_is_on_both_sides_of_a_split_and_classes_are_distributed_evenly(seed: int) -> None:
    columns = customers(seed)

    problem = learning_problem(columns, group="customer", seed=seed)
    rows = problem.training
    folds = split.make_folds(rows.target, "binary", 3, seed, rows.split_column)

    assert not owners(columns, rows.places) & owners(columns, problem.holdout.places)
    assert len(problem.holdout) / problem.frame.height == pytest.approx(0.2, abs=0.03)
    assert problem.holdout.target.mean() == pytest.approx(rows.target.mean(), abs=0.05)
    assert sorted(np.concatenate([valid for _, valid in folds])) == list(range(len(rows)))
    for train, valid in folds:
        assert not owners(columns, rows.places[train]) & owners(columns, rows.places[valid])
        assert len(valid) / len(rows) == pytest.approx(1 / 3, abs=0.03)
        assert rows.target[valid].mean() == pytest.approx(rows.target.mean(), abs=0.05)


@pytest.mark.parametrize("counts", [[100, 2], [100, 3, 5], [2, 2, 60], [40, 4, 3, 2]])
def test_the_rows_of_a_rare_class_are_distributed_across_folds(counts: list[int]) -> None:
    target = np.repeat(np.arange(len(counts)), counts)

    for seed in range(5):
        folds = split.make_folds(target, "multiclass", 3, seed, None)
        assert sorted(np.concatenate([valid for _, valid in folds])) == list(range(len(target)))
        for train, valid in folds:
            assert set(target[train]) == set(range(len(counts)))
            assert np.bincount(target[valid], minlength=len(counts)).max() <= np.ceil(max(counts) / 3)
            assert abs(len(valid) - len(target) / 3) < len(counts)


@pytest.mark.parametrize("share", [0.2, 0.6, 0.9])
def test_the_only_row_of_a_class_is_used_for_training(share: float) -> None:
    target = np.array([0] * 20 + [1] + [2] * 30 + [3] * 2)

    for seed in range(5):
        training, holdout = split.split_holdout(target, "multiclass", share, seed, None)
        assert sorted([*training, *holdout]) == list(range(len(target)))
        assert set(target[training]) == {0, 1, 2, 3}
        assert np.bincount(target[holdout]).tolist()[:3] == [round(20 * share), 0, round(30 * share)]


def test_the_only_row_of_a_class_is_in_exactly_one_fold() -> None:
    target = np.array([0] * 20 + [1] + [2] * 30)

    folds = split.make_folds(target, "multiclass", 3, 0, None)

    assert sorted(1 in target[valid] for _, valid in folds) == [False, False, True]
    assert all(sorted([*train, *valid]) == list(range(len(target))) for train, valid in folds)


def test_the_training_rows_of_a_time_fold_precede_its_validation_rows() -> None:
    times = np.random.default_rng(1).permutation(100) // 2

    folds = split.make_folds(np.zeros(100), "regression", 3, 0, SplitColumn("time", "day", times))

    assert [len(train) for train, _ in folds] == [50, 68, 84]
    for train, valid in folds:
        assert times[train].max() < times[valid].min()
    validated = np.concatenate([valid for _, valid in folds])
    assert len(np.unique(validated)) == len(validated) == 50


def test_duplicate_timestamps_reduce_the_number_of_folds() -> None:
    years = np.array([2020] * 10 + [2021] * 90)

    [(train, valid)] = split.make_folds(np.zeros(100), "regression", 3, 0, SplitColumn("time", "year", years))

    assert (len(train), len(valid)) == (10, 90)


def split_sides(by: Any, values: Any, target: Any, share: float = 0.2) -> None:
    column = SplitColumn(by, "column", np.array(values))
    target = np.array(target)
    training, holdout = split.split_holdout(target, "binary", share, 0, column)
    split.check_sides(target, training, holdout, classes=("good", "bad"), folds=3, column=column)


@pytest.mark.parametrize(
    ("groups", "share", "count"),
    [([0] * 60, 0.2, "1 group"), ([0, 1] * 30, 0.2, "2 groups"), ([0, 1, 2] * 20, 0.34, "2 groups for training")],
)
def test_too_few_groups_are_rejected(groups: list[int], share: float, count: str) -> None:
    with pytest.raises(TableError) as caught:
        split_sides("group", groups, [0, 0, 0, 1, 1, 1] * 10, share)

    assert caught.value.slug == "too-few-groups"
    assert count in caught.value.message


def test_a_group_split_is_rejected_if_a_class_occurs_in_only_one_group() -> None:
    groups = np.repeat(np.arange(12), 5)

    with pytest.raises(TableError) as caught:
        split_sides("group", groups, groups == 0)
    assert caught.value.slug == "missing-class"

    with pytest.raises(TableError) as caught:
        split_sides("group", groups, groups < 2, 0.5)
    assert caught.value.slug == "too-few-groups"


@pytest.mark.parametrize(
    ("times", "slug"),
    [
        ([1] * 60, "too-few-times"),
        ([60 if index % 3 else index for index in range(60)], "too-few-times"),
        ([index % 3 * 60 + index for index in range(60)], "missing-class"),
        ([2020 + (index > 51) for index in range(60)], "too-few-times"),
    ],
)
def test_a_time_column_that_cannot_be_used_to_split_the_rows_is_rejected(times: list[int], slug: str) -> None:
    with pytest.raises(TableError) as caught:
        split_sides("time", times, [int(index % 3 == 0) for index in range(60)])

    assert caught.value.slug == slug
    assert "option 'time': column 'column'" in caught.value.message


def test_the_holdout_of_a_time_split_contains_the_latest_row_even_if_its_share_is_less_than_one_row() -> None:
    times = SplitColumn("time", "when", np.array([*range(10, 20), *range(10)]))

    training, holdout = split.split_holdout(np.zeros(20), "regression", 0.01, 0, times)

    assert (holdout.tolist(), len(training)) == ([9], 19)


def test_a_table_that_is_too_small_for_a_holdout_is_rejected() -> None:
    with pytest.raises(TableError) as caught:
        split.split_holdout(np.array([0, 1]), "binary", 0.2, 0, None)

    assert caught.value.slug == "too-few-rows"
