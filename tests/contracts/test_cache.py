"""The contract of the score cache."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rowcast.adapters.memory.cache import MemoryCache
from rowcast.schema.prediction import Score
from rowcast.serving.ports import Cache

MakeCache = Callable[[int, float, Callable[[], float]], Cache]
YES, NO = Score("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25}), Score("no")


@pytest.fixture(params=[MemoryCache])
def make_cache(request: pytest.FixtureRequest) -> MakeCache:
    factory: MakeCache = request.param
    return factory


async def test_cached_scores_are_returned_in_the_order_of_the_keys(make_cache: MakeCache) -> None:
    cache = make_cache(10, 60, lambda: 0.0)
    cache.put({"a": YES, "b": NO})

    assert list(await cache.get(["b", "c", "a"])) == [NO, None, YES]


async def test_a_cached_score_expires(make_cache: MakeCache) -> None:
    now = [0.0]
    cache = make_cache(10, 60, lambda: now[0])
    cache.put({"a": YES})
    now[0] = 60.0

    assert list(await cache.get(["a"])) == [None]


async def test_a_full_cache_evicts_the_least_recently_used_score(make_cache: MakeCache) -> None:
    cache = make_cache(3, 60, lambda: 0.0)
    for name in "abc":
        cache.put({name: YES})
    await cache.get(["a"])
    cache.put({"d": YES})

    assert [score is not None for score in await cache.get(list("abcd"))] == [True, False, True, True]


async def test_the_cache_accepts_empty_lists_of_scores_and_keys(make_cache: MakeCache) -> None:
    cache = make_cache(3, 60, lambda: 0.0)
    cache.put({})

    assert list(await cache.get([])) == []
