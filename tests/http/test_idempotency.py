"""Requests with an Idempotency-Key, through the whole app."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from support import access
from support.protected import ROW, predict, wait_for_entries

# The shared client runs on the module's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_repeated_request_gets_the_same_bytes_and_no_second_entry(protected_client: httpx.AsyncClient) -> None:
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


async def test_only_one_of_several_concurrent_requests_with_the_same_key_is_executed(
    protected_client: httpx.AsyncClient,
) -> None:
    replies = await asyncio.gather(*(predict(protected_client, "p", **{"idempotency-key": "k"}) for _ in range(10)))

    assert {reply.status_code for reply in replies} <= {200, 409}
    assert len({reply.content for reply in replies if reply.status_code == 200}) == 1
    assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 409)


async def test_a_refused_request_does_not_use_up_its_key(protected_client: httpx.AsyncClient) -> None:
    refused = await predict(protected_client, "p", {"x0": "no"}, **{"idempotency-key": "k"})
    corrected = await predict(protected_client, "p", **{"idempotency-key": "k"})

    assert (refused.status_code, corrected.status_code) == (422, 200)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_an_invalid_key_is_refused(protected_client: httpx.AsyncClient, key: str) -> None:
    headers = {**access.headers("p"), "idempotency-key": key.encode("latin-1")}
    reply = await protected_client.post("/predict", json=ROW, headers=headers)  # type: ignore[arg-type]

    assert (reply.status_code, reply.json()["type"]) == (400, "urn:rowcast:error:bad-option")


async def test_callers_do_not_share_keys(protected_client: httpx.AsyncClient) -> None:
    first, again, other = [
        await predict(protected_client, name, **{"idempotency-key": "order-1"}) for name in ("c", "c", "p")
    ]

    assert first.content == again.content
    assert other.json()["id"] != first.json()["id"]
    assert other.headers["idempotency-replayed"] == "false"
