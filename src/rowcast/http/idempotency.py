"""Idempotency-Key: the first request is answered and its reply kept; the same request again gets that reply."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TypeVar

import structlog

from rowcast.access.callers import Caller
from rowcast.access.ports import IdempotencyStore
from rowcast.errors import RequestError, RowcastError

USABLE = re.compile(rb"[\x21-\x7e]{1,255}").fullmatch
PURGE_EVERY_SECONDS = 60.0

T = TypeVar("T")
log = structlog.get_logger("rowcast.http")


class Once:
    """Answers each request with a key once. What it keeps is asked on one thread: the event loop waits for no disk."""

    def __init__(self, repeats: IdempotencyStore, seconds: float, now: Callable[[], float] = time.time) -> None:
        self._repeats = repeats
        self._seconds = seconds
        self._now = now
        self._purged = now()
        self._thread = ThreadPoolExecutor(1, "repeats")

    async def answer(
        self, given: bytes, caller: Caller, path: str, query: bytes, body: bytes, first: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """The reply, and whether it is that of an earlier request."""
        if not USABLE(given):
            raise RequestError("Idempotency-Key must be 1 to 255 visible ASCII characters", slug="bad-option")
        # Callers choose their keys without knowing of each other.
        key = sha256(b"\0".join((caller.key_id.encode(), caller.tenant.encode(), given))).hexdigest()
        fingerprint = sha256(b"\0".join((path.encode(), query, body))).digest()
        now = self._now()
        await self._forget(now)
        kept = await self._ask(self._repeats.claim, key, fingerprint, now)
        if kept is not None:
            return kept, True
        try:
            reply = await first()
        except BaseException:
            await self._settle(self._repeats.release, key)
            raise
        await self._settle(self._repeats.save_reply, key, reply, self._now())
        return reply, False

    async def _settle(self, question: Callable[..., None], *arguments: object) -> None:
        """What was answered is in history and must be sent, whatever becomes of the claim: that one ends by itself."""
        try:
            await asyncio.shield(self._ask(question, *arguments))
        except RowcastError as error:
            log.warning("a claim for an Idempotency-Key was not settled", reason=error.message)

    async def _forget(self, now: float) -> None:
        if not self._purged <= now < self._purged + PURGE_EVERY_SECONDS:
            self._purged = now
            await self._ask(self._repeats.purge, now - self._seconds)

    def _ask(self, question: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._thread, question, *arguments)
