"""Listing, loading and unloading models in the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import access, apps, models

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_an_unloaded_model_is_not_served_until_it_is_loaded_again(home: Path) -> None:
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    async with apps.serving(home=home, default_model="loans") as client:
        unloaded = await client.post("/v2/repository/models/sum/unload")
        v1 = await client.post("/v1/models/sum:predict", json={"instances": [[1, 2]]})
        native = await client.post("/models/sum/predict", json={"x0": 1, "x1": 2})
        index = (await client.post("/v2/repository/index", json={"ready": True})).json()
        reloaded = await client.post("/models/reload")
        not_ready = await client.get("/v2/models/sum/ready")
        await client.post("/v2/repository/models/sum/load")
        ready = await client.get("/v2/models/sum/ready")

    assert unloaded.status_code == 200, unloaded.text
    assert (v1.status_code, native.status_code, not_ready.status_code) == (404, 404, 404)
    assert [entry["name"] for entry in index] == ["loans"]
    assert reloaded.json()["status"] == "ok"
    assert ready.json() == {"name": "sum", "ready": True}


async def test_a_key_limited_to_some_models_can_list_and_change_only_those_models(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("mine", "theirs"):
        columns = models.number_columns(2)
        models.publish(FolderRegistry(home / "models"), name, models.sum_graph(2), columns, models.REGRESSION, "values")
    access.add(home, "limited", "admin", models=("mine",))
    key = access.headers("limited")
    async with apps.serving(home=home) as client:
        refused = [
            await client.post(f"/v2/repository/models/theirs/{action}", headers=key) for action in ("unload", "load")
        ]
        index = (await client.post("/v2/repository/index", headers=key)).json()
        own = await client.post("/v2/repository/models/mine/unload", headers=key)

    assert [reply.status_code for reply in refused] == [403, 403]
    assert [(entry["name"], entry["state"]) for entry in index] == [("mine", "READY")]
    assert own.status_code == 200
