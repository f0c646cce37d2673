"""What every cache of outcomes promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rowcast.adapters.memory import MemoryCache
from rowcast.schema.prediction import Score
from rowcast.serving.ports import Cache

MakeCache = Callable[[int, float, Callable[[], float]], Cache]
YES, NO = Score("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25}), Score("no")


@pytest.fixture(params=[MemoryCache])
def make(request: pytest.FixtureRequest) -> MakeCache:
    made: MakeCache = request.param
    return made


async def test_what_was_put_is_found_in_order_and_the_rest_is_not(make: MakeCache) -> None:
    cache = make(10, 60, lambda: 0.0)
    cache.put({"a": YES, "b": NO})

    assert list(await cache.get(["b", "c", "a"])) == [NO, None, YES]


async def test_what_is_too_old_is_unknown(make: MakeCache) -> None:
    now = [0.0]
    cache = make(10, 60, lambda: now[0])
    cache.put({"a": YES})
    now[0] = 60.0

    assert list(await cache.get(["a"])) == [None]


async def test_it_holds_no_more_than_it_may_and_drops_what_was_not_asked_for(make: MakeCache) -> None:
    cache = make(3, 60, lambda: 0.0)
    for name in "abc":
        cache.put({name: YES})
    await cache.get(["a"])
    cache.put({"d": YES})

    assert [found is not None for found in await cache.get(list("abcd"))] == [True, False, True, True]


async def test_nothing_to_ask_and_nothing_to_put_is_no_mistake(make: MakeCache) -> None:
    cache = make(3, 60, lambda: 0.0)
    cache.put({})

    assert list(await cache.get([])) == []
