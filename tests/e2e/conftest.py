"""A real server for the tests that only send requests; all other tests start their own servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.schema.schema import Column, Schema
from support import models, servers

PEOPLE = Schema(
    (
        Column(name="age", kind="integer", example=30, sensitive=True),
        Column(name="born", kind="datetime", example="2000-01-31", sensitive=True),
        Column(name="weight", kind="number", example=70.5),
    )
)
MAX_ROWS = 40


@pytest.fixture(scope="session")
def serving_home(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Path:
    """A home with the loan example and a model with sensitive columns."""
    home = models.with_models(tmp_path_factory.mktemp("serving") / "home", loan_registry)
    registry = FolderRegistry(home / "models")
    models.publish(registry, "people", models.sum_graph(6), PEOPLE, models.REGRESSION, "values")
    return home


@pytest.fixture(scope="session")
def server(serving_home: Path) -> Iterator[servers.Server]:
    """A running server with the loan example as its default model."""
    settings = {"ROWCAST_MAX_ROWS": str(MAX_ROWS)}
    with servers.running(serving_home, "--default-model", "loans", settings=settings) as running:
        yield running


@pytest.fixture(scope="session")
def client(server: servers.Server) -> Iterator[httpx.Client]:
    """A client for the shared server."""
    with server.client() as client:
        yield client
