"""A score cache in Redis, shared by all server processes on all machines.

Keys are hashes (`schema/identity.py`), so they reveal neither rows nor tenants.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, cast

import msgspec

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.gathering import Gatherer
from rowcast.adapters.redis.link import RedisLink
from rowcast.adapters.redis.memory import MemoryLimits, set_limits
from rowcast.schema.prediction import Score

FORMAT: Final = "scores1"
"""Part of every key. It changes with the format of the values."""
MAX_UNWRITTEN: Final = 20_000
"""The maximum number of scores waiting to be written. Further scores are not cached."""
WRITES_PER_CALL: Final = 200

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Score).decode


class RedisCache:
    """Stores each score for `seconds`. If Redis fails, lookups return misses, and new scores are dropped."""

    def __init__(self, link: RedisLink, prefix: str, seconds: float) -> None:
        self._link = link
        self._prefix = key_prefix(prefix)
        self._seconds = seconds
        self._lookups: Gatherer[str, bytes | None] = Gatherer(link, _get)
        # The scores that are not in Redis yet, by key, with their lifetimes in milliseconds.
        self._unwritten: dict[str, tuple[Score, int]] = {}
        self._is_writing = False
        self._refusal: str | None = None

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """Return the cached score for each key, or None for each key that is not cached."""
        names = [self._prefix + key for key in keys]
        values = await self._lookups.ask(names)
        scores = [None if value is None else self._read(value) for value in values]
        if self._unwritten:
            return [
                self._unwritten[name][0] if score is None and name in self._unwritten else score
                for name, score in zip(names, scores, strict=True)
            ]
        return scores

    def put(self, scores: Mapping[str, Score], seconds: float | None = None) -> None:
        """Write scores in the background. They expire after `seconds`, or after the default lifetime if `seconds` is
        None."""
        if not scores or not self._link.is_available or len(self._unwritten) + len(scores) > MAX_UNWRITTEN:
            return
        lifetime = max(1, round((self._seconds if seconds is None else seconds) * 1000))
        for key, score in scores.items():
            self._unwritten[self._prefix + key] = score, lifetime
        if not self._is_writing:
            self._is_writing = True
            self._link.run(self._write())

    def problem(self) -> str | None:
        """Return why scores are not cached, or None."""
        return self._link.problem() or self._refusal

    async def _write(self) -> None:
        try:
            while self._unwritten:
                batch = dict(list(self._unwritten.items())[:WRITES_PER_CALL])
                replies = await self._link.call(lambda client, batch=batch: _set(client, batch))  # type: ignore[misc]
                if replies is None:
                    self._unwritten.clear()
                    return
                self._note(replies)
                for name, written in batch.items():
                    if self._unwritten.get(name) is written:
                        del self._unwritten[name]
        finally:
            self._is_writing = False

    def _note(self, replies: Sequence[object]) -> None:
        """Record why Redis refuses to store scores, for example because its memory is full."""
        refusals = [str(reply) for reply in replies if isinstance(reply, Exception)]
        for _ in refusals:
            self._link.report_failure("reply")
        self._refusal = f"Redis refuses to store scores: {refusals[0]}" if refusals else None

    def _read(self, value: bytes) -> Score | None:
        try:
            return _decode(value)
        except msgspec.MsgspecError:  # written by another program
            self._link.report_failure("reply")
            return None


def key_prefix(prefix: str) -> str:
    """Return the prefix of every cache key."""
    return f"{prefix}:{FORMAT}:"


def verify_cache(prefix: str, limits: MemoryLimits) -> Callable[[RedisClient], Awaitable[None]]:
    """Return a function that verifies that scores can be looked up, and then sets the memory limits."""

    async def verify(client: RedisClient) -> None:
        await client.execute("MGET", f"{key_prefix(prefix)}none")
        await set_limits(client, limits)

    return verify


async def _get(client: RedisClient, names: list[str]) -> Sequence[bytes | None]:
    values: Any = await client.execute("MGET", *names)
    return cast(Sequence[bytes | None], values)


async def _set(client: RedisClient, scores: Mapping[str, tuple[Score, int]]) -> Sequence[object]:
    return await client.execute_all(
        [("SET", name, _encode(score), "PX", lifetime) for name, (score, lifetime) in scores.items()]
    )
