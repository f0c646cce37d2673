"""One app for all tests that only ask; its models are the loan example and a sum."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from rowcast.adapters.folder import FolderRegistry
from support import apps, models

SUM = models.number_columns(2)


@pytest.fixture(scope="session")
def app_home(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Path:
    """A home with both models."""
    home = models.with_models(tmp_path_factory.mktemp("app") / "home", loan_registry)
    models.publish(FolderRegistry(home / "models"), "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    return home


@pytest_asyncio.fixture(scope="session")
async def client(app_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running app whose default model is the loan example."""
    async with apps.serving(home=app_home, default_model="loans") as asking:
        yield asking
