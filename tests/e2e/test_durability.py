"""The history contains every prediction that a client received, no matter which process is killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from support import models, servers
from support.commands import rowcast
from support.load import Load
from support.servers import Server, is_running
from support.waiting import eventually

ROWS = models.loan_rows(500)
KILLS = 10
REPLIES_PER_LIFE = 1_050


def stored_entries(home: Path) -> dict[str, dict[str, Any]]:
    """Return all stored entries, keyed by ID; check that no entry is stored twice."""
    listed = json.loads(rowcast("history", "list", "--limit", "100000", "--json", "--home", home, cwd=home).stdout)
    entries = {entry["id"]: entry for entry in listed["predictions"]}
    assert len(entries) == len(listed["predictions"])
    return entries


def assert_recorded(load: Load, home: Path) -> None:
    """Check that the history contains each reply exactly once, together with its row."""
    history = stored_entries(home)
    assert load.answered.keys() <= history.keys()
    assert load.repeated == []
    for prediction_id, (number, reply) in load.answered.items():
        entry = history[prediction_id]
        assert entry["prediction"] == reply
        assert entry["row"] == load.rows[number]


def journals(home: Path) -> list[str]:
    return [path.name for path in (home / "journal").glob("*.journal")]


@pytest.mark.slow
def test_a_server_that_is_killed_ten_times_under_load_loses_no_predictions(home: Path) -> None:
    load = Load(ROWS)
    for life in range(KILLS):
        server = servers.start(home, name=f"life-{life}")
        try:
            if load.answered:  # the most recent prediction before the kill can be looked up immediately
                last = next(reversed(load.answered))
                with server.client() as client:
                    assert client.get(f"/predictions/{last}").json()["prediction"] == load.answered[last][1]
            asyncio.run(load.until(server.address, REPLIES_PER_LIFE, server.kill))
        finally:
            server.kill()
    with servers.running(home, name="after"):
        pass

    assert load.refused == []
    assert len(load.answered) >= 10_000
    assert journals(home) == []
    assert_recorded(load, home)
    verification = json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)
    replay = json.loads(rowcast("replay", "--json", "--home", home, cwd=home).stdout)
    assert (verification["broken"], verification["entries"] >= len(load.answered)) == ([], True)
    assert (replay["equal"], replay["examples"]) == (verification["entries"], [])


def test_a_server_that_is_stopped_under_load_stores_every_prediction_that_it_returned(home: Path) -> None:
    load, statuses = Load(ROWS), []
    server = servers.start(home)
    indexer = server.indexer()
    try:
        asyncio.run(load.until(server.address, 300, lambda: statuses.append(server.stop())))
    finally:
        server.kill()

    assert statuses == [0]
    assert not is_running(indexer)
    assert journals(home) == []
    assert set(load.refused) <= {503}
    assert_recorded(load, home)
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(home: Path) -> Any:
    with servers.running(home) as running:
        yield running


def predict(server: Server) -> str:
    with server.client() as client:
        reply = client.post("/predict", json=ROWS[0])
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def is_listed(server: Server, prediction_id: str) -> bool:
    with server.client() as client:
        listed = client.get("/predictions", params={"limit": 20}).json()["predictions"]
    return any(entry["id"] == prediction_id for entry in listed)


def test_a_prediction_can_be_looked_up_immediately_and_is_stored_within_seconds(server: Server) -> None:
    with server.client() as client:
        prediction = client.post("/predict", json=ROWS[0], headers={"x-request-id": "mine"}).json()
        entry = client.get(f"/predictions/{prediction['id'].upper()}").json()

    assert (entry["prediction"], entry["row"], entry["request_id"]) == (prediction, ROWS[0], "mine")
    eventually(lambda: is_listed(server, prediction["id"]), 5)


def test_a_killed_indexer_is_restarted(server: Server) -> None:
    first = server.indexer()
    os.kill(first, signal.SIGKILL)
    prediction_id = predict(server)

    second = eventually(lambda: [pid for pid in [server.indexer()] if pid != first])[0]

    assert second != first
    eventually(lambda: is_listed(server, prediction_id))


def test_a_killed_server_leaves_no_processes_running_and_loses_no_predictions(home: Path) -> None:
    server = servers.start(home)
    indexer = server.indexer()
    prediction_id = predict(server)

    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)

    eventually(lambda: not is_running(indexer))
    assert prediction_id in stored_entries(home)
    assert journals(home) == []


def test_the_next_server_stores_the_entries_left_in_the_journals_of_a_killed_server(home: Path) -> None:
    first = servers.start(home, name="first")
    os.kill(first.indexer(), signal.SIGSTOP)
    prediction_id = predict(first)
    first.kill()
    assert journals(home) != []

    with servers.running(home, name="second") as second:
        with second.client() as client:
            assert client.get(f"/predictions/{prediction_id}").status_code == 200
        eventually(lambda: is_listed(second, prediction_id))


def test_two_servers_with_the_same_home_share_one_history_and_one_indexer(home: Path) -> None:
    with servers.running(home, name="second") as second:
        first = servers.start(home, name="first")
        ids = [predict(first), predict(second)]
        eventually(lambda: all(is_listed(second, prediction_id) for prediction_id in ids))
        assert first.stop() == 0
        ids.append(predict(second))
        eventually(lambda: is_listed(second, ids[-1]))

    assert set(ids) == stored_entries(home).keys()
    assert json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)["writers"] == 2


def test_predictions_are_recorded_if_the_durability_setting_is_disk(home: Path) -> None:
    with servers.running(home, "--durability", "disk") as server:
        prediction_id = predict(server)

    assert prediction_id in stored_entries(home)


def test_entries_stay_in_the_journal_while_the_store_is_unavailable(home: Path) -> None:
    store = home / "history.db"
    store.mkdir()  # a folder cannot be opened as a database
    with servers.running(home) as server:
        prediction_id = predict(server)
        with server.client() as client:
            eventually(lambda: client.get("/health").status_code == 503)
            assert client.get("/health").json()["checks"]["history"] != "ok"
        eventually(lambda: "history is behind" in server.log.read_text())
        store.rmdir()
        eventually(lambda: is_listed(server, prediction_id))


def test_uvicorn_can_serve_the_asgi_app(home: Path) -> None:
    port = servers.free_port()
    command = [*servers.PYTHON, "-m", "uvicorn", "rowcast.asgi:app", "--port", str(port)]
    with servers.run_in(home, command, {"ROWCAST_HOME": str(home)}) as process:
        server = Server(process, f"http://127.0.0.1:{port}", home / "server.log", home)
        with server.client() as client:
            eventually(lambda: process.poll() is not None or servers.is_ready(client), 20)
            assert process.poll() is None, server.log.read_text()
            prediction_id = predict(server)
            eventually(lambda: is_listed(server, prediction_id))
        indexer = server.indexer()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    eventually(lambda: not is_running(indexer))
    assert prediction_id in stored_entries(home)


def test_the_asgi_app_uses_the_log_format_set_in_the_environment(home: Path) -> None:
    port = servers.free_port()
    command = [*servers.PYTHON, "-m", "uvicorn", "rowcast.asgi:app", "--port", str(port)]
    settings = {"ROWCAST_HOME": str(home), "ENV": "production", "MODEL_PATH": "/app/models/", "REDIS_URL": "redis://r"}
    with servers.run_in(home, command, settings) as process:
        server = Server(process, f"http://127.0.0.1:{port}", home / "server.log", home)
        with server.client() as client:
            eventually(lambda: process.poll() is not None or servers.is_ready(client), 20)
        lines = [line for line in server.log.read_text().splitlines() if "/app/models" in line]

    assert json.loads(lines[0])["event"] == "a file in the models folder cannot be served"


def test_uvicorn_prints_the_reason_and_exits_if_there_is_no_model_to_serve(tmp_path: Path) -> None:
    finished = subprocess.run(
        [*servers.PYTHON, "-m", "uvicorn", "rowcast.asgi:app", "--port", str(servers.free_port())],
        cwd=tmp_path,
        env=servers.environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert finished.returncode != 0
    assert "the registry has no model to serve" in finished.stderr
    assert "rowcast train" in finished.stderr
    assert "Traceback" not in finished.stderr
