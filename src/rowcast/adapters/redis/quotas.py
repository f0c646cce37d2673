"""Quotas in Redis, shared by all server processes on all machines.

Each key is a hash of a quota's name. The name contains the id of an API key or the address of a client.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1, sha256
from importlib.resources import files
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from rowcast.access.shared_quotas import QuotaUse
from rowcast.adapters.redis.gathering import Gatherer
from rowcast.adapters.redis.link import RedisLink

FORMAT: Final = "quota1"
"""Part of every key. It changes with the format of the values."""
SCRIPT: Final = files(__package__).joinpath("charge.lua").read_text(encoding="utf-8")
DIGEST: Final = sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
"""The digest by which Redis identifies the script."""


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


def verify_quotas(prefix: str) -> Callable[[Redis], Awaitable[None]]:
    """Return a function that verifies that quotas can be charged. It charges a test quota that is replenished after 1
    ms.
    """

    async def verify(client: Redis) -> None:
        await _charge(client, [Charge(f"{prefix}:{FORMAT}:none", 1, 1000, 1)])

    return verify


async def _charge(client: Redis, charges: list[Charge]) -> Sequence[QuotaUse]:
    keys = [each.key for each in charges]
    numbers = [number for each in charges for number in (each.rows, each.limit, each.seconds)]
    try:
        replies: Any = await client.evalsha(DIGEST, len(keys), *keys, *numbers)
    except NoScriptError:  # Redis has been restarted
        replies = await client.eval(SCRIPT, len(keys), *keys, *numbers)
    return [QuotaUse(bool(accepted), float(used)) for accepted, used in replies]
