"""Charges rows against callers' quotas. Only this module calls the `spend` method of a meter."""

from __future__ import annotations

from collections.abc import Awaitable

from rowcast.access.callers import Caller


def charge(caller: Caller, rows: int, now: float, *, total: int = 0) -> Awaitable[None] | None:
    """Charge rows against the caller's quota; raise OverQuota if the quota is exhausted.

    A per-process quota is charged immediately, and the result is None. If the quota is shared, the result must be
    awaited. `now` is a `time.perf_counter` value. `total` is the number of rows in the whole request.
    """
    if caller.meter is None:
        return None
    return caller.meter.spend(rows, now, total)


def charge_request(caller: Caller, now: float) -> Awaitable[None] | None:
    """Charge a request that is not a prediction against the caller's general quota."""
    return None if caller.general_meter is None else caller.general_meter.spend(1, now)
