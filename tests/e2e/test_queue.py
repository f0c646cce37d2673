"""Servers that score through a queue: real Redis, servers and workers."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import models, servers
from support.redis import RedisServer
from support.servers import Server
from support.waiting import eventually

ROWS = 60


@pytest.fixture(scope="module")
def queue_home(tmp_path_factory: pytest.TempPathFactory, loan_registry: Path) -> Path:
    """A home with the loan example as the default model."""
    home = models.with_models(tmp_path_factory.mktemp("queue") / "home", loan_registry)
    registry = FolderRegistry(home / "models")
    models.publish(registry, "list", models.picking_graph(3), models.number_columns(1), models.REGRESSION, "values")
    return home


@pytest.fixture(scope="module")
def queue(redis_server: RedisServer) -> dict[str, str]:
    """The settings for a new queue."""
    return {
        "ROWCAST_QUEUE": redis_server.url,
        "ROWCAST_REDIS_PREFIX": uuid.uuid4().hex,
        "ROWCAST_DEFAULT_MODEL": "loans",
    }


@pytest.fixture(scope="module")
def worker(queue_home: Path, queue: dict[str, str]) -> Iterator[Server]:
    with servers.running(queue_home, settings=queue, name="worker", command="worker") as worker:
        yield worker


@pytest.fixture(scope="module")
def api(queue_home: Path, queue: dict[str, str], worker: Server) -> Iterator[Server]:
    with servers.running(queue_home, settings=queue, name="api") as server:
        yield server


def scores(reply: httpx.Response) -> Any:
    """Return all fields except the prediction ID as JSON text, which preserves every bit of a number."""
    reply.raise_for_status()
    return {name: json.dumps(value) for name, value in reply.json().items() if name != "id"}


def test_scores_from_workers_are_bit_identical_to_scores_from_the_server_itself(
    api: Server, queue_home: Path, tmp_path: Path
) -> None:
    rows = models.loan_rows(ROWS)
    home = models.with_models(tmp_path / "home", queue_home / "models")
    with servers.running(home, "loans") as direct, direct.client() as client:
        expected = [scores(client.post("/predict", json=row)) for row in rows]
    with api.client() as client, ThreadPoolExecutor(16) as threads:
        single = list(threads.map(lambda row: scores(client.post("/predict", json=row)), rows))
        whole = client.post("/predict", json={"rows": rows})

    assert single == expected
    assert [json.dumps(each["probability"]) for each in whole.json()["predictions"]] == [
        each["probability"] for each in expected
    ]


def test_a_worker_runs_jobs_in_its_own_child_process(api: Server, worker: Server) -> None:
    def runners(server: Server) -> list[int]:
        return [pid for pid in servers.children(server.process.pid) if servers.command_of(pid).endswith(" job-runner")]

    with api.client() as client:
        job = client.post("/jobs", json={"rows": models.loan_rows(5)}).json()["id"]
        eventually(lambda: client.get(f"/jobs/{job}").json()["state"] == "done", 120, every=0.2)

    assert (len(runners(worker)), runners(api)) == (1, [])


def test_a_server_with_a_queue_loads_neither_onnx_runtime_nor_numpy(api: Server, worker: Server) -> None:
    def libraries(server: Server) -> set[str]:
        maps = Path(f"/proc/{server.process.pid}/maps").read_text()
        return {name for name in ("onnxruntime", "numpy") if f"/{name}/" in maps}

    assert libraries(worker) == {"onnxruntime", "numpy"}
    assert libraries(api) == set()


def test_a_row_that_cannot_be_scored_fails_only_its_own_request(api: Server) -> None:
    with api.client() as client, ThreadPoolExecutor(8) as threads:
        replies = list(
            threads.map(lambda place: client.post("/models/list/predict", json={"x0": place}), [0, 1, 7, 2, 9, 1])
        )
        batch = client.post("/models/list/predict", json={"rows": [{"x0": 1}, {"x0": 8}]})

    assert [reply.status_code for reply in replies] == [200, 200, 422, 200, 422, 200]
    assert replies[2].json()["type"] == "urn:rowcast:error:no-answer"
    assert (batch.status_code, [problem["row"] for problem in batch.json()["errors"]]) == (422, [1])


def test_predictions_that_workers_scored_are_recorded_once(api: Server) -> None:
    with api.client() as client:
        reply = client.post("/predict", json=models.loan_rows(1)[0]).json()
        record = eventually(lambda: _found(client, reply["id"]))

    assert record["prediction"] == reply


def _found(client: httpx.Client, prediction: str) -> Any:
    reply = client.get(f"/predictions/{prediction}")
    return reply.json() if reply.status_code == 200 else None


def test_a_server_without_a_worker_reports_that_it_is_not_ready(
    queue_home: Path, redis_server: RedisServer, tmp_path: Path
) -> None:
    alone = {
        "ROWCAST_QUEUE": redis_server.url,
        "ROWCAST_REDIS_PREFIX": uuid.uuid4().hex,
        "ROWCAST_DEFAULT_MODEL": "loans",
        "ROWCAST_MAX_WAIT_SECONDS": "1",
    }
    home = models.with_models(tmp_path / "home", queue_home / "models")
    with servers.running_unready(home, settings=alone) as server, server.client() as client:
        ready = client.get("/health/ready")
        first = client.post("/predict", json=models.loan_rows(1)[0])
        later = eventually(lambda: _problem(client, "no-worker"))
        with servers.running(home, settings=alone, name="worker", command="worker"):
            eventually(lambda: client.get("/health/ready").status_code == 200)
            answered = client.post("/predict", json=models.loan_rows(1)[0])
        gone = eventually(lambda: client.get("/health/ready").status_code == 503)

    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert "no live worker serves loans@1" in ready.json()["reason"]
    assert first.status_code == 503
    assert later.headers["retry-after"] == "1"
    assert answered.status_code == 200
    assert gone


def _problem(client: httpx.Client, slug: str) -> httpx.Response | None:
    reply = client.post("/predict", json=models.loan_rows(1)[0])
    return reply if reply.json().get("type") == f"urn:rowcast:error:{slug}" else None


def test_a_redis_server_that_can_evict_messages_is_refused(tmp_path: Path, loan_registry: Path) -> None:
    from support.redis import serving

    home = models.with_models(tmp_path / "home", loan_registry)
    with serving(tmp_path, "--maxmemory-policy", "allkeys-lru") as redis:
        settings = {"ROWCAST_QUEUE": redis.url}
        refused = [
            servers.rowcast_process(command, "--port", "0", "--home", home, cwd=tmp_path, settings=settings)
            for command in ("serve", "worker")
        ]

    assert [process.returncode for process in refused] == [2, 2]
    assert all("allkeys-lru" in process.stderr and "cache" in process.stderr for process in refused)
