"""A home with two models and API keys for several tenants, and requests with these keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from rowcast.adapters.files.registry import FolderRegistry
from support import access, models
from support.waiting import eventually_async

ROW = {"x0": 1.5, "x1": 2.0}


def create_home(folder: Path) -> Path:
    """Create a home with the models `sum` and `other`.

    Only one test in a module may count the entries of a given tenant.
    """
    registry, columns = FolderRegistry(folder / "models"), models.number_columns(2)
    models.publish(registry, "sum", models.sum_graph(2), columns, models.REGRESSION, "values")
    models.publish(registry, "other", models.linear_graph(2, 1), columns, models.REGRESSION, "values")
    for name, tenant in (("a", "acme"), ("b", "bolt"), ("c", "cook"), ("d", "dock"), ("e", "east")):
        access.add(folder, name, "predict", "read", tenant=tenant)
    access.add(folder, "p", "predict")
    access.add(folder, "only", "predict", models=("other",))
    access.add(folder, "narrow", "predict", "read", models=("other", "none"))
    access.add(folder, "boss", "predict", "read", "admin")
    access.add(folder, "few", "predict", quota="10/60s")
    access.add(folder, "less", "predict", quota="10/60s")
    return folder


async def predict(client: httpx.AsyncClient, name: str, body: Any = ROW, **headers: str) -> httpx.Response:
    """Send a prediction request with this key."""
    return await client.post("/predict", json=body, headers={**access.headers(name), **headers})


async def read(client: httpx.AsyncClient, name: str, path: str) -> httpx.Response:
    """Send a GET request with this key."""
    return await client.get(path, headers=access.headers(name))


async def wait_for_entries(client: httpx.AsyncClient, name: str, count: int) -> None:
    """Wait until exactly `count` predictions are visible with this key."""

    async def are_stored() -> bool:
        return len((await read(client, name, "/predictions")).json()["predictions"]) == count

    await eventually_async(are_stored)
