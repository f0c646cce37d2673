"""Caches and quotas in Redis, for tests. The time limits are long, because tests also run on busy machines."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from rowcast.adapters.redis.cache import RedisCache, verify_cache
from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.link import RedisLink
from rowcast.adapters.redis.memory import MemoryLimits
from rowcast.adapters.redis.quotas import RedisQuotas, verify_quotas
from rowcast.events import Event, RedisUse
from support.waiting import eventually_async

LONG = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is met."""

    async def is_met() -> object:
        return condition()

    await eventually_async(is_met, LONG)


@contextlib.asynccontextmanager
async def linked(
    url: str,
    use: RedisUse,
    verify: Callable[[RedisClient], Awaitable[None]],
    events: list[Event] | None,
    *,
    is_usable: bool,
) -> AsyncIterator[RedisLink]:
    """Open a connection during a `with` block. If `is_usable` is true, wait until the connection is available."""
    listen: Any = (lambda event: None) if events is None else events.append
    link = RedisLink(url, use, seconds=LONG, verify=verify, fallback="tests do without it", listen=listen)
    await link.start()
    try:
        if is_usable:
            await until(lambda: link.is_available)
        yield link
    finally:
        await link.stop()


@contextlib.asynccontextmanager
async def redis_cache(
    url: str,
    prefix: str,
    *,
    events: list[Event] | None = None,
    limits: MemoryLimits | None = None,
    seconds: float = 60,
    is_usable: bool = True,
) -> AsyncIterator[tuple[RedisCache, RedisLink]]:
    """Run a cache during a `with` block; yield it with its connection."""
    async with linked(
        url, "cache", verify_cache(prefix, limits or MemoryLimits()), events, is_usable=is_usable
    ) as link:
        yield RedisCache(link, prefix, seconds), link


@contextlib.asynccontextmanager
async def redis_quotas(
    url: str, prefix: str, *, events: list[Event] | None = None, is_usable: bool = True
) -> AsyncIterator[tuple[RedisQuotas, RedisLink]]:
    """Run shared quotas during a `with` block; yield them with their connection."""
    async with linked(url, "quotas", verify_quotas(prefix), events, is_usable=is_usable) as link:
        yield RedisQuotas(link, prefix), link
