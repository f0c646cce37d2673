"""Divides a limited resource between its owners, so that one owner cannot displace the others."""

from __future__ import annotations

from collections.abc import Collection


def fair_share(sizes: Collection[int], total: int) -> int:
    """Return the highest limit for each owner with which all owners together use at most `total`.

    Owners that use less than an equal share leave the rest to the others.
    """
    share = 0
    for number, size in enumerate(sorted(sizes)):
        share = total // (len(sizes) - number)
        if size > share:
            return share
        total -= size
    return max(sizes, default=share)
