"""The in-memory score cache of a single process: expiry and eviction."""

from __future__ import annotations

from rowcast.adapters.memory.cache import MemoryCache
from rowcast.schema.prediction import Score

YES = Score("yes", 0.75, 0.75, {"yes": 0.75, "no": 0.25})


async def test_a_score_expires_at_the_end_of_its_lifetime() -> None:
    now = [0.0]
    cache = MemoryCache(10, 60, lambda: now[0])
    cache.put({"a": YES})
    cache.put({"b": YES}, 90)
    now[0] = 60.0

    assert list(await cache.get(["a", "b"])) == [None, YES]


async def test_a_full_cache_evicts_the_least_recently_used_score() -> None:
    cache = MemoryCache(3, 60, lambda: 0.0)
    for name in "abc":
        cache.put({name: YES})
    await cache.get(["a"])
    cache.put({"d": YES})

    assert [score is not None for score in await cache.get(list("abcd"))] == [True, False, True, True]
