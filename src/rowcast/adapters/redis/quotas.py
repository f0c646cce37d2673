"""Quotas in Redis, shared by all server processes on all machines.

Each key is a hash of a quota's name. The name contains the id of an API key or the address of a client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from typing import Final, NamedTuple

from rowcast.access.shared_quotas import QuotaUse
from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.gathering import Gatherer
from rowcast.adapters.redis.link import RedisLink
from rowcast.adapters.redis.scripts import Script

FORMAT: Final = "quota1"
"""Part of every key. It changes with the format of the values."""

_script = Script("charge.lua")


class Charge(NamedTuple):
    """Rows to charge against a quota of `limit` rows in `seconds` seconds."""

    key: str
    rows: int
    limit: int
    seconds: int


class RedisQuotas:
    """Charges rows with a script that Redis runs atomically. The script uses the clock of the Redis server."""

    def __init__(self, link: RedisLink, prefix: str) -> None:
        self._prefix = f"{prefix}:{FORMAT}:"
        self._charges: Gatherer[Charge, QuotaUse] = Gatherer(link, _charge)

    async def charge(self, name: str, rows: int, *, limit: int, seconds: int) -> QuotaUse | None:
        """Charge rows against a quota; return None if Redis cannot be used."""
        key = self._prefix + sha256(name.encode()).hexdigest()
        (use,) = await self._charges.ask([Charge(key, rows, limit, seconds)])
        return use


def verify_quotas(prefix: str) -> Callable[[RedisClient], Awaitable[None]]:
    """Return a function that verifies that quotas can be charged. It charges a test quota that is replenished after 1
    ms.
    """

    async def verify(client: RedisClient) -> None:
        await _charge(client, [Charge(f"{prefix}:{FORMAT}:none", 1, 1000, 1)])

    return verify


async def _charge(client: RedisClient, charges: list[Charge]) -> Sequence[QuotaUse]:
    keys = [each.key for each in charges]
    numbers = [number for each in charges for number in (each.rows, each.limit, each.seconds)]
    replies = await _script.run(client, keys, numbers)
    return [QuotaUse(bool(accepted), float(used)) for accepted, used in replies]
