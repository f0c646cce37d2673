"""A queue whose workers die, stop or drain, or whose Redis server is unavailable.

Every request gets exactly one reply and one history entry.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from support import models, servers
from support.redis import RedisServer, serving
from support.servers import Server
from support.waiting import eventually

LONG = 90.0
CLIENTS = 4


class World:
    """A Redis server, and a Rowcast server that uses it as its queue. The tests start the workers."""

    def __init__(self, redis: RedisServer, folder: Path, stack: contextlib.ExitStack) -> None:
        self.redis = redis
        self.folder = folder
        self.prefix = uuid.uuid4().hex
        self.settings = {
            "ROWCAST_QUEUE": redis.url,
            "ROWCAST_REDIS_PREFIX": self.prefix,
            "ROWCAST_MAX_WAIT_SECONDS": "60",
        }
        self.stack = stack
        self.home = self.create_home("api")

    def create_home(self, name: str, inputs: int = 2) -> Path:
        """Create a home with a model that predicts the sum of its columns."""
        home = self.folder / name
        registry = FolderRegistry(home / "models")
        schema = models.number_columns(inputs)
        models.publish(registry, "sum", models.sum_graph(inputs), schema, models.REGRESSION, "values")
        return home

    def api(self) -> Server:
        return self.stack.enter_context(servers.running_unready(self.home, settings=self.settings, name="api"))

    def worker(self, name: str, home: Path | None = None) -> Server:
        running = servers.running(home or self.home, settings=self.settings, name=name, command="worker", seconds=60)
        return self.stack.enter_context(running)

    def pending(self) -> int:
        """Return the number of messages that workers have taken and not finished."""
        key = f"{self.prefix}:queue1:messages"
        return int(self.redis.command("xpending", key, "workers").splitlines()[0])

    def command(self, *words: str) -> Any:
        finished = servers.rowcast_process("queue", *words, "--json", cwd=self.folder, settings=self.settings)
        assert finished.returncode == 0, finished.stderr
        return json.loads(finished.stdout)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(serving(tmp_path))
        yield World(redis, tmp_path, stack)


def predict(server: Server, number: float) -> httpx.Response:
    with server.client() as client:
        return client.post("/predict", json={"x0": number, "x1": 1}, timeout=LONG)


def ready(server: Server) -> None:
    with server.client() as client:
        eventually(lambda: client.get("/health/ready").status_code == 200, LONG)


def outcomes(server: Server, outcome: str) -> float:
    """Return how many messages a worker has finished with this outcome."""
    with server.client() as client:
        lines = client.get("/metrics").text.splitlines()
    name = f'rowcast_worker_messages_total{{outcome="{outcome}"}}'
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def recorded(server: Server, count: int) -> list[Any]:
    """Return the recorded predictions as soon as there are at least `count` of them."""

    def entries() -> list[Any] | None:
        with server.client() as client:
            found: list[Any] = client.get("/predictions", params={"limit": 1000}).json()["predictions"]
        return found if len(found) >= count else None

    return eventually(entries, LONG)


@contextlib.contextmanager
def taken_by_stopped_worker(world: World, api: Server, worker: Server) -> Iterator[Future[httpx.Response]]:
    """Suspend a worker's process after it has taken a request and before it can answer."""
    ready(api)
    with ThreadPoolExecutor(1) as threads:
        try:
            while True:
                os.kill(worker.process.pid, signal.SIGSTOP)
                reply = threads.submit(predict, api, 41.0)
                with contextlib.suppress(
                    AssertionError
                ):  # the process was stopped while it was not waiting for a message
                    eventually(lambda: world.pending() == 1, 3)
                    break
                os.kill(worker.process.pid, signal.SIGCONT)
                reply.result(LONG)
            yield reply
        finally:
            if worker.process.poll() is None:
                os.kill(worker.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("way", ["killed", "stopped"])
def test_another_worker_answers_the_requests_of_a_killed_or_stopped_worker(world: World, way: str) -> None:
    first = world.worker("first")
    api = world.api()
    with taken_by_stopped_worker(world, api, first) as reply:
        if way == "killed":
            first.kill()
        second = world.worker("second")
        answered = reply.result(LONG)

        assert (answered.status_code, answered.json()["prediction"]) == (200, 42)
        if way == "stopped":
            os.kill(first.process.pid, signal.SIGCONT)
            ready(first)
    assert outcomes(second, "answered") == 1
    entries = [entry["prediction"] for entry in recorded(api, 1)]
    assert [entry["id"] for entry in entries].count(answered.json()["id"]) == 1
    assert len({entry["id"] for entry in entries}) == len(entries)


def test_a_message_that_cannot_be_read_is_parked_and_can_be_retried_or_dropped(world: World) -> None:
    worker = world.worker("worker")
    with worker.client() as client:
        assert client.get("/health").json()["models"] == ["sum@1"]
    digest = FolderRegistry(world.home / "models").folder(models.Reference("sum", 1)) / "bundle.json"
    fields = ["digest", json.loads(digest.read_text())["digest"], "body", "spoiled", "sender", "nobody", "number", "1"]
    world.redis.command("xadd", f"{world.prefix}:queue1:messages", "*", *fields)

    eventually(lambda: outcomes(worker, "parked") == 1, LONG)
    shown = world.command("show")
    assert (len(shown["workers"]), shown["messages"], shown["parked_count"]) == (1, 0, 1)
    assert "not valid" in shown["parked"][0]["reason"]

    assert world.command("retry", shown["parked"][0]["id"]) == {"retried": 1}
    eventually(lambda: outcomes(worker, "parked") == 2, LONG)
    assert world.command("drop", "--all") == {"dropped": 1}
    assert world.command("show")["parked"] == []


def test_a_worker_that_lacks_the_model_leaves_messages_to_other_workers(world: World) -> None:
    api = world.api()
    stranger = world.worker("stranger", world.create_home("other", inputs=3))
    with ThreadPoolExecutor(1) as threads, api.client() as client:
        key = f"{world.prefix}:queue1:messages"
        assert client.get("/health/ready").status_code == 503
        worker = world.worker("worker")
        ready(api)
        os.kill(worker.process.pid, signal.SIGSTOP)
        try:
            reply = threads.submit(predict, api, 4.0)
            eventually(lambda: outcomes(stranger, "returned") > 0 or world.pending() > 0, LONG)
        finally:
            os.kill(worker.process.pid, signal.SIGCONT)
        answered = reply.result(LONG)

    assert (answered.status_code, answered.json()["prediction"]) == (200, 5)
    assert outcomes(stranger, "answered") == 0
    assert world.redis.command("xlen", key) == "0"


def test_a_worker_loads_another_version_if_a_server_requests_it(world: World) -> None:
    worker = world.worker("worker")
    registry = FolderRegistry(world.home / "models")
    schema = models.number_columns(2)
    with worker.client() as client:
        models.publish(registry, "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
        eventually(lambda: client.get("/health").json()["models"] == ["sum@2"], LONG)
        world.settings["ROWCAST_MODELS"] = "sum@1"
        api = world.api()
        answered = predict(api, 2.0)

    assert (answered.status_code, answered.json()["version"], answered.json()["prediction"]) == (200, 1, 3)


def test_a_version_that_no_worker_can_load_does_not_replace_the_old_version(world: World) -> None:
    world.settings["ROWCAST_TRIAL_SECONDS"] = "5"
    worker = world.worker("worker")
    api = world.api()
    ready(api)
    registry = FolderRegistry(world.home / "models")
    opened = bundle.open(registry.folder(Reference("sum", 1)))
    files = {
        bundle.MODEL: b"not a graph",
        bundle.GOLDEN: bundle.read_file(opened.folder, bundle.GOLDEN, opened.manifest),
    }
    broken = registry.publish("sum", lambda folder: bundle.pack(folder, opened.manifest, files) and None)
    registry.point(broken, "champion")

    with api.client() as client:
        error = eventually(lambda: client.get("/health").json()["processes"][0]["reload_error"], LONG)
    answered = predict(api, 1.0)

    assert "no live worker loaded sum@2" in error
    assert (answered.status_code, answered.json()["version"]) == (200, 1)
    assert not outcomes(worker, "parked")


@pytest.mark.parametrize("way", ["kill", "pause"])
def test_requests_get_a_clear_error_while_redis_is_unavailable_and_succeed_afterward(world: World, way: str) -> None:
    world.settings["ROWCAST_MAX_WAIT_SECONDS"] = "10"
    world.worker("worker")
    api = world.api()
    ready(api)
    assert predict(api, 1.0).status_code == 200

    getattr(world.redis, way)()
    eventually(lambda: _health(api)["checks"]["queue"] != "ok", LONG)
    away, health = predict(api, 2.0), _health(api)
    (world.redis.start if way == "kill" else world.redis.resume)()
    back = eventually(lambda: _successful(predict(api, 3.0)), LONG)

    assert (away.status_code, away.json()["type"]) == (503, "urn:rowcast:error:queue-unavailable")
    assert "retry-after" in away.headers
    assert health["status"] == "degraded"
    assert back.json()["prediction"] == 4


def _health(server: Server) -> Any:
    with server.client() as client:
        return client.get("/health").json()


def _successful(reply: httpx.Response) -> httpx.Response | None:
    return reply if reply.status_code == 200 else None


@pytest.mark.long
def test_no_request_fails_while_workers_are_replaced_under_load(world: World) -> None:
    first = world.worker("first")
    api = world.api()
    ready(api)
    done, numbers = Event(), itertools.count()

    def keep_asking() -> list[tuple[int, Any, float]]:
        replies = []
        with api.client() as client:
            while not done.is_set():
                number = float(next(numbers) % 1000)
                reply = client.post("/predict", json={"x0": number, "x1": 1}, timeout=LONG)
                replies.append((reply.status_code, reply.json(), number))
        return replies

    with ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(keep_asking) for _ in range(CLIENTS)]
        try:
            world.worker("second")
            status = first.stop()
            third = world.worker("third")
            eventually(lambda: outcomes(third, "answered") > 10, LONG)
        finally:
            done.set()
    replies = [reply for each in asking for reply in each.result(LONG)]

    assert status == 0
    assert {code for code, _, _ in replies} == {200}
    assert all(body["prediction"] == number + 1 for _, body, number in replies)
    ids = [entry["prediction"]["id"] for entry in recorded(api, min(len(replies), 1000))]
    assert len(set(ids)) == len(ids)
    assert len({body["id"] for _, body, _ in replies}) == len(replies)
