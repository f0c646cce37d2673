"""How a server process is composed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rowcast import settings
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.app import serving
from rowcast.app.server import application, build_server
from rowcast.errors import RowcastError
from rowcast.http.request_log import RequestLog
from rowcast.serving.deployment import Deployment
from rowcast.serving.health import Health
from support import apps, models


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    return home


@pytest.mark.parametrize("options", [{}, {"cache": True}, {"durability": "store"}, {"sensitive": "drop"}])
async def test_a_server_handles_requests_and_removes_its_folder_when_it_stops(
    home: Path, options: dict[str, Any]
) -> None:
    async with apps.serving(home=home, **options) as client:
        assert (await client.get("/health/ready")).status_code == 200
        reply = await client.post("/predict", json={"x0": 1, "x1": 2})

    assert (reply.status_code, reply.json()["prediction"]) == (200, 3)
    assert not any((home / "run").glob("[0-9]*-*"))


def test_the_health_checks_of_a_server_create_no_store(home: Path) -> None:
    loaded, health = settings.load(home=home), Health()
    parts = serving.prediction_parts(loaded, Deployment({}, None), lambda event: None)
    serving.journal_monitor(loaded, parts, health)

    report = health.report()
    parts.journal.close()

    assert report == {"history": "ok", "indexer": "ok", "disk": "ok"}
    assert not (home / "history.db").exists()


async def test_the_quick_path_is_disabled_if_requests_are_logged(home: Path) -> None:
    plain = build_server(settings.load(home=home))
    logged = build_server(settings.load(home=home, access_log=True))

    assert plain.quick_path is not None
    assert plain.quick_path.find("/predict", b"POST", {}) is not None
    assert logged.quick_path is None
    assert isinstance(logged.app, RequestLog)
    for server in (plain, logged):
        async with apps.lifespan(server.app):
            assert server.deployment.default == "sum"


def test_a_server_that_cannot_be_built_leaves_no_files_behind(tmp_path: Path) -> None:
    with pytest.raises(RowcastError):
        build_server(settings.load(home=tmp_path))

    assert not any((tmp_path / "run").glob("[0-9]*-*"))
    assert not any((tmp_path / "journal").glob("*"))


def test_the_public_app_does_not_read_settings_before_startup() -> None:
    def unread() -> Any:
        raise AssertionError

    application(unread)
