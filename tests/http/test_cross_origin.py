"""Requests from web pages on other origins."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from support import apps
from support.protected import ROW

# The shared client runs on the module's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_client(shared_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client for a server that has no keys and allows one origin."""
    (shared_home / "keys.json").unlink()
    async with apps.serving(home=shared_home, default_model="sum", cors_origins="https://app.example") as client:
        yield client


async def test_pages_on_an_allowed_origin_can_send_requests_and_read_responses(open_client: httpx.AsyncClient) -> None:
    origin = {"origin": "https://app.example"}
    preflight = await open_client.options("/predict", headers={**origin, "access-control-request-method": "POST"})
    response = await open_client.post("/predict", json=ROW, headers=origin)

    assert preflight.status_code == 204
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert "x-api-key" in preflight.headers["access-control-allow-headers"]
    assert response.status_code == 200
    for reply in (preflight, response):
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert "Origin" in reply.headers["vary"]


@pytest.mark.parametrize("path", ["/predict", "/models/reload"])
async def test_requests_from_unlisted_origins_cannot_change_anything(open_client: httpx.AsyncClient, path: str) -> None:
    unlisted = {"origin": "https://evil.example"}
    preflight = await open_client.options(path, headers={**unlisted, "access-control-request-method": "POST"})
    posted = await open_client.post(path, json=ROW, headers=unlisted)
    listed = await open_client.get("/models", headers=unlisted)

    assert (preflight.status_code, posted.status_code) == (403, 403)
    assert posted.json()["type"] == "urn:rowcast:error:cross-origin"
    assert "access-control-allow-origin" not in listed.headers


@pytest.mark.parametrize(
    "own", [{"origin": "http://localhost"}, {"origin": "https://proxy.example", "sec-fetch-site": "same-origin"}]
)
async def test_same_origin_pages_can_send_requests(open_client: httpx.AsyncClient, own: dict[str, str]) -> None:
    assert (await open_client.post("/predict", json=ROW, headers=own)).status_code == 200


@pytest.mark.parametrize("site", ["same-site", "cross-site", "", "Same-Origin"])
async def test_pages_on_sibling_origins_cannot_change_anything(open_client: httpx.AsyncClient, site: str) -> None:
    # The header takes precedence even though the hosts match.
    headers = {"origin": "http://localhost", "sec-fetch-site": site}

    reply = await open_client.post("/predict", json=ROW, headers=headers)

    assert (reply.status_code, reply.json()["type"]) == (403, "urn:rowcast:error:cross-origin")
