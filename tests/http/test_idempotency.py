"""Idempotency keys, in isolation and in the complete app."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from rowcast.access.callers import Caller
from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.errors import RepeatConflict, RequestError, Unavailable
from rowcast.http.idempotency import PURGE_EVERY_SECONDS, Idempotency
from support import access, apps, v2
from support.protected import ROW, predict, wait_for_entries
from support.waiting import eventually

# The shared client runs on the module's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")

ANYONE = Caller()
CALLERS = (("1", ""), ("2", ""), ("1", "acme"), ("2", "acme"), ("1", "bolt"), ("1a", "cme"), ("", "acme"))
"""The key ids and tenants of different callers."""


class Handler:
    """A handler that returns the number of calls so far."""

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
    """Return a function that sends a request; the function's arguments replace parts of the request."""

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
async def test_a_different_request_with_the_same_key_is_rejected(part: dict[str, bytes]) -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), Handler())
    await ask()

    with pytest.raises(RepeatConflict) as refused:
        await ask(**part)

    assert refused.value.slug == "repeat-differs"


async def test_different_callers_can_use_the_same_key() -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), Handler())

    replies = [await ask(caller=Caller(key_id, tenant)) for key_id, tenant in CALLERS]

    assert replies == [(b"reply %d" % number, False) for number in range(1, len(CALLERS) + 1)]


async def test_the_total_size_of_the_stored_replies_is_limited() -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60, max_bytes=20), Handler())
    for key in (b"a", b"b", b"c"):
        await ask(key)

    assert await ask(b"c") == (b"reply 3", True)
    assert await ask(b"a") == (b"reply 4", False)


async def test_a_tenant_with_many_keys_does_not_displace_the_replies_of_other_tenants() -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60, max_bytes=28), Handler())
    first = Caller("k1", "small")
    await ask(b"a", first)

    for number in range(6):
        await ask(b"b%d" % number, Caller(f"large{number}", "large"))

    assert await ask(b"a", first) == (b"reply 1", True)
    assert await ask(b"b5", Caller("large5", "large")) == (b"reply 7", True)
    assert await ask(b"b0", Caller("large0", "large")) == (b"reply 8", False)


async def test_only_one_of_two_simultaneous_requests_with_the_same_key_is_executed() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)
    handler.gate.clear()
    first, second = asyncio.ensure_future(ask()), asyncio.ensure_future(ask())

    await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    handler.gate.set()
    results = await asyncio.gather(first, second, return_exceptions=True)

    assert [type(result) for result in results] == [tuple, RepeatConflict]
    assert handler.calls == 1


async def test_a_failed_request_can_be_repeated() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)
    handler.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        await ask()

    handler.error = None

    assert await ask() == (b"reply 2", False)


async def test_a_canceled_request_can_be_repeated() -> None:
    handler = Handler()
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), handler)
    handler.gate.clear()
    first = asyncio.ensure_future(ask())
    await handler.begun.wait()

    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    handler.gate.set()

    assert await ask() == (b"reply 2", False)


class GatedStore(MemoryIdempotencyStore):
    """A store whose method `claim` waits for a gate, either before or after it claims the key."""

    def __init__(self, *, claims_first: bool = False) -> None:
        super().__init__()
        self.claims_first = claims_first
        self.is_entered = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        reply = super().claim(key, fingerprint, now) if self.claims_first else None
        self.is_entered.set()
        assert self.gate.wait(10)
        return reply if self.claims_first else super().claim(key, fingerprint, now)


@pytest.mark.parametrize("claims_first", [False, True])
async def test_a_request_canceled_while_its_key_is_claimed_can_be_repeated(claims_first: bool) -> None:
    store, handler = GatedStore(claims_first=claims_first), Handler()
    ask = asking(Idempotency(store, 60), handler)
    store.gate.clear()
    canceled = asyncio.ensure_future(ask())
    await asyncio.to_thread(store.is_entered.wait, 10)

    canceled.cancel()
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(canceled, return_exceptions=True)

    assert canceled.cancelled()
    assert await ask() == (b"reply 1", False)


async def test_canceling_a_request_for_a_stored_reply_keeps_the_reply() -> None:
    store, handler = GatedStore(), Handler()
    ask = asking(Idempotency(store, 60), handler)
    await ask()
    store.is_entered.clear()
    store.gate.clear()
    canceled = asyncio.ensure_future(ask())
    await asyncio.to_thread(store.is_entered.wait, 10)

    canceled.cancel()
    await asyncio.sleep(0)
    store.gate.set()
    await asyncio.gather(canceled, return_exceptions=True)

    assert await ask() == (b"reply 1", True)


@pytest.mark.parametrize("error", [None, ZeroDivisionError()], ids=["saved", "released"])
async def test_a_claim_is_settled_even_if_the_request_is_canceled_meanwhile(error: Exception | None) -> None:
    store, handler = GatedStore(), Handler()
    ask = asking(Idempotency(store, 60), handler)
    handler.gate.clear()
    handler.error = error
    canceled = asyncio.ensure_future(ask())
    await handler.begun.wait()
    store.is_entered.clear()
    store.gate.clear()
    busy = asyncio.ensure_future(ask(b"other"))  # occupies the store's thread
    await asyncio.to_thread(store.is_entered.wait, 10)

    handler.gate.set()
    for _ in range(5):  # the request now waits for the store's thread
        await asyncio.sleep(0)
    canceled.cancel()
    await asyncio.gather(canceled, return_exceptions=True)
    store.gate.set()
    await asyncio.gather(busy, return_exceptions=True)
    handler.error = None

    assert await ask() == ((b"reply 1", True) if error is None else (b"reply 3", False))


async def test_the_claim_of_a_request_in_progress_is_renewed_until_the_request_ends() -> None:
    renewed: list[tuple[str, ...]] = []

    class NotingStore(MemoryIdempotencyStore):
        def renew(self, keys: Collection[str], now: float) -> None:
            renewed.append(tuple(keys))
            super().renew(keys, now)

    handler = Handler()
    idempotency = Idempotency(NotingStore(lease_seconds=0.02), 60)
    ask = asking(idempotency, handler)
    handler.gate.clear()
    first = asyncio.ensure_future(ask())
    await asyncio.to_thread(eventually, lambda: len(renewed) >= 3)
    handler.gate.set()
    await first

    assert {len(keys) for keys in renewed} == {1}
    assert not idempotency._claims


async def test_a_reply_is_sent_even_if_it_cannot_be_stored() -> None:
    class FullStore(MemoryIdempotencyStore):
        def save_reply(self, key: str, reply: bytes, now: float) -> None:
            raise Unavailable("the disk is full")

    ask = asking(Idempotency(FullStore(), 60), Handler())

    with capture_logs() as logs:
        reply = await ask()

    assert reply == (b"reply 1", False)
    assert [(line["log_level"], line["reason"]) for line in logs] == [("warning", "the disk is full")]


@pytest.mark.parametrize("key", [b"", b"a b", b"a\xff", b"k" * 256])
async def test_an_invalid_key_is_rejected(key: bytes) -> None:
    handler = Handler()

    with pytest.raises(RequestError) as refused:
        await asking(Idempotency(MemoryIdempotencyStore(), 60), handler)(key)

    assert refused.value.slug == "bad-option"
    assert handler.calls == 0


async def test_stored_replies_expire() -> None:
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


async def test_a_repeated_request_gets_the_same_reply_and_adds_no_entry(protected_client: httpx.AsyncClient) -> None:
    headers = {**access.headers("d"), "idempotency-key": "order-7"}
    body = json.dumps({"rows": [ROW, ROW]})
    first, again = [await protected_client.post("/predict", content=body, headers=headers) for _ in range(2)]
    different = await protected_client.post("/predict", json=ROW, headers=headers)
    elsewhere = await protected_client.post("/models/sum/predict", content=body, headers=headers)

    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert [reply.headers["idempotency-replayed"] for reply in (first, again)] == ["false", "true"]
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert (different.status_code, different.json()["type"]) == (422, "urn:rowcast:error:repeat-differs")
    assert elsewhere.status_code == 422
    await wait_for_entries(protected_client, "d", 2)


async def test_the_query_is_part_of_a_request(protected_client: httpx.AsyncClient) -> None:
    headers = {**access.headers("c"), "idempotency-key": "entity-1"}
    first, other, again = [
        await protected_client.post(f"/predict?entity={entity}", json=ROW, headers=headers)
        for entity in ("a", "b", "a")
    ]

    assert (first.status_code, other.status_code) == (200, 422)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")


async def test_a_request_that_is_not_a_prediction_is_executed_again(protected_client: httpx.AsyncClient) -> None:
    headers = {**access.headers("boss"), "idempotency-key": "index-1"}

    replies = [await protected_client.post("/v2/repository/index", json={}, headers=headers) for _ in range(2)]

    assert [reply.status_code for reply in replies] == [200, 200]
    assert all("idempotency-replayed" not in reply.headers for reply in replies)


async def test_only_one_of_several_concurrent_requests_with_the_same_key_is_executed(
    protected_client: httpx.AsyncClient,
) -> None:
    replies = await asyncio.gather(*(predict(protected_client, "p", **{"idempotency-key": "k"}) for _ in range(10)))

    assert {reply.status_code for reply in replies} <= {200, 409}
    assert len({reply.content for reply in replies if reply.status_code == 200}) == 1
    assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 409)


async def test_a_rejected_request_does_not_use_up_its_key(protected_client: httpx.AsyncClient) -> None:
    refused = await predict(protected_client, "p", {"x0": "no"}, **{"idempotency-key": "k"})
    corrected = await predict(protected_client, "p", **{"idempotency-key": "k"})

    assert (refused.status_code, corrected.status_code) == (422, 200)


async def test_two_callers_with_the_same_key_get_separate_replies(protected_client: httpx.AsyncClient) -> None:
    first, again, other = [
        await predict(protected_client, name, **{"idempotency-key": "order-1"}) for name in ("c", "c", "p")
    ]

    assert first.content == again.content
    assert other.json()["id"] != first.json()["id"]
    assert other.headers["idempotency-replayed"] == "false"


async def test_two_keys_of_one_tenant_get_separate_replies(protected_home: Path) -> None:
    for name in ("first", "second"):
        access.add(protected_home, name, "predict", tenant="acme")
    async with apps.serving(home=protected_home, default_model="sum") as client:
        first, second = [await predict(client, name, **{"idempotency-key": "k"}) for name in ("first", "second")]

    assert first.json()["id"] != second.json()["id"]
    assert second.headers["idempotency-replayed"] == "false"


async def test_the_same_bytes_with_another_header_length_are_a_different_request(
    protected_client: httpx.AsyncClient,
) -> None:
    body = v2.as_json({"x0": [1.5], "x1": [2.0]})

    async def infer(length: int) -> httpx.Response:
        headers = {**access.headers("p"), "idempotency-key": "lengths", "inference-header-content-length": str(length)}
        headers |= {"content-type": "application/json", "accept": "application/problem+json"}
        return await protected_client.post("/v2/models/sum/infer", content=body + b" ", headers=headers)

    whole, again, shorter = await infer(len(body) + 1), await infer(len(body) + 1), await infer(len(body))

    assert (whole.status_code, again.headers["idempotency-replayed"]) == (200, "true")
    assert shorter.json()["type"] == "urn:rowcast:error:repeat-differs"


async def test_a_key_can_have_255_visible_characters() -> None:
    ask = asking(Idempotency(MemoryIdempotencyStore(), 60), Handler())

    assert await ask(b"!" * 254 + b"~") == (b"reply 1", False)


class CountingStore(MemoryIdempotencyStore):
    """Records the calls that remove replies."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, float]] = []

    def purge(self, before: float) -> None:
        self.calls.append(("purge", before))
        super().purge(before)

    def trim(self, max_bytes: int) -> None:
        self.calls.append(("trim", max_bytes))
        super().trim(max_bytes)


async def test_expired_replies_are_removed_once_a_minute_and_when_the_clock_is_set_back() -> None:
    now, store = [1000.0], CountingStore()
    ask = asking(Idempotency(store, 600, lambda: now[0]), Handler())

    for number, clock in enumerate((1000.0, 1059.9, 1060.0, 1119.9, 1119.0, 500.0, 500.0)):
        now[0] = clock
        await ask(b"%d" % number)

    assert store.calls == [("purge", 460.0), ("purge", -100.0)]


async def test_the_store_is_trimmed_whenever_a_sixteenth_of_the_limit_has_been_saved() -> None:
    store = CountingStore()
    ask = asking(Idempotency(store, 60, max_bytes=16 * 14), Handler())  # a reply has 7 bytes

    for number in range(7):
        await ask(b"%d" % number)

    assert store.calls == [("trim", 16 * 14)] * 2


async def test_by_default_256_mib_of_replies_are_kept() -> None:
    store, big = CountingStore(), bytes(16 * 1024 * 1024)

    async def first() -> bytes:
        return big

    idempotency = Idempotency(store, 60)
    for number in range(2):
        await idempotency.answer(b"%d" % number, ANYONE, "/predict", b"", b"", first)

    assert store.calls == [("trim", 256 * 1024 * 1024)]
