"""Presets: the estimated cost per row, and the limits on models."""

from __future__ import annotations

import pytest

from rowcast.training.presets import NO_TREES, PRESETS, Preset, Size, fold_count, tree_nanoseconds

BALANCED = PRESETS["balanced"]


def test_the_estimated_cost_grows_with_the_number_of_trees_and_their_leaves() -> None:
    assert NO_TREES.microseconds == 0.0
    assert Size(1000, 15_000).microseconds == pytest.approx(2 * Size(500, 7_500).microseconds)
    assert [round(tree_nanoseconds(leaves)) for leaves in (1, 8, 32, 4096)] == [20, 34, 60, 250]
    assert Size(100, 100 * (2 * 32 - 1)).microseconds == pytest.approx(100 * tree_nanoseconds(32) / 1000)


def test_sizes_are_added_component_by_component() -> None:
    assert Size(1, 3) + Size(10, 30) == Size(11, 33)


@pytest.mark.parametrize(
    ("sizes", "is_allowed"),
    [
        ([NO_TREES] * 4, True),
        ([NO_TREES] * 5, False),  # five members
        ([Size(5, 500_000)], True),
        ([Size(5, 500_001)], False),  # more nodes than allowed
        ([Size(1200, 1200)], True),
        ([Size(3000, 3000)], False),  # a row would take too long
    ],
)
def test_an_average_must_be_within_every_limit(sizes: list[Size], is_allowed: bool) -> None:
    assert BALANCED.allows(sizes) == is_allowed


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("leaves", [8, 31, 64, 1000])
def test_a_configuration_may_have_exactly_as_many_trees_as_its_share_allows(preset: Preset, leaves: int) -> None:
    trees = preset.trees_within(leaves)

    assert preset.allows_member(Size(trees, trees * (2 * leaves - 1)))
    assert not preset.allows_member(Size(trees + 2, (trees + 2) * 2 * leaves))
    assert preset.allows([Size(trees, trees * (2 * leaves - 1))])


def test_small_tables_get_more_folds_if_the_average_of_the_fold_models_is_served() -> None:
    assert [fold_count(BALANCED, rows) for rows in (1999, 2000, 49_999, 50_000)] == [8, 5, 5, 3]
    assert fold_count(PRESETS["fast"], 1999) == 3
