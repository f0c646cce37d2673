"""Charging rows against a caller's quota."""

from __future__ import annotations

from collections.abc import Awaitable

import pytest

from rowcast.access.callers import Caller
from rowcast.access.quotas import Meter, Quota
from rowcast.errors import OverQuota
from rowcast.serving.quota import charge, charge_request


def test_a_caller_without_a_quota_is_not_charged() -> None:
    assert charge(Caller(), 1_000_000, 0.0) is None


def test_rows_are_charged_until_the_quota_is_used_up() -> None:
    caller = Caller(meter=Meter(Quota(3, 60)))

    charge(caller, 2, 0.0)
    charge(caller, 1, 0.0)

    with pytest.raises(OverQuota) as refused:
        charge(caller, 1, 0.0)
    assert refused.value.seconds == 20


def test_a_request_over_quota_is_not_charged() -> None:
    caller = Caller(meter=Meter(Quota(3, 60)))

    with pytest.raises(OverQuota):
        charge(caller, 4, 0.0)

    charge(caller, 3, 0.0)


async def test_charging_rows_against_a_shared_quota_returns_an_awaitable() -> None:
    charged: list[int] = []

    class SharedMeter(Meter):
        is_immediate = False

        def spend(self, rows: int, now: float, whole: int = 0) -> Awaitable[None]:
            async def charge_elsewhere() -> None:
                charged.append(rows)

            return charge_elsewhere()

    charging = charge(Caller(meter=SharedMeter(Quota(3, 60))), 2, 0.0)

    assert charging is not None
    await charging
    assert charged == [2]


def test_a_request_that_is_not_a_prediction_uses_one_unit_of_the_general_quota() -> None:
    caller = Caller(meter=Meter(Quota(5, 60)), general_meter=Meter(Quota(2, 60)))

    assert charge_request(Caller(), 0.0) is None
    for _ in range(2):
        charge_request(caller, 0.0)
    with pytest.raises(OverQuota):
        charge_request(caller, 0.0)

    assert caller.meter is not None
    caller.meter.spend(5, 0.0)


def test_the_error_names_the_rows_of_the_whole_request() -> None:
    with pytest.raises(OverQuota) as refused:
        charge(Caller(meter=Meter(Quota(3, 60))), 8, 0.0, total=9)

    assert ": 9;" in refused.value.message
