"""The contract of the score cache."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rowcast.adapters.memory.cache import MemoryCache
from rowcast.schema.prediction import Score
from rowcast.serving.ports import Cache
from support.redis import RedisServer
from support.sharing import redis_cache
from support.waiting import eventually_async

YES, NO = Score("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25}), Score("no")


@pytest_asyncio.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Cache]:
    if request.param == "memory":
        yield MemoryCache(100, 60)
        return
    async with redis_cache(redis_server.url, uuid.uuid4().hex) as (cache, _):
        yield cache


async def test_cached_scores_are_returned_in_the_order_of_the_keys(cache: Cache) -> None:
    cache.put({"a": YES, "b": NO})

    assert list(await cache.get(["b", "c", "a"])) == [NO, None, YES]


@pytest.mark.parametrize(
    "score", [Score(True), Score(1), Score(1.0), Score("1"), Score(-2.5e300), Score(2**53 + 1), YES], ids=str
)
async def test_a_score_is_returned_with_the_same_values_and_types(cache: Cache, score: Score) -> None:
    cache.put({"a": score})

    (cached,) = await cache.get(["a"])
    assert (cached, type(cached and cached.prediction)) == (score, type(score.prediction))


async def test_a_later_score_replaces_an_earlier_score(cache: Cache) -> None:
    cache.put({"a": YES})
    cache.put({"a": NO})

    assert list(await cache.get(["a"])) == [NO]


async def test_a_score_expires_at_the_end_of_its_lifetime(cache: Cache) -> None:
    cache.put({"short": YES}, 0.05)
    cache.put({"long": NO})

    async def has_expired() -> bool:
        return list(await cache.get(["short", "long"])) == [None, NO]

    await eventually_async(has_expired)


async def test_the_cache_accepts_empty_lists_of_scores_and_keys(cache: Cache) -> None:
    cache.put({})

    assert list(await cache.get([])) == []
