"""Lua scripts, which Redis runs atomically."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.resp import ReplyError, Word


class Script:
    """A script in this package."""

    def __init__(self, name: str) -> None:
        self._text = files(__package__).joinpath(name).read_text(encoding="utf-8")
        self._digest = sha1(self._text.encode(), usedforsecurity=False).hexdigest()
        """The digest by which Redis identifies the script."""

    async def run(self, client: RedisClient, keys: Sequence[str], arguments: Sequence[Word]) -> Any:
        """Run the script and return its result."""
        try:
            return await client.execute("EVALSHA", self._digest, len(keys), *keys, *arguments)
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
            return await client.execute("EVAL", self._text, len(keys), *keys, *arguments)  # Redis has been restarted
