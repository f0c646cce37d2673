"""Dividing a limited capacity fairly among its owners."""

from __future__ import annotations

import pytest

from rowcast.access.fair_shares import fair_share


@pytest.mark.parametrize(
    ("sizes", "total", "share"),
    [
        ([], 10, 0),
        ([4, 6], 10, 6),
        ([4, 7], 10, 6),
        ([1, 100], 10, 9),
        ([100, 100], 11, 5),
        ([3, 8, 1, 9], 15, 5),
        ([5, 5, 5], 0, 0),
    ],
)
def test_the_largest_owners_share_the_capacity_that_the_other_owners_do_not_use(
    sizes: list[int], total: int, share: int
) -> None:
    assert fair_share(sizes, total) == share
    assert sum(min(size, share) for size in sizes) <= total
