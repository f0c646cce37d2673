"""What was answered is in history, whoever was killed: the promise that everything else rests on."""

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
from support.load import Load
from support.servers import Server, is_running, rowcast
from support.waiting import eventually

ROWS = models.loan_rows(500)
KILLS = 10
ANSWERS_A_LIFE = 1_050


def kept(home: Path) -> dict[str, dict[str, Any]]:
    """Every stored prediction by its id; AssertionError when one is there twice."""
    listed = json.loads(rowcast("history", "list", "--limit", "100000", "--json", "--home", home, cwd=home).stdout)
    found = {entry["id"]: entry for entry in listed["predictions"]}
    assert len(found) == len(listed["predictions"])
    return found


def assert_kept(load: Load, home: Path) -> None:
    """Every answer is in history once, with the row it answers, as it was sent."""
    history = kept(home)
    assert load.answered.keys() <= history.keys()
    assert load.repeated == []
    for prediction_id, (number, reply) in load.answered.items():
        entry = history[prediction_id]
        assert entry["prediction"] == reply
        assert entry["row"] == load.rows[number]


def journals(home: Path) -> list[str]:
    return [path.name for path in (home / "journal").glob("*.journal")]


@pytest.mark.slow
def test_ten_deaths_under_load_lose_no_answer(home: Path) -> None:
    load = Load(ROWS)
    for life in range(KILLS):
        server = servers.start(home, name=f"life-{life}")
        try:
            if load.answered:  # the last answer before the death can be looked up at once
                last = next(reversed(load.answered))
                with server.client() as client:
                    assert client.get(f"/predictions/{last}").json()["prediction"] == load.answered[last][1]
            asyncio.run(load.until(server.address, ANSWERS_A_LIFE, server.kill))
        finally:
            server.kill()
    with servers.running(home, name="after"):
        pass

    assert load.refused == []
    assert len(load.answered) >= 10_000
    assert journals(home) == []
    assert_kept(load, home)
    verdict = json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)
    replay = json.loads(rowcast("replay", "--json", "--home", home, cwd=home).stdout)
    assert (verdict["broken"], verdict["entries"] >= len(load.answered)) == ([], True)
    assert (replay["equal"], replay["examples"]) == (verdict["entries"], [])


def test_a_server_told_to_stop_under_load_answers_stores_and_exits_0(home: Path) -> None:
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
    assert_kept(load, home)
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(home: Path) -> Any:
    with servers.running(home) as running:
        yield running


def predicted(server: Server) -> str:
    with server.client() as client:
        reply = client.post("/predict", json=ROWS[0])
    assert reply.status_code == 200, reply.text
    return str(reply.json()["id"])


def is_listed(server: Server, prediction_id: str) -> bool:
    with server.client() as client:
        listed = client.get("/predictions", params={"limit": 20}).json()["predictions"]
    return any(entry["id"] == prediction_id for entry in listed)


def test_an_answer_can_be_looked_up_at_once_and_is_stored_within_seconds(server: Server) -> None:
    with server.client() as client:
        answered = client.post("/predict", json=ROWS[0], headers={"x-request-id": "mine"}).json()
        found = client.get(f"/predictions/{answered['id'].upper()}").json()

    assert (found["prediction"], found["row"], found["request_id"]) == (answered, ROWS[0], "mine")
    eventually(lambda: is_listed(server, answered["id"]), 5)


def test_a_killed_indexer_comes_back_by_itself(server: Server) -> None:
    first = server.indexer()
    os.kill(first, signal.SIGKILL)
    prediction_id = predicted(server)

    second = eventually(lambda: [pid for pid in [server.indexer()] if pid != first])[0]

    assert second != first
    eventually(lambda: is_listed(server, prediction_id))


def test_a_killed_server_leaves_no_process_and_its_answers_are_stored(home: Path) -> None:
    server = servers.start(home)
    indexer = server.indexer()
    prediction_id = predicted(server)

    os.kill(server.process.pid, signal.SIGKILL)
    server.process.wait(10)

    eventually(lambda: not is_running(indexer))
    assert prediction_id in kept(home)
    assert journals(home) == []


def test_a_server_killed_alone_with_its_indexer_stopped_is_indexed_by_the_next(home: Path) -> None:
    first = servers.start(home, name="first")
    os.kill(first.indexer(), signal.SIGSTOP)
    prediction_id = predicted(first)
    first.kill()
    assert journals(home) != []

    with servers.running(home, name="second") as second:
        with second.client() as client:
            assert client.get(f"/predictions/{prediction_id}").status_code == 200
        eventually(lambda: is_listed(second, prediction_id))


def test_two_servers_share_one_history_and_one_indexer(home: Path) -> None:
    with servers.running(home, name="second") as second:
        first = servers.start(home, name="first")
        ids = [predicted(first), predicted(second)]
        eventually(lambda: all(is_listed(second, prediction_id) for prediction_id in ids))
        assert first.stop() == 0
        ids.append(predicted(second))
        eventually(lambda: is_listed(second, ids[-1]))

    assert set(ids) == kept(home).keys()
    assert json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)["writers"] == 2


def test_answers_are_kept_when_the_disk_is_asked_to_have_them(home: Path) -> None:
    with servers.running(home, "--durability", "disk") as server:
        prediction_id = predicted(server)

    assert prediction_id in kept(home)


def test_history_waits_in_the_journal_while_the_store_cannot_be_written(home: Path) -> None:
    store = home / "history.db"
    store.mkdir()  # nothing can be opened under this name
    with servers.running(home) as server:
        prediction_id = predicted(server)
        with server.client() as client:
            eventually(lambda: client.get("/health").status_code == 503)
            assert client.get("/health").json()["checks"]["history"] != "ok"
        eventually(lambda: "history is behind" in server.log.read_text())
        store.rmdir()
        eventually(lambda: is_listed(server, prediction_id))


def test_uvicorn_serves_the_public_app(home: Path) -> None:
    port = servers.free_port()
    command = [*servers.PYTHON, "-m", "uvicorn", "rowcast.asgi:app", "--port", str(port)]
    with servers.run_in(home, command, {"ROWCAST_HOME": str(home)}) as process:
        server = Server(process, f"http://127.0.0.1:{port}", home / "server.log", home)
        with server.client() as client:
            eventually(lambda: process.poll() is not None or servers.is_ready(client), 20)
            assert process.poll() is None, server.log.read_text()
            prediction_id = predicted(server)
            eventually(lambda: is_listed(server, prediction_id))
        indexer = server.indexer()
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    eventually(lambda: not is_running(indexer))
    assert prediction_id in kept(home)


def test_uvicorn_logs_as_the_environment_says(home: Path) -> None:
    port = servers.free_port()
    command = [*servers.PYTHON, "-m", "uvicorn", "rowcast.asgi:app", "--port", str(port)]
    settings = {"ROWCAST_HOME": str(home), "ENV": "production", "MODEL_PATH": "/app/models/", "REDIS_URL": "redis://r"}
    with servers.run_in(home, command, settings) as process:
        server = Server(process, f"http://127.0.0.1:{port}", home / "server.log", home)
        with server.client() as client:
            eventually(lambda: process.poll() is not None or servers.is_ready(client), 20)
        lines = [line for line in server.log.read_text().splitlines() if "/app/models" in line]

    assert json.loads(lines[0])["event"] == "a file of the models folder is not served"


def test_uvicorn_without_a_model_ends_with_the_reason(tmp_path: Path) -> None:
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
    assert "no model in the registry has a champion" in finished.stderr
    assert "rowcast train" in finished.stderr
    assert "Traceback" not in finished.stderr
