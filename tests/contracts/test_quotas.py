"""The contract of quota meters: in one process, shared through Redis, and shared while Redis is unavailable."""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections.abc import AsyncIterator, Callable

import pytest
import pytest_asyncio

from rowcast.access.quotas import Meter, Quota, new_meter
from rowcast.access.shared_quotas import SharedQuotas
from rowcast.errors import OverQuota
from support.redis import RedisServer
from support.sharing import redis_quotas
from support.waiting import eventually_async

HOUR = 3600
NewMeter = Callable[[Quota], Meter]


def maker(shared: SharedQuotas | None) -> NewMeter:
    def create(quota: Quota) -> Meter:
        meter = new_meter(quota, shared=shared, name="caller")
        assert meter is not None
        return meter

    return create


@pytest_asyncio.fixture(params=["process", "redis", "redis is unavailable"])
async def make_meter(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[NewMeter]:
    if request.param == "process":
        yield maker(None)
        return
    is_away = request.param == "redis is unavailable"
    url = "redis://127.0.0.1:1" if is_away else redis_server.url
    async with redis_quotas(url, uuid.uuid4().hex, is_usable=not is_away) as (quotas, link):
        assert link.is_available != is_away
        yield maker(quotas)


async def spend(meter: Meter, rows: int, whole: int = 0) -> None:
    charging = meter.spend(rows, time.perf_counter(), whole)
    if charging is not None:
        assert not meter.is_immediate
        await charging


async def is_accepted(meter: Meter, rows: int = 1) -> bool:
    try:
        await spend(meter, rows)
    except OverQuota:
        return False
    return True


@pytest.mark.parametrize("rows", [1, 7, 60])
async def test_exactly_the_rows_of_the_quota_are_accepted(make_meter: NewMeter, rows: int) -> None:
    meter = make_meter(Quota(rows, HOUR))

    accepted = [await is_accepted(meter) for _ in range(rows + 2)]

    assert accepted == [True] * rows + [False] * 2


async def test_concurrent_charges_do_not_exceed_the_quota(make_meter: NewMeter) -> None:
    meter = make_meter(Quota(7, HOUR))

    assert sum(await asyncio.gather(*[is_accepted(meter) for _ in range(20)])) == 7


async def test_a_refused_charge_uses_no_quota_and_the_error_contains_the_delay(make_meter: NewMeter) -> None:
    meter = make_meter(Quota(10, HOUR))
    await spend(meter, 8)

    for _ in range(3):
        with pytest.raises(OverQuota) as refused:
            await spend(meter, 3)
        assert HOUR / 10 - 60 < refused.value.seconds <= HOUR / 10

    await spend(meter, 2)


async def test_a_request_that_is_larger_than_the_quota_is_refused_without_a_delay(make_meter: NewMeter) -> None:
    meter = make_meter(Quota(10, HOUR))
    await spend(meter, 1)

    with pytest.raises(OverQuota) as refused:
        await spend(meter, 10, 11)

    assert refused.value.seconds == 0
    assert "too many rows for the quota of 10/3600s: 11" in refused.value.message


async def test_a_quota_of_requests_counts_a_request_once_however_many_rows_it_has(make_meter: NewMeter) -> None:
    meter = make_meter(Quota(2, HOUR, "requests"))

    for _ in range(2):
        await spend(meter, 1)
        await spend(meter, 99, 100)

    assert not await is_accepted(meter)


async def test_the_headers_report_the_remaining_rows(make_meter: NewMeter) -> None:
    meter = make_meter(Quota(7, HOUR))
    started = time.perf_counter()
    assert b'q=7;w=3600\r\nratelimit: "default";r=7;t=0\r\n' in meter.headers(started)

    for rest in (6, 4):
        await spend(meter, 6 - rest or 1)
        match = re.search(rb"r=(\d+);t=(\d+)\r\n", meter.headers(time.perf_counter()))
        assert match is not None
        assert int(match[1]) == rest
        assert HOUR / 7 * (7 - rest) - 60 < int(match[2]) <= HOUR / 7 * (7 - rest) + 1


async def test_used_rows_become_available_again(make_meter: NewMeter) -> None:
    meter = make_meter(Quota(20, 1))
    await spend(meter, 20)

    await eventually_async(lambda: is_accepted(meter, 3))


async def test_callers_with_different_quotas_do_not_affect_each_other(make_meter: NewMeter) -> None:
    first, second = make_meter(Quota(1, HOUR)), make_meter(Quota(2, HOUR))

    assert [await is_accepted(meter) for meter in (first, second, first, second)] == [True, True, False, True]
