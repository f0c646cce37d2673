"""The native dialect in the complete app."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from rowcast import settings
from rowcast.app import server as app_server
from support import access, apps
from support.protected import ROW, create_home, predict, wait_for_entries

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_cache_hit_creates_a_new_entry_with_the_same_prediction(tmp_path: Path) -> None:
    async with apps.serving(home=create_home(tmp_path / "home"), default_model="sum", cache=True) as client:
        first, second = await predict(client, "boss"), await predict(client, "boss", {"x1": 2.0, "x0": 1.5})
        other = await client.post("/models/other/predict", json=ROW, headers=access.headers("boss"))
        batch = await predict(client, "boss", {"rows": [ROW, ROW]})
        mixed = await predict(client, "boss", {"rows": [ROW, {"x0": 9, "x1": 9}]})
        bypassed = await client.post("/predict?cache=false", json=ROW, headers=access.headers("boss"))
        invalid = await predict(client, "boss", {"x0": "no"})
        await wait_for_entries(client, "boss", 8)

    assert [reply.headers.get("x-cache") for reply in (first, second, other, batch, mixed, bypassed, invalid)] == [
        "miss",
        "hit",
        "miss",
        "hit",
        "miss",
        None,
        None,
    ]
    assert [reply.json()["cached"] for reply in (first, second, bypassed)] == [False, True, False]
    assert [row["cached"] for row in mixed.json()["predictions"]] == [True, False]
    assert [row["prediction"] for row in mixed.json()["predictions"]] == [3.5, 18.0]
    assert first.json()["id"] != second.json()["id"]
    assert first.json()["prediction"] == second.json()["prediction"] == 3.5


async def test_replies_have_no_cache_header_if_the_cache_is_disabled(client: httpx.AsyncClient) -> None:
    assert "x-cache" not in (await client.post("/models/sum/predict", json=ROW)).headers


async def test_each_row_in_a_batch_is_recorded_as_a_separate_entry(client: httpx.AsyncClient) -> None:
    rows = [{"x0": number, "x1": 1} for number in range(5)]

    batch = (await client.post("/models/sum/predict", json={"rows": rows})).json()
    entries = [(await client.get(f"/predictions/{reply['id']}")).json() for reply in batch["predictions"]]

    assert [entry["row"] for entry in entries] == rows
    assert [entry["prediction"]["prediction"] for entry in entries] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (batch["model"], batch["version"]) == ("sum", 1)


async def test_concurrent_callers_get_their_own_predictions(client: httpx.AsyncClient) -> None:
    rows = [{"x0": number, "x1": number / 2} for number in range(100)]

    replies = await asyncio.gather(*[client.post("/models/sum/predict", json=row) for row in rows])

    assert [reply.json()["prediction"] for reply in replies] == [row["x0"] + row["x1"] for row in rows]
    assert len({reply.json()["id"] for reply in replies}) == 100
    assert len({reply.headers["x-request-id"] for reply in replies}) == 100


async def test_a_request_must_name_a_model_if_there_is_no_default_model(app_home: Path, tmp_path: Path) -> None:
    app = app_server.build_server(settings.load(home=tmp_path, registry=app_home / "models")).app
    async with apps.client(app) as client:
        unnamed = await client.post("/predict", json=ROW)
        named = await client.post("/models/sum/predict", json=ROW)
        document = (await client.get("/openapi.json")).json()

    assert (unnamed.status_code, unnamed.json()["type"]) == (404, "urn:rowcast:error:model-not-found")
    assert "loans, sum" in unnamed.json()["detail"]
    assert named.status_code == 200
    assert "/predict" not in document["paths"]
