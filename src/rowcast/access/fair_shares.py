"""Divides a limited resource among several owners, so that one owner cannot displace the others."""

from __future__ import annotations

from collections.abc import Collection


def fair_share(sizes: Collection[int], total: int) -> int:
    """Return the highest limit per owner such that all owners together use at most `total`. If an owner uses less than
    an equal share, the other owners can use the rest.
    """
    share = 0
    for number, size in enumerate(sorted(sizes)):
        share = total // (len(sizes) - number)
        if size > share:
            return share
        total -= size
    return max(sizes, default=share)
