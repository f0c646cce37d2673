"""Engines are opened by name; the error for an unusable engine says what to do."""

from __future__ import annotations

import sys

import pytest

from rowcast.app.engines import open_engine, open_job_engine, ray_problem
from rowcast.engines import ThreadEngine
from rowcast.errors import EngineUnavailable, SettingsError, Unavailable
from rowcast.settings import Settings


def test_the_local_engine_runs_tasks_in_threads_of_this_process() -> None:
    with open_engine(Settings(), "local", 3) as engine:
        assert (type(engine), engine.slots) == (ThreadEngine, 3)


@pytest.mark.parametrize("engine", ["", "Ray", "spark", "raylet", "http://host:80"])
def test_an_unknown_engine_is_an_error(engine: str) -> None:
    with pytest.raises(SettingsError) as refused, open_engine(Settings(), engine):
        pass

    assert refused.value.slug == "unknown-engine"


@pytest.mark.parametrize("engine", ["ray", "ray://host:10001"])
def test_the_error_names_the_extra_if_the_ray_package_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(SettingsError) as refused, open_engine(Settings(), engine):
        pass

    assert (refused.value.slug, "rowcast[ray]" in refused.value.message) == ("missing-package", True)


@pytest.mark.parametrize("address", ["host", "ray://host", "host:port", "http://host:80", "user@host:80"])
def test_a_malformed_cluster_address_is_rejected(address: str) -> None:
    with pytest.raises(SettingsError) as refused, open_engine(Settings(ray_address=address), "ray"):
        pass

    assert refused.value.slug == "ray-address"


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "ray://127.0.0.1:99999"])
def test_a_cluster_that_does_not_respond_causes_an_immediate_error(address: str) -> None:
    with pytest.raises(Unavailable) as refused, open_engine(Settings(ray_address=address), "ray"):
        pass

    assert refused.value.slug == "engine-unavailable"


@pytest.mark.parametrize(("address", "part"), [(None, "`ray_address`"), ("host", "HOST:PORT"), ("host:80", "")])
def test_jobs_can_use_ray_only_if_the_server_has_the_address_of_a_cluster(address: str | None, part: str) -> None:
    problem = ray_problem(Settings(ray_address=address))

    assert (part in problem, bool(problem)) == (True, bool(part))


def test_jobs_cannot_use_ray_if_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    assert "rowcast[ray]" in ray_problem(Settings(ray_address="host:80"))


@pytest.mark.parametrize("address", [None, "127.0.0.1:1"])
def test_opening_an_unavailable_cluster_for_a_job_raises_a_retryable_error(address: str | None) -> None:
    with pytest.raises(EngineUnavailable), open_job_engine(Settings(ray_address=address), "ray"):
        pass
