"""The memory limit and the eviction policy of a Redis server: read them, and set them if Redis allows it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import structlog

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.resp import ReplyError, parse_info

UNITS: Final = {"": 1, "b": 1, "k": 1000, "kb": 1024, "m": 1000**2, "mb": 1024**2, "g": 1000**3, "gb": 1024**3}
"""The number of bytes in each of Redis's units."""

log = structlog.get_logger("rowcast.redis")


class MemoryLimits(msgspec.Struct, frozen=True):
    """The desired memory limit and eviction policy. None leaves the current value unchanged."""

    maxmemory: str | None = None
    policy: str | None = None

    def differences(self, memory: Mapping[str, Any]) -> dict[str, str]:
        """Return the parameters to set, given the section `memory` of Redis's INFO."""
        wanted = {}
        if self.maxmemory is not None and size_in_bytes(self.maxmemory) != int(memory["maxmemory"]):
            wanted["maxmemory"] = str(size_in_bytes(self.maxmemory))
        if self.policy is not None and self.policy != memory["maxmemory_policy"]:
            wanted["maxmemory-policy"] = self.policy
        return wanted


async def set_limits(client: RedisClient, limits: MemoryLimits) -> None:
    """Set the limits that differ; log a warning if Redis does not allow it."""
    if limits == MemoryLimits():
        return
    for parameter, value in limits.differences(parse_info(await client.execute("INFO", "memory"))).items():
        try:
            await client.execute("CONFIG", "SET", parameter, value)
        except ReplyError:
            log.warning("Redis does not allow CONFIG SET", parameter=parameter, wanted=value)


def size_in_bytes(text: str) -> int:
    """Return the number of bytes in a size such as `256mb`."""
    digits = text.rstrip("BKMGbkmg")
    return int(digits) * UNITS[text[len(digits) :].lower()]
