"""Support for Idempotency-Key: store the reply to a request, and return the stored reply if the request is repeated."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import sha256
from typing import TypeVar

import structlog

from rowcast.access.callers import Caller
from rowcast.access.ports import IdempotencyStore
from rowcast.errors import RequestError, RowcastError

VALID_KEY = re.compile(rb"[\x21-\x7e]{1,255}").fullmatch
PURGE_EVERY_SECONDS = 60.0
RENEWALS_PER_LEASE = 4
"""A process renews its claims this many times within the lifetime of a claim."""
TRIMS_PER_LIMIT = 16
"""A process trims the store once for every `max_bytes / TRIMS_PER_LIMIT` bytes that it saves. Trimming is rare because
it reads every key."""

T = TypeVar("T")
log = structlog.get_logger("rowcast.http")


class Idempotency:
    """Executes only the first request with each Idempotency-Key.

    The store is called in a separate thread, never on the event loop. While a request is in progress, its claim is
    renewed.
    """

    def __init__(
        self,
        store: IdempotencyStore,
        seconds: float,
        now: Callable[[], float] = time.time,
        *,
        max_bytes: int = 256 * 1024 * 1024,
        threads: int = 1,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._max_bytes = max_bytes
        self._untrimmed_bytes = 0
        """The total size of the replies that this process has saved since it last trimmed the store."""
        self._now = now
        self._purged_at = now()
        self._threads = ThreadPoolExecutor(threads, "idempotency")
        self._claims: set[str] = set()
        """The keys of the requests in progress."""
        self._next_renewal: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Future[None] | None = None

    async def answer(
        self, sent: bytes, caller: Caller, path: str, meaning: bytes, body: bytes, first: Callable[[], Awaitable[bytes]]
    ) -> tuple[bytes, bool]:
        """Return the reply, and whether it is a stored reply to an earlier request."""
        if not VALID_KEY(sent):
            raise RequestError("Idempotency-Key must be 1 to 255 visible ASCII characters", slug="bad-option")
        # Two callers can choose the same key, so the hash includes the caller.
        identity = caller.key_id.encode(), caller.tenant.encode()
        owner = sha256(b"\0".join(identity[1:] if caller.tenant else identity)).hexdigest()[:16]
        key = owner + ":" + sha256(b"\0".join((*identity, sent))).hexdigest()
        fingerprint = sha256(b"\0".join((path.encode(), meaning, body))).digest()
        now = self._now()
        await self._purge(now)
        stored = await self._claim(key, fingerprint, now)
        if stored is not None:
            return stored, True
        self._claims.add(key)
        self._schedule_renewal()
        try:
            reply = await first()
        except BaseException:
            await self._settle(self._store.release, key)
            raise
        finally:
            self._claims.discard(key)
        await self._settle(self._store.save_reply, key, reply, self._now())
        self._untrimmed_bytes += len(reply)
        if self._untrimmed_bytes > self._max_bytes / TRIMS_PER_LIMIT:
            self._untrimmed_bytes = 0
            await self._settle(self._store.trim, self._max_bytes)
        return reply, False

    def _schedule_renewal(self) -> None:
        if self._next_renewal is None:
            loop, seconds = asyncio.get_running_loop(), self._store.lease_seconds / RENEWALS_PER_LEASE
            self._next_renewal = loop.call_later(seconds, self._renew)

    def _renew(self) -> None:
        """Renew the claims of the requests in progress, and schedule the next renewal if there are any."""
        self._next_renewal = None
        if self._claims:
            self._renewal = asyncio.ensure_future(self._settle(self._store.renew, tuple(self._claims), self._now()))
            self._schedule_renewal()

    async def _claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """Return the saved reply, or claim the key and return None. A canceled request leaves no claim behind."""
        claiming = self._call(self._store.claim, key, fingerprint, now)
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            # The claim may still be in progress. Its outcome is known only when the store's thread has finished.
            with suppress(RowcastError):
                if await claiming is None:
                    await self._settle(self._store.release, key)
            raise

    async def _settle(self, method: Callable[..., None], *arguments: object) -> None:
        """Save the reply, or release or renew claims. If this fails, the reply is still sent, and the claim expires."""
        try:
            await asyncio.shield(self._call(method, *arguments))
        except RowcastError as error:
            log.warning("cannot update the claim on an Idempotency-Key", reason=error.message)

    async def _purge(self, now: float) -> None:
        if not self._purged_at <= now < self._purged_at + PURGE_EVERY_SECONDS:
            self._purged_at = now
            await self._call(self._store.purge, now - self._seconds)

    def _call(self, method: Callable[..., T], *arguments: object) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, method, *arguments)
