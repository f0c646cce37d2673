"""Fixtures: servers that require API keys."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio


@pytest.fixture
def protected_home(tmp_path: Path) -> Path:
    """A home with two models and API keys."""
    from support import protected

    return protected.create_home(tmp_path / "home")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of a server that all tests in a module share."""
    from support import protected

    return protected.create_home(tmp_path_factory.mktemp("protected") / "home")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def protected_client(shared_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client for a server that requires API keys and has the default model `sum`."""
    from support import apps

    async with apps.serving(home=shared_home, default_model="sum") as client:
        yield client
