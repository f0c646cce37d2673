"""Quotas as serving uses them: the only caller of a caller's meter."""

from __future__ import annotations

from collections.abc import Awaitable

from rowcast.access.callers import Caller


def charge(caller: Caller, rows: int, now: float, *, total: int = 0) -> Awaitable[None] | None:
    """Take rows from the caller's quota; OverQuota when they are not left.

    A quota of this process is charged at once and returns None. A shared quota returns what must be awaited. `total` is
    the number of rows of the whole request, for the error; `now` is by `time.perf_counter`.
    """
    if caller.meter is None:
        return None
    return caller.meter.spend(rows, now, total)
