"""Idempotency-Key: one answer for each key."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from rowcast.access.callers import Caller
from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.errors import RepeatConflict, RequestError, Unavailable
from rowcast.http.idempotency import PURGE_EVERY_SECONDS, Idempotency

ANYONE = Caller()


class Handler:
    """Answers with the number of the call."""

    def __init__(self) -> None:
        self.calls = 0
        self.error: Exception | None = None
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> bytes:
        self.calls += 1
        self.begun.set()
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return b"reply %d" % self.calls


def asking(idempotency: Idempotency, handler: Handler) -> Callable[..., Awaitable[tuple[bytes, bool]]]:
    """Return a function that sends a request; its arguments replace parts of the request."""

    def ask(
        key: bytes = b"k", caller: Caller = ANYONE, path: str = "/predict", meaning: bytes = b"", body: bytes = b"{}"
    ) -> Awaitable[tuple[bytes, bool]]:
        return idempotency.answer(key, caller, path, meaning, body, handler)

    return ask


async def test_a_repeated_request_gets_the_first_reply() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)

    assert [await ask(), await ask(), await ask(b"other")] == [
        (b"reply 1", False),
        (b"reply 1", True),
        (b"reply 2", False),
    ]


@pytest.mark.parametrize("part", [{"path": "/models/m/predict"}, {"meaning": b"?entity=a"}, {"body": b"[]"}])
async def test_a_different_request_with_the_same_key_is_refused(part: dict[str, bytes]) -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), Handler())
    await ask()

    with pytest.raises(RepeatConflict) as refused:
        await ask(**part)

    assert refused.value.slug == "repeat-differs"


async def test_callers_choose_their_keys_independently() -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), Handler())

    replies = [await ask(caller=Caller(key_id, tenant)) for key_id, tenant in (("1", ""), ("2", ""), ("1", "acme"))]

    assert replies == [(b"reply 1", False), (b"reply 2", False), (b"reply 3", False)]


async def test_of_two_simultaneous_requests_one_is_answered() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)
    handler.gate.clear()
    first, second = asyncio.ensure_future(ask()), asyncio.ensure_future(ask())

    await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    handler.gate.set()
    results = await asyncio.gather(first, second, return_exceptions=True)

    assert [type(result) for result in results] == [tuple, RepeatConflict]
    assert handler.calls == 1


async def test_a_failed_request_may_be_repeated() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)
    handler.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await ask()

    handler.error = None

    assert await ask() == (b"reply 2", False)


async def test_a_cancelled_request_may_be_repeated() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)
    handler.gate.clear()
    first = asyncio.ensure_future(ask())
    await handler.begun.wait()

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    handler.gate.set()

    assert await ask() == (b"reply 2", False)


async def test_a_reply_is_sent_although_it_cannot_be_stored() -> None:
    class FullStore(MemoryIdempotencyStore):
        def save_reply(self, key: str, reply: bytes, now: float) -> None:
            raise Unavailable("the disk is full")

    ask = asking(Idempotency(FullStore(), 60), Handler())

    with capture_logs() as logs:
        reply = await ask()

    assert reply == (b"reply 1", False)
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", "the disk is full")]


@pytest.mark.parametrize("key", [b"", b"a b", b"a\xff", b"k" * 256])
async def test_an_invalid_key_is_refused(key: bytes) -> None:
    handler = Handler()

    with pytest.raises(RequestError) as refused:
        await asking(Idempotency(MemoryIdempotencyStore(), 60), handler)(key)

    assert refused.value.slug == "bad-option"
    assert handler.calls == 0


async def test_replies_are_forgotten_after_their_time() -> None:
    now = [1000.0]
    ask = asking(Idempotency(MemoryIdempotencyStore(), 600, lambda: now[0]), Handler())
    await ask()

    now[0] += 500
    repeated = await ask()
    now[0] += 101 + PURGE_EVERY_SECONDS

    assert repeated == (b"reply 1", True)
    assert await ask() == (b"reply 2", False)


async def test_the_store_is_never_called_on_the_event_loop() -> None:
    threads: set[threading.Thread] = set()

    class NotingStore(MemoryIdempotencyStore):
        def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
            threads.add(threading.current_thread())
            return super().claim(key, fingerprint, now)

        def save_reply(self, key: str, reply: bytes, now: float) -> None:
            threads.add(threading.current_thread())
            super().save_reply(key, reply, now)

    await asking(Idempotency(NotingStore(), 60), Handler())()

    assert len(threads) == 1
    assert threading.current_thread() not in threads
