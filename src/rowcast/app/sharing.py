"""The state that server processes can share: API keys in the store, and the score cache and quota usage in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from rowcast.app.access import served_keys

if TYPE_CHECKING:
    from rowcast.access.ports import KeyReader
    from rowcast.access.shared_quotas import SharedQuotas
    from rowcast.adapters.redis.link import RedisLink
    from rowcast.events import Listener
    from rowcast.runtime.lifecycle import Part
    from rowcast.serving.health import HealthCheck
    from rowcast.serving.ports import Cache
    from rowcast.settings import Settings


class SharedParts(NamedTuple):
    """The keys, the cache, the quotas, and the connections that they use."""

    keys: KeyReader
    cache: Cache | None
    quotas: SharedQuotas | None
    """The shared quotas; None if each process enforces an equal share of every quota."""
    connections: tuple[Part, ...]
    checks: dict[str, HealthCheck]
    """A health check for each connection. The server can run without Redis."""


def shared_parts(settings: Settings, listen: Listener) -> SharedParts:
    """Return the keys, the cache and the quotas. Adapters for Redis are imported only if a setting requires them."""
    connections: list[RedisLink] = []
    checks: dict[str, HealthCheck] = {}
    cache: Cache | None = None
    quotas: SharedQuotas | None = None
    if settings.cache == "memory":
        from rowcast.adapters.memory.cache import MemoryCache

        cache = MemoryCache(settings.cache_entries, settings.cache_seconds)
    elif settings.cache != "off":
        cache, link, checks["cache"] = _redis_cache(settings, listen)
        connections.append(link)
    if settings.quotas is not None:
        quotas, link, checks["quotas"] = _redis_quotas(settings, settings.quotas, listen)
        connections.append(link)
    if len(connections) == 2 and _server(settings.cache) == _server(settings.quotas or ""):
        connections[0].share_outages(connections[1])
    keys, parts = served_keys(settings)
    return SharedParts(keys, cache, quotas, (*connections, *parts), checks)


def _server(url: str) -> tuple[str | None, int | None, str]:
    """Return the host and the port of a Redis URL, or the path of its socket."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or 6379, parts.path if parts.scheme == "unix" else ""


def _redis_cache(settings: Settings, listen: Listener) -> tuple[Cache, RedisLink, HealthCheck]:
    from rowcast.adapters.redis.cache import RedisCache, verify_cache
    from rowcast.adapters.redis.link import RedisLink
    from rowcast.adapters.redis.memory import MemoryLimits

    link = RedisLink(
        settings.cache,
        "cache",
        seconds=settings.redis_timeout_ms / 1000,
        verify=verify_cache(settings.redis_prefix, MemoryLimits(settings.redis_maxmemory, settings.redis_policy)),
        fallback="scores are not cached",
        listen=listen,
    )
    cache = RedisCache(link, settings.redis_prefix, settings.cache_seconds)
    return cache, link, cache.problem


def _redis_quotas(settings: Settings, url: str, listen: Listener) -> tuple[SharedQuotas, RedisLink, HealthCheck]:
    from rowcast.adapters.redis.link import RedisLink
    from rowcast.adapters.redis.quotas import RedisQuotas, verify_quotas

    link = RedisLink(
        url,
        "quotas",
        seconds=settings.redis_timeout_ms / 1000,
        verify=verify_quotas(settings.redis_prefix),
        fallback="each server process enforces an equal share of every quota",
        listen=listen,
    )
    return RedisQuotas(link, settings.redis_prefix), link, link.problem
