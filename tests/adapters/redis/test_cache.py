"""The score cache in Redis: keys, lifetimes, and what happens if Redis cannot store scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from redis import Redis

from rowcast.adapters.redis.memory import MemoryLimits, size_in_bytes
from rowcast.events import Event, RedisFailed
from rowcast.schema.prediction import Score
from support.redis import RedisServer, serving
from support.sharing import redis_cache, until

YES = Score("yes")


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with serving(tmp_path) as server:
        yield server


async def test_scores_are_stored_under_the_prefix_and_expire(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "mine", seconds=60) as (cache, _):
        cache.put({"rk2-a": YES})
        cache.put({"rk2-b": YES}, 3600)
        await until(lambda: own_redis.command("dbsize") == "2")

    keys = {key: int(own_redis.command("pttl", key)) for key in own_redis.command("keys", "*").split()}
    assert 0 < keys.pop("mine:scores1:rk2-a") <= 60_000 < keys.pop("mine:scores1:rk2-b") <= 3_600_000
    assert keys == {}


async def test_servers_of_different_releases_can_share_values(own_redis: RedisServer) -> None:
    """If this test fails, the format has changed: FORMAT must change too."""
    async with redis_cache(own_redis.url, "p") as (cache, _):
        cache.put({"a": Score("yes", 0.75, 0.75, {"yes": 0.75})})
        await until(lambda: own_redis.command("dbsize") == "1")

    with Redis.from_url(own_redis.url) as client:
        value: Any = client.get("p:scores1:a")
    assert msgspec.msgpack.decode(value) == {
        "prediction": "yes",
        "probability": 0.75,
        "score": 0.75,
        "probabilities": {"yes": 0.75},
    }


async def test_caches_with_different_prefixes_share_no_scores(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "x") as (x, _), redis_cache(own_redis.url, "y") as (y, _):
        x.put({"a": YES})
        await until(lambda: own_redis.command("dbsize") == "1")

        assert list(await y.get(["a"])) == [None]


async def test_many_scores_are_written_and_found(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "p") as (cache, _):
        keys = [f"k{number}" for number in range(1200)]
        cache.put({key: Score(number) for number, key in enumerate(keys)})
        await until(lambda: own_redis.command("dbsize") == "1200")

        assert [score and score.prediction for score in await cache.get([*keys, "none"])] == [*range(1200), None]


@pytest.mark.parametrize("value", ["", "nonsense", "\x93\x01\x02\x03"])
async def test_a_value_from_another_program_is_a_miss(own_redis: RedisServer, value: str) -> None:
    events: list[Event] = []
    own_redis.command("set", "p:scores1:a", value)
    async with redis_cache(own_redis.url, "p", events=events) as (cache, link):
        assert list(await cache.get(["a"])) == [None]
        assert link.is_available
    assert RedisFailed("cache", "reply") in events


async def test_a_full_redis_stores_no_scores_and_the_cache_reports_it(own_redis: RedisServer) -> None:
    own_redis.command("config", "set", "maxmemory", "1")
    async with redis_cache(own_redis.url, "p") as (cache, link):
        cache.put({"a": YES})
        await until(lambda: cache.problem() is not None)

        assert "used memory" in str(cache.problem())
        assert list(await cache.get(["a"])) == [None]
        assert link.is_available
        own_redis.command("config", "set", "maxmemory", "0")
        cache.put({"a": YES})
        await until(lambda: cache.problem() is None)
        assert list(await cache.get(["a"])) == [YES]


async def test_the_memory_limits_are_set_when_a_server_connects_and_after_a_restart(own_redis: RedisServer) -> None:
    def current() -> list[str]:
        names = ("maxmemory", "maxmemory-policy")
        return [own_redis.command("config", "get", name).splitlines()[-1] for name in names]

    wanted = [str(64 * 1024**2), "allkeys-lru"]
    async with redis_cache(own_redis.url, "p", limits=MemoryLimits("64mb", "allkeys-lru")) as (cache, link):
        assert current() == wanted
        own_redis.kill()
        await cache.get(["a"])
        own_redis.start()
        await until(lambda: link.is_available)
        assert current() == wanted


async def test_a_redis_that_does_not_allow_config_set_keeps_its_limits(tmp_path: Path) -> None:
    with serving(tmp_path, "--rename-command", "CONFIG", "") as server:
        async with redis_cache(server.url, "p", limits=MemoryLimits("64mb", "allkeys-lru")) as (cache, _):
            cache.put({"a": YES})
            assert list(await cache.get(["a"])) == [YES]


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("100", 100), ("2k", 2000), ("2kb", 2048), ("256MB", 256 * 1024**2), ("1g", 10**9)]
)
def test_sizes_are_parsed_as_redis_parses_them(text: str, size: int) -> None:
    assert size_in_bytes(text) == size
