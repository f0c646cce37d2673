"""Hooks and fixtures for all tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import settings

from rowcast.setting_aliases import ALIASES
from support import redis
from support.logs import pytest_sessionfinish, pytest_sessionstart, pytest_terminal_summary, pytest_testnodedown
from support.redis import RedisServer

if TYPE_CHECKING:
    from support.postgresql import Postgres

__all__ = ["pytest_sessionfinish", "pytest_sessionstart", "pytest_terminal_summary", "pytest_testnodedown"]

settings.register_profile("untimed", deadline=None)  # property tests must not fail on a slow machine
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-docs", action="store_true", help="replace outdated output in the documentation")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Keep gzip data out of test ids: its header contains a timestamp, but all processes must collect the same ids."""
    return f"gzip-{argname}" if isinstance(val, bytes) and val.startswith(b"\x1f\x8b") else None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """In CI, report skipped tests as failures."""
    return _refuse_skips((yield))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """In CI, report skipped modules as failures."""
    return _refuse_skips((yield))


def _refuse_skips(report: Any) -> Any:
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _loggers_of_this_process() -> Iterator[None]:
    """Prevent in-process commands from configuring logging: they would log to a stream that pytest closes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rowcast.app.logs.configure_logging", lambda settings: None)
        for name in ALIASES:  # environment variables of this machine must not affect tests
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server. Tests must not stop it."""
    from support import postgresql

    with postgresql.running() as server:
        yield server


@pytest.fixture
def database(postgres: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    yield postgres.url
    postgres.reset()


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit forests to 20 trees, boosting to 40 trees and networks to 10 rounds, so that training runs are short."""
    from rowcast.training.models import network
    from rowcast.training.models.boosting import Boosting
    from rowcast.training.models.forest import Forest

    monkeypatch.setattr(Forest, "TREES", 20)
    monkeypatch.setattr(Boosting, "MOST_ROUNDS", 40)
    monkeypatch.setattr(network, "MOST_ROUNDS", 10)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis server for tests that do not stop it; each test has its own key prefix."""
    with redis.serving(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="session")
def loan_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry folder that contains the trained loan example. Tests must not change the folder."""
    from support import models  # this import takes seconds because it loads the training libraries

    return models.trained_loans(tmp_path_factory.mktemp("loans") / "models").root


@pytest.fixture
def home(tmp_path: Path, loan_registry: Path) -> Path:
    """A new home with the loan example as its only model."""
    from support import models

    return models.with_models(tmp_path / "home", loan_registry)


@pytest.fixture(scope="session")
def app_home(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Path:
    """A home with two models: the loan example and a model that adds two numbers."""
    from rowcast.adapters.files.registry import FolderRegistry
    from support import models

    home = models.with_models(tmp_path_factory.mktemp("app") / "home", loan_registry)
    columns = models.number_columns(2)
    models.publish(FolderRegistry(home / "models"), "sum", models.sum_graph(2), columns, models.REGRESSION, "values")
    return home


@pytest_asyncio.fixture(scope="session")
async def client(app_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client for a running app that serves the loan example as its default model."""
    from support import apps

    async with apps.serving(home=app_home, default_model="loans") as client:
        yield client
