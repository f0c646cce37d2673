"""A server without the Redis server that its settings name."""

from __future__ import annotations

from pathlib import Path

from rowcast import settings
from rowcast.adapters.memory.cache import MemoryCache
from rowcast.app import sharing
from support import access, apps
from support.protected import ROW, create_home

AWAY = "redis://:letmein@127.0.0.1:1/0"


async def test_a_server_starts_and_answers_without_redis_and_reports_it(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    async with apps.serving(home=home, default_model="sum", cache=AWAY, quotas=AWAY) as client:
        replies = [await client.post("/predict", json=ROW, headers=access.headers("few")) for _ in range(11)]
        health = await client.get("/health", headers=access.headers("boss"))
        metrics = (await client.get("/metrics", headers=access.headers("boss"))).text

    assert [reply.status_code for reply in replies] == [200] * 10 + [429]
    assert [reply.headers.get("x-cache") for reply in replies[:2]] == ["miss", "miss"]
    assert (health.status_code, health.json()["status"], health.json()["ready"]) == (200, "degraded", True)
    checks = health.json()["checks"]
    assert "every score is computed" in checks["cache"]
    assert "enforces its share" in checks["quotas"]
    assert "letmein" not in health.text
    assert 'rowcast_redis_away{use="cache"} 1.0' in metrics
    assert 'rowcast_redis_away{use="quotas"} 1.0' in metrics


def test_redis_is_used_only_if_a_setting_names_it() -> None:
    off = sharing.shared_parts(settings.load(), lambda event: None)
    memory = sharing.shared_parts(settings.load(cache="memory"), lambda event: None)

    assert off == (None, None, (), {})
    assert isinstance(memory.cache, MemoryCache)
    assert memory[1:] == (None, (), {})
