"""Two servers share a cache and quotas in Redis, and answer every request while Redis is failing."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import access, models, servers
from support.redis import RedisServer, serving
from support.servers import Server
from support.waiting import eventually

PASSWORD = "letmein-of-redis"
CLIENTS = 4


def create_home(folder: Path) -> Path:
    """Create a home with a model and keys. All homes that this function creates have the same keys."""
    registry = FolderRegistry(folder / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    access.add(folder, "boss", "predict", "read", "admin")
    for tenant in ("acme", "bolt"):
        access.add(folder, tenant, "predict", tenant=tenant)
    access.add(folder, "few", "predict", quota="20/1h")
    return folder


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with serving(tmp_path_factory.mktemp("redis"), "--requirepass", PASSWORD) as server:
        yield server


@pytest.fixture(scope="module")
def pair(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    url = redis.url.replace("//", f"//:{PASSWORD}@")
    settings = {"ROWCAST_CACHE": url, "ROWCAST_QUOTAS": url, "ROWCAST_REDIS_TIMEOUT_MS": "2000"}
    homes = [create_home(tmp_path_factory.mktemp("home")) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        one, two = [stack.enter_context(servers.running(home, settings=settings)) for home in homes]
        yield one, two


def predict(server: Server, name: str, number: float) -> httpx.Response:
    with server.client(headers=access.headers(name)) as client:
        return client.post("/predict", json={"x0": number, "x1": 1})


def health(server: Server) -> httpx.Response:
    with server.client(headers=access.headers("boss")) as client:
        return client.get("/health")


def metric(server: Server, line: str) -> float:
    """Return the value of a metric with these labels."""
    with server.client(headers=access.headers("boss")) as client:
        lines = client.get("/metrics").text.splitlines()
    return sum(float(each.rpartition(" ")[2]) for each in lines if each.startswith(line))


def until_ok(server: Server) -> None:
    eventually(lambda: health(server).json()["status"] == "ok", 30)


def test_servers_share_cached_scores_but_tenants_do_not(pair: tuple[Server, Server]) -> None:
    one, two = pair
    until_ok(one), until_ok(two)

    first = predict(one, "acme", 1)
    eventually(lambda: predict(two, "acme", 1).headers["x-cache"] == "hit")
    second, other = predict(two, "acme", 1), predict(two, "bolt", 1)

    assert (first.headers["x-cache"], second.headers["x-cache"], other.headers["x-cache"]) == ("miss", "hit", "miss")
    assert (second.json()["prediction"], second.json()["cached"]) == (first.json()["prediction"], True)
    assert metric(two, "rowcast_cache_hits_total") > 0


def test_servers_share_a_quota_exactly(pair: tuple[Server, Server]) -> None:
    with ThreadPoolExecutor(CLIENTS) as threads:
        replies = list(threads.map(lambda turn: predict(turn[0], "few", turn[1]), zip(pair * 14, itertools.count())))

    assert sorted(reply.status_code for reply in replies) == [200] * 20 + [429] * 8
    assert all(reply.headers["ratelimit-policy"] == '"default";q=20;w=3600' for reply in replies)
    assert {reply.headers["ratelimit"].split(";")[1] for reply in replies if reply.status_code == 429} == {"r=0"}


@pytest.mark.parametrize("way", ["stop", "kill", "pause"])
def test_no_request_fails_while_redis_is_unavailable(pair: tuple[Server, Server], redis: RedisServer, way: str) -> None:
    one, two = pair
    until_ok(one)
    errors = metric(one, 'rowcast_redis_errors_total{kind="')
    done, numbers = Event(), itertools.count(100)

    def keep_asking(server: Server) -> list[int]:
        statuses = []
        with server.client(headers=access.headers("boss")) as client:
            while not done.is_set():
                statuses.append(client.post("/predict", json={"x0": next(numbers) % 7, "x1": 1}).status_code)
        return statuses

    with ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(keep_asking, server) for server in (one, two) * 2]
        try:
            getattr(redis, way)()
            eventually(lambda: health(one).json()["checks"]["cache"] != "ok", 30)
            away = health(one)
            unavailable = metric(one, 'rowcast_redis_away{use="cache"}')
            (redis.resume if way == "pause" else redis.start)()
            until_ok(one)
        finally:
            done.set()
    statuses = [status for each in asking for status in each.result()]

    assert set(statuses) == {200}
    assert (away.status_code, away.json()["status"], unavailable) == (200, "degraded", 1)
    assert metric(one, 'rowcast_redis_errors_total{kind="') > errors
    assert metric(one, 'rowcast_redis_away{use="cache"}') == 0


def test_the_password_of_redis_appears_in_no_log_and_no_reply(pair: tuple[Server, Server]) -> None:
    texts = [server.log.read_text() for server in pair] + [health(server).text for server in pair]

    assert "Redis cannot be used" in texts[0]
    assert not any(PASSWORD in text for text in texts)


def test_keys_in_redis_contain_neither_api_keys_nor_rows(pair: tuple[Server, Server], redis: RedisServer) -> None:
    predict(pair[0], "few", 123.25), predict(pair[0], "acme", 123.25)
    keys = eventually(lambda: _keys(redis)).split()

    assert {key.split(":")[0] for key in keys} == {"rowcast"}
    assert not any(word in key for key in keys for word in ("few", "acme", "123.25", access.secret("few")))


def _keys(redis: RedisServer) -> Any:
    return redis.command("-a", PASSWORD, "--no-auth-warning", "keys", "*")
