"""A server whose Redis server is unavailable."""

from __future__ import annotations

from pathlib import Path

import pytest

from rowcast import settings
from rowcast.adapters.memory.cache import MemoryCache
from rowcast.app import sharing
from support import access, apps
from support.protected import ROW, create_home

AWAY = "redis://:letmein@127.0.0.1:1/0"


async def test_a_server_without_redis_starts_and_answers_requests_and_reports_the_outage(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    async with apps.serving(home=home, default_model="sum", cache=AWAY, quotas=AWAY) as client:
        replies = [await client.post("/predict", json=ROW, headers=access.headers("few")) for _ in range(11)]
        health = await client.get("/health", headers=access.headers("boss"))
        metrics = (await client.get("/metrics", headers=access.headers("boss"))).text

    assert [reply.status_code for reply in replies] == [200] * 10 + [429]
    assert [reply.headers.get("x-cache") for reply in replies[:2]] == ["miss", "miss"]
    assert (health.status_code, health.json()["status"], health.json()["ready"]) == (200, "degraded", True)
    checks = health.json()["checks"]
    assert "scores are not cached" in checks["cache"]
    assert "enforces an equal share" in checks["quotas"]
    assert "letmein" not in health.text
    assert 'rowcast_redis_away{use="cache"} 1.0' in metrics
    assert 'rowcast_redis_away{use="quotas"} 1.0' in metrics


def test_redis_is_used_only_if_a_setting_names_it() -> None:
    off = sharing.shared_parts(settings.load(), lambda event: None)
    memory = sharing.shared_parts(settings.load(cache="memory"), lambda event: None)

    assert (off.cache, off.quotas, off.connections, off.checks) == (None, None, (), {})
    assert isinstance(memory.cache, MemoryCache)
    assert (memory.quotas, memory.connections, memory.checks) == (None, (), {})


@pytest.mark.parametrize(
    ("cache", "quotas", "is_shared"),
    [
        ("redis://h/0", "redis://h:6379/1", True),
        ("redis://h:1", "redis://h:2", False),
        ("redis://h", "redis://g", False),
        ("unix:///a?db=1", "unix:///a", True),
        ("unix:///a", "unix:///b", False),
    ],
)
def test_connections_share_their_outages_only_if_they_use_the_same_server(
    cache: str, quotas: str, is_shared: bool
) -> None:
    parts = sharing.shared_parts(settings.load(cache=cache, quotas=quotas), lambda event: None)

    assert [link._twin is not None for link in parts.connections] == [is_shared] * 2  # type: ignore[attr-defined]
