"""Quotas in Redis: keys, restarts and processes that share a quota."""

from __future__ import annotations

import asyncio
import uuid
from pathlib import Path

from support.redis import RedisServer, serving
from support.sharing import redis_quotas


async def test_processes_share_a_quota_exactly(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    async with redis_quotas(redis_server.url, prefix) as (one, _), redis_quotas(redis_server.url, prefix) as (two, _):
        charges = [quotas.charge("k", 1, limit=100, seconds=3600) for quotas in (one, two) for _ in range(80)]
        uses = await asyncio.gather(*charges)

    assert [use is not None for use in uses] == [True] * 160
    assert sum(use.accepted for use in uses if use is not None) == 100


async def test_keys_are_hashes_and_expire_when_the_whole_quota_is_available_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with redis_quotas(server.url, "mine") as (quotas, _):
            use = await quotas.charge("key:secret-id", 5, limit=10, seconds=60)
            (key,) = server.command("keys", "*").split()
            lifetime = int(server.command("pttl", key))

    assert use is not None
    assert (use.accepted, use.seconds) == (True, 30.0)
    assert key.startswith("mine:quota1:")
    assert "secret" not in key
    assert 0 < lifetime <= 30_000


async def test_a_charge_succeeds_after_redis_has_lost_its_scripts(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with redis_quotas(server.url, "p") as (quotas, link):
            server.command("script", "flush")

            assert await quotas.charge("k", 1, limit=1, seconds=60) == (True, 60.0)
            assert link.is_available


async def test_a_full_redis_does_not_count_quotas(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with redis_quotas(server.url, "p") as (quotas, link):
            server.command("config", "set", "maxmemory", "1")

            assert await quotas.charge("k", 1, limit=1, seconds=60) is None
            assert "used memory" in str(link.problem())


async def test_setting_the_clock_back_does_not_restore_a_quota(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        async with redis_quotas(server.url, "p") as (quotas, _):
            await quotas.charge("k", 5, limit=10, seconds=60)
            (key,) = server.command("keys", "*").split()
            used, at = server.command("get", key).split()
            server.command("set", key, f"{used} {int(at) + 3600 * 10**6}")

            use = await quotas.charge("k", 0, limit=10, seconds=60)

    assert use == (True, 30.0)
