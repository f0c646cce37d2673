"""Inspects a Redis server for `rowcast doctor`, without changing anything."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from rowcast.adapters.redis.link import describe
from rowcast.errors import SettingsError


class RedisState(NamedTuple):
    """The state of a Redis server. `seconds` is the duration of a round trip."""

    version: str
    seconds: float
    maxmemory: int
    policy: str
    memory: dict[str, Any]
    can_configure: bool
    """Whether Redis allows CONFIG SET."""


def inspect(url: str, seconds: float) -> RedisState:
    """Connect and return the state; raise SettingsError if Redis cannot be used."""
    client = Redis.from_url(
        url, protocol=2, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
    )
    try:
        client.ping()
        before = time.perf_counter()
        client.ping()
        took = time.perf_counter() - before
        memory = client.info("memory")
        version = client.info("server")["redis_version"]
        return RedisState(
            str(version),
            took,
            int(memory["maxmemory"]),
            memory["maxmemory_policy"],
            memory,
            _can_configure(client, memory),
        )
    except (RedisError, OSError, ValueError) as error:
        raise SettingsError(describe(error, url)) from None
    finally:
        client.close()


def eviction_policy(url: str, seconds: float) -> str:
    """Return the eviction policy, or an empty string if Redis does not respond or does not return the policy."""
    client = Redis.from_url(
        url, protocol=2, socket_timeout=seconds, socket_connect_timeout=seconds, retry=Retry(NoBackoff(), 0)
    )
    try:
        return str(client.info("memory").get("maxmemory_policy", ""))
    except (RedisError, OSError, ValueError):
        return ""
    finally:
        client.close()


def _can_configure(client: Redis, memory: dict[str, Any]) -> bool:
    """Set a parameter to its current value, and return whether Redis allowed it."""
    try:
        client.config_set("maxmemory-policy", memory["maxmemory_policy"])
    except ResponseError:
        return False
    return True
