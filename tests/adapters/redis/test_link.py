"""If Redis fails in any way, requests neither fail nor wait longer than the time limit."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowcast.adapters.redis.cache import RedisCache
from rowcast.events import Event, RedisFailed, RedisSwitched
from rowcast.schema.prediction import Score
from support.redis import RedisServer, serving, slow_proxy
from support.sharing import LONG, redis_cache, redis_quotas, until

YES = Score("yes")
AWAY = RedisSwitched("cache", is_available=False)
BACK = RedisSwitched("cache", is_available=True)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis server that the test may stop."""
    with serving(tmp_path) as server:
        yield server


async def is_hit(cache: RedisCache) -> bool:
    cache.put({"a": YES})
    return list(await cache.get(["a"])) == [YES]


def answers_at_once(cache: RedisCache) -> bool:
    """Return whether a lookup completes immediately and is a miss."""
    lookup = cache.get(["a"])
    try:
        lookup.send(None)
    except StopIteration as stop:
        return bool(stop.value == [None])
    lookup.close()
    return False


def mget_calls(server: RedisServer) -> int:
    """Return how many MGET commands the server has executed."""
    (line,) = [line for line in server.command("info", "commandstats").splitlines() if line.startswith("cmdstat_mget:")]
    return int(line.partition("calls=")[2].partition(",")[0])


async def test_a_paused_redis_delays_one_call_by_the_time_limit_and_is_used_again_later(own_redis: RedisServer) -> None:
    events: list[Event] = []
    async with redis_cache(own_redis.url, "p", events=events) as (cache, link):
        assert await is_hit(cache)
        own_redis.pause()
        link.seconds = 0.1
        before = time.perf_counter()
        lookups = await asyncio.gather(*[cache.get(["a"]) for _ in range(50)])
        took = time.perf_counter() - before
        await until(lambda: not link.is_available)

        assert lookups == [[None]] * 50
        assert 0.1 <= took < LONG / 2
        assert answers_at_once(cache)
        assert "no reply within 100 ms" in str(link.problem())
        link.seconds = LONG
        own_redis.resume()
        await until(lambda: link.is_available)
        assert link.problem() is None
        assert await is_hit(cache)
    assert [event for event in events if isinstance(event, RedisSwitched)][-3:] == [BACK, AWAY, BACK]
    assert RedisFailed("cache", "timeout") in events


@pytest.mark.parametrize("way", ["stop", "kill"])
async def test_a_stopped_redis_is_used_again_after_a_restart(own_redis: RedisServer, way: str) -> None:
    events: list[Event] = []
    async with redis_cache(own_redis.url, "p", events=events) as (cache, link):
        assert await is_hit(cache)
        getattr(own_redis, way)()

        assert list(await cache.get(["a"])) == [None]
        assert answers_at_once(cache)
        assert RedisFailed("cache", "connection") in events
        own_redis.start()
        await until(lambda: link.is_available)
        assert await is_hit(cache)


async def test_an_outage_of_the_cache_also_applies_to_the_quotas_on_the_same_server(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "p") as (cache, link), redis_quotas(own_redis.url, "p") as (quotas, other):
        link.share_outages(other)
        own_redis.pause()
        link.seconds = 0.1
        await cache.get(["a"])
        await until(lambda: not link.is_available)

        charge = quotas.charge("k", 1, limit=1, seconds=60)
        with pytest.raises(StopIteration) as answered_at_once:
            charge.send(None)
        assert answered_at_once.value.value is None
        link.seconds = LONG
        own_redis.resume()
        await until(lambda: link.is_available and other.is_available)


async def test_redis_can_be_reached_through_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder), "--unixsocket", f"{folder}/s") as server:
        async with redis_cache(f"unix://{folder}/s?db=3", "p") as (cache, _):
            assert await is_hit(cache)
            await until(lambda: server.command("-n", "3", "dbsize") == "1")


async def test_a_connection_that_redis_has_closed_is_replaced(own_redis: RedisServer) -> None:
    """Redis closes idle connections if its `timeout` parameter is set."""
    events: list[Event] = []
    async with redis_cache(own_redis.url, "p", events=events) as (cache, _):
        assert await is_hit(cache)
        await until(lambda: not cache._unwritten)
        own_redis.command("client", "kill", "type", "normal")
        for _ in range(5):
            await asyncio.sleep(0)

        assert list(await cache.get(["a"])) == [YES]
    assert not [event for event in events if isinstance(event, RedisFailed)]


async def test_a_server_that_starts_without_redis_uses_it_later(own_redis: RedisServer) -> None:
    own_redis.stop()
    async with redis_cache(own_redis.url, "p", is_usable=False) as (cache, link):
        assert answers_at_once(cache)
        own_redis.start()
        await until(lambda: link.is_available)

        assert await is_hit(cache)


async def test_a_redis_server_that_becomes_too_slow_is_not_used_until_it_is_fast_again(
    redis_server: RedisServer,
) -> None:
    async with (
        slow_proxy(redis_server.port) as proxy,
        redis_cache(f"redis://127.0.0.1:{proxy.port}", uuid.uuid4().hex) as (cache, link),
    ):
        assert await is_hit(cache)
        proxy.seconds, link.seconds = 0.6, 0.2
        assert list(await cache.get(["b"])) == [None]
        await until(lambda: not link.is_available)
        assert answers_at_once(cache)
        proxy.seconds, link.seconds = 0, LONG
        await until(lambda: link.is_available)

        assert await is_hit(cache)


async def test_a_reply_that_arrives_while_the_event_loop_is_busy_is_not_treated_as_late(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "p") as (cache, link):
        assert await is_hit(cache)
        await until(lambda: not cache._unwritten)
        link.seconds, before = 0.2, mget_calls(own_redis)
        lookup = asyncio.create_task(cache.get(["a"]))
        for _ in range(5):  # until the lookup has been sent
            await asyncio.sleep(0)
        end = time.perf_counter() + link.seconds
        while time.perf_counter() < end or mget_calls(own_redis) == before:
            """Block the event loop until the time limit has passed and Redis has executed the lookup."""

        assert list(await lookup) == [YES]
        assert link.is_available


async def test_concurrent_lookups_share_round_trips(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "p") as (cache, _):
        assert await is_hit(cache)
        before = mget_calls(own_redis)

        assert await asyncio.gather(*[cache.get(["a", "b"]) for _ in range(100)]) == [[YES, None]] * 100

        assert mget_calls(own_redis) == before + 1


async def test_a_canceled_request_does_not_affect_the_lookups_of_other_requests(own_redis: RedisServer) -> None:
    async with redis_cache(own_redis.url, "p") as (cache, _):
        assert await is_hit(cache)
        tasks = [asyncio.create_task(cache.get(["a"])) for _ in range(4)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [[YES]] * 3


async def test_a_wrong_password_is_reported_without_the_password(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, "--requirepass", "right-one") as server:
        url = server.url.replace("//", "//:{}@")
        async with redis_cache(url.format("wrong%2Fone"), "p", is_usable=False) as (cache, link):
            assert "rejects the user name or password" in str(link.problem())
            assert answers_at_once(cache)
        async with redis_quotas(url.format("wrong%2Fone"), "p", is_usable=False) as (_, link):
            assert "rejects the user name or password" in str(link.problem())
        async with redis_cache(url.format("right-one"), "p") as (cache, link):
            assert await is_hit(cache)
    written = capsys.readouterr()
    assert not any(secret in written.out + written.err for secret in ("wrong/one", "wrong%2Fone", "right-one"))


async def test_a_user_without_permission_does_not_use_redis(own_redis: RedisServer) -> None:
    own_redis.command("acl", "setuser", "reader", "on", ">secret", "~*", "+@connection", "+ping")
    async with redis_cache(own_redis.url.replace("//", "//reader:secret@"), "p", is_usable=False) as (cache, link):
        assert "permission" in str(link.problem())
        assert answers_at_once(cache)
