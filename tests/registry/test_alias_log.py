"""The version to which a rollback returns."""

from __future__ import annotations

import pytest

from rowcast.registry.alias_log import AliasMove, previous_version

ALL = range(1, 10)


def log(*targets: int, first: int | None = None) -> list[AliasMove]:
    """Return a log of the champion alias; -N stands for a rollback to version N."""
    moves, source = [], first
    for number, target in enumerate(targets, start=1):
        moves.append(
            AliasMove(
                format=1,
                number=number,
                time="",
                who="",
                alias="champion",
                source=source,
                target=abs(target),
                rollback=target < 0,
            )
        )
        source = abs(target)
    return moves


@pytest.mark.parametrize(
    ("moves", "previous"),
    [
        ((), None),
        ((1,), None),
        ((1, 2), 1),
        ((1, 2, 3), 2),
        ((1, 2, 3, -2), 1),
        ((1, 2, 3, -2, -1), None),
        ((1, 2, 3, -2, 4), 2),
        ((1, 2, 3, 1), 3),
        ((1, 2, 1, 2), 1),
    ],
)
def test_a_rollback_returns_to_the_version_that_the_champion_replaced(
    moves: tuple[int, ...], previous: int | None
) -> None:
    current = abs(moves[-1]) if moves else 1

    assert previous_version(log(*moves), "champion", current, ALL) == previous


def test_a_rollback_can_return_to_the_version_from_before_the_log() -> None:
    assert previous_version(log(2, first=1), "champion", 2, ALL) == 1


def test_a_rollback_skips_deleted_versions() -> None:
    assert previous_version(log(1, 2, 3), "champion", 3, {1, 3}) == 1
    assert previous_version(log(1, 2), "champion", 2, {2}) is None


def test_a_rollback_ignores_other_aliases() -> None:
    other = [AliasMove(format=1, number=9, time="", who="", alias="challenger", source=None, target=7)]

    assert previous_version([*log(1, 2), *other], "champion", 2, ALL) == 1


def test_a_rollback_skips_the_current_and_all_deleted_versions() -> None:
    assert previous_version(log(1, 2, 3, 4, 4), "champion", 4, {1, 4}) == 1
    assert previous_version(log(1, 2, 3, 4), "champion", 4, {2, 3, 4}) == 3


def test_a_rollback_to_a_version_that_the_log_does_not_contain_counts_as_a_move() -> None:
    assert previous_version(log(1, 2, -9), "champion", 9, ALL) == 2


def test_the_source_of_a_later_move_is_ignored() -> None:
    moves = [*log(1), *log(3, first=2)]

    assert previous_version(moves, "champion", 3, ALL) == 1


def test_optional_fields_of_a_move_are_empty_by_default() -> None:
    (move,) = log(1)

    assert (move.reason, move.rollback) == ("", False)
