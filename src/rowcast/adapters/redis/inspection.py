"""Inspects a Redis server for `rowcast doctor`, without changing anything."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from rowcast.adapters.redis.blocking import BlockingClient, connected
from rowcast.adapters.redis.link import describe
from rowcast.adapters.redis.resp import RedisError, ReplyError, parse_info
from rowcast.errors import SettingsError


class RedisState(NamedTuple):
    """The state of a Redis server. `seconds` is the duration of a round trip."""

    version: str
    seconds: float
    maxmemory: int
    policy: str
    memory: Mapping[str, str]
    can_configure: bool
    """Whether Redis allows CONFIG SET."""


def inspect(url: str, seconds: float) -> RedisState:
    """Connect and return the state; raise SettingsError if Redis cannot be used."""
    try:
        with connected(url, seconds) as client:
            client.execute("PING")
            before = time.perf_counter()
            client.execute("PING")
            took = time.perf_counter() - before
            memory = parse_info(client.execute("INFO", "memory"))
            return RedisState(
                parse_info(client.execute("INFO", "server"))["redis_version"],
                took,
                int(memory["maxmemory"]),
                memory["maxmemory_policy"],
                memory,
                _can_configure(client, memory),
            )
    except (RedisError, OSError, ValueError) as error:
        raise SettingsError(describe(error, url)) from None


def eviction_policy(url: str, seconds: float) -> str:
    """Return the eviction policy, or an empty string if Redis does not respond or does not return the policy."""
    try:
        with connected(url, seconds) as client:
            return parse_info(client.execute("INFO", "memory")).get("maxmemory_policy", "")
    except (RedisError, OSError, ValueError):
        return ""


def _can_configure(client: BlockingClient, memory: Mapping[str, str]) -> bool:
    """Set a parameter to its current value, and return whether Redis allowed it."""
    try:
        client.execute("CONFIG", "SET", "maxmemory-policy", memory["maxmemory_policy"])
    except ReplyError:
        return False
    return True
