"""Several server processes under one supervisor: shared state, restarts, reloads and shutdowns."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.registry import bundle
from rowcast.registry.ports import Reference
from support import models, servers
from support.commands import rowcast
from support.servers import Server, children, command_of, is_running, rowcast_process
from support.waiting import eventually

ROW = {"x0": 2.0, "x1": 3.0}


def publish(home: Path, name: str) -> Reference:
    """Publish the next version of a model that returns the sum of its columns."""
    registry = FolderRegistry(home / "models")
    return models.publish(registry, name, models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


def publish_broken(home: Path, name: str, graph: bytes = b"nonsense") -> Reference:
    """Publish a version with an unusable graph and valid digests."""
    registry = FolderRegistry(home / "models")
    first = registry.folder(Reference(name, 1))
    manifest = bundle.read_manifest(first)
    files = {bundle.MODEL: graph, bundle.GOLDEN: (first / bundle.GOLDEN).read_bytes()}
    reference = registry.publish(name, lambda folder: bundle.pack(folder, manifest, files) and None)
    registry.point(reference, "champion")
    return reference


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("processes")
    publish(home, "sum")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with servers.running(home, "--workers", "2") as running:
        all_ready(running)
        yield running


def health(server: Server) -> tuple[int, dict[str, Any]]:
    """Return the status and body of /health; retry on new connections until a process responds."""

    def request() -> httpx.Response | None:
        try:
            return httpx.get(f"{server.address}/health", timeout=1, trust_env=False)
        except httpx.TransportError:  # the kernel assigned the connection to a stopped or dead process
            return None

    reply = eventually(request, 20)
    assert reply is not None
    return reply.status_code, reply.json()


def all_ready(server: Server) -> list[int]:
    """Wait until all server processes are ready and return their process IDs."""
    eventually(lambda: health(server)[0] == 200, 20)
    return [process["pid"] for process in health(server)[1]["processes"]]


def states(server: Server) -> list[str]:
    return [process["state"] for process in health(server)[1]["processes"]]


def prediction_count(server: Server) -> float:
    """Return the number of predictions by the model `sum`, according to the metrics."""
    text = httpx.get(f"{server.address}/metrics", timeout=5, trust_env=False).text
    counts = re.findall(r'rowcast_predictions_total\{[^}]*model="sum"[^}]*\} (\S+)', text)
    return sum(map(float, counts))


def ask(server: Server, times: int, path: str = "/predict") -> list[int]:
    """Send requests on separate connections, so that every process receives requests; return the status codes."""
    return [httpx.post(server.address + path, json=ROW, timeout=10, trust_env=False).status_code for _ in range(times)]


def versions(server: Server, name: str = "sum") -> set[int]:
    """Return the versions of a model that the processes report as live."""
    loaded = [model for process in health(server)[1]["processes"] for model in process["models"]]
    return {model["version"] for model in loaded if model["model"] == name}


def test_a_killed_server_process_is_reported_and_replaced_without_losing_its_counts(server: Server) -> None:
    first, second = all_ready(server)
    before = prediction_count(server)
    with ThreadPoolExecutor(8) as pool:
        statuses = [status for group in pool.map(lambda _: ask(server, 5), range(8)) for status in group]
    assert statuses == [200] * 40
    assert prediction_count(server) == before + 40

    os.kill(first, signal.SIGKILL)
    status, body = health(server)
    assert (status, body["status"], "dead" in states(server) or "starting" in states(server)) == (503, "degraded", True)
    assert prediction_count(server) == before + 40
    after = all_ready(server)

    assert first not in after
    assert second in after
    assert prediction_count(server) == before + 40
    assert 'rowcast_server_processes{state="ready"} 2.0' in httpx.get(f"{server.address}/metrics", trust_env=False).text


def test_a_server_process_without_a_heartbeat_is_reported_as_stale(server: Server) -> None:
    stopped, _ = all_ready(server)
    os.kill(stopped, signal.SIGSTOP)
    try:
        eventually(lambda: states(server) == ["stale", "ready"], 15)
        assert health(server)[0] == 503
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert stopped in all_ready(server)


def test_a_killed_indexer_is_restarted(server: Server) -> None:
    first = server.indexer()
    os.kill(first, signal.SIGKILL)

    assert eventually(lambda: [pid for pid in [server.indexer()] if pid != first])


def test_server_processes_load_a_new_version_unless_it_is_broken(home: Path, server: Server) -> None:
    with server.client() as client:
        good = publish(home, "sum")
        eventually(lambda: versions(server) == {good.version}, 15)
        assert client.post("/predict", json=ROW).json()["version"] == good.version

        broken = publish_broken(home, "sum")
        reply = client.post("/models/reload")
        assert (reply.status_code, reply.json()["status"]) == (409, "failed")
        for process in reply.json()["processes"]:
            assert f"sum@{broken.version}" in process["reload_error"]
        assert health(server)[0] == 200  # the previous version is still served
        assert client.post("/predict", json=ROW).json()["version"] == good.version
        assert "cannot serve a new version" in server.log.read_text()

        killed = all_ready(server)[0]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in all_ready(server), 20)
        assert versions(server) == {good.version}

        FolderRegistry(home / "models").point(good, "champion")
        reply = client.post("/models/reload")
        assert (reply.status_code, reply.json()["status"]) == (200, "ok")
        assert {process["reload_error"] for process in reply.json()["processes"]} == {""}


def test_server_processes_start_serving_new_models_and_stop_serving_removed_models(home: Path, server: Server) -> None:
    assert set(ask(server, 3, "/models/late/predict")) == {404}

    publish(home, "late")  # the first model stays the default, even in processes that start later
    eventually(lambda: versions(server, "late") == {1}, 15)
    with server.client() as client:
        assert client.post("/models/reload").status_code == 200
        assert set(ask(server, 6, "/models/late/predict")) == {200}
        metrics = client.get("/metrics").text
        assert 'route="/models/{name}/predict",status="200"' in metrics
        assert "rowcast_models_loaded 2.0" in metrics
        os.kill(all_ready(server)[0], signal.SIGKILL)
        all_ready(server)
        assert set(ask(server, 8)) == {200}

        (home / "models" / "late").rename(home / "late-no-more")
        assert client.post("/models/reload").status_code == 200
    assert set(ask(server, 6, "/models/late/predict")) == {404}


def test_live_models_are_still_served_when_the_registry_is_missing(home: Path, server: Server) -> None:
    (home / "models").rename(home / "elsewhere")
    try:
        with server.client() as client:
            reply = client.post("/models/reload")
            assert (reply.status_code, reply.json()["status"]) == (409, "failed")
            assert all(process["reload_error"] for process in reply.json()["processes"])
            assert set(ask(server, 4)) == {200}
    finally:
        (home / "elsewhere").rename(home / "models")


def test_sigterm_stops_all_processes_and_leaves_no_files_behind(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    server = servers.start(tmp_path, "--workers", "2")
    pids = [*all_ready(server), server.indexer()]
    assert ask(server, 4) == [200] * 4

    assert server.stop() == 0

    assert not any(map(is_running, pids))
    assert list((tmp_path / "journal").glob("*.journal")) == []
    assert [path.name for path in (tmp_path / "run").iterdir() if path.is_dir()] == []
    assert (
        len(json.loads(rowcast("history", "list", "--json", "--home", tmp_path, cwd=tmp_path).stdout)["predictions"])
        == 4
    )
    assert "Traceback" not in server.log.read_text()


def test_server_processes_stop_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    server = servers.start(tmp_path, "--workers", "2")
    try:
        pids = [*all_ready(server), server.indexer()]
        ask(server, 3)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(10)
        eventually(lambda: not any(map(is_running, pids)), 15)
    finally:
        server.kill()
    assert list((tmp_path / "journal").glob("*.journal")) == []

    with servers.running(tmp_path, "--workers", "2", name="second"):
        assert len([path for path in (tmp_path / "run").iterdir() if path.is_dir()]) == 1


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["nobody"], ["'nobody'"]),
        (["--default-model", "nobody"], ["default", "'nobody'"]),
        (["--workers", "0"], ["workers", "0"]),
        (["--target", "y"], ["--target", "--train-if-missing"]),
    ],
)
def test_a_startup_error_is_reported_once_and_leaves_no_processes_running(
    home: Path, arguments: list[str], names: list[str]
) -> None:
    finished = rowcast_process("serve", "--workers", "2", *arguments, "--port", "0", "--home", home, cwd=home)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert [name for name in names if name not in finished.stderr] == []
    assert len(finished.stderr.splitlines()) == 1


def test_a_request_received_before_a_shutdown_is_answered(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    server = servers.start(tmp_path)
    body = json.dumps(ROW).encode()
    head = (
        b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        % len(body)
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as late:
        late.sendall(head + body[:5])
        eventually(lambda: connection_count(server) >= 1)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(server))
        assert server.process.poll() is None
        late.sendall(body[5:])
        received = b"".join(iter(lambda: late.recv(65536), b""))

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["prediction"] == 5.0
    assert server.process.wait(10) == 0


def test_a_persistent_connection_is_closed_after_its_next_reply_during_a_shutdown(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    server = servers.start(tmp_path)
    body = json.dumps(ROW).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

    def ask_on(connection: socket.socket) -> bytes:
        connection.sendall(head % len(body) + body)
        return connection.recv(65536)

    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as steady:
        assert b"connection: close" not in ask_on(steady)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(server))
        last = ask_on(steady)
        assert last.startswith(b"HTTP/1.1 200 OK")
        assert b"connection: close" in last
        assert steady.recv(1) == b""
    assert server.process.wait(10) == 0


def connection_count(server: Server) -> int:
    """Return the number of established connections to the server's port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(row[3] == "01" and int(row[1].rpartition(":")[2], 16) == server.port for row in rows)


def refuses(server: Server) -> bool:
    """Return whether the server refuses connections."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize("signal_twice", [False, True], ids=["timeout", "second signal"])
def test_a_drain_finishes_even_if_a_client_never_completes_its_request(tmp_path: Path, signal_twice: bool) -> None:
    publish(tmp_path, "sum")
    seconds = "60" if signal_twice else "1"
    server = servers.start(tmp_path, settings={"ROWCAST_DRAIN_SECONDS": seconds})
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{")
            eventually(lambda: connection_count(server) >= 1)
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: refuses(server))
            if signal_twice:
                server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0
    finally:
        server.kill()


def test_the_serve_command_trains_a_model_only_if_none_exists(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    rows = [f"{a},{b},{'yes' if a > b else 'no'}" for a in range(12) for b in range(12)]
    table.write_text("a,b,bigger\n" + "\n".join(rows) + "\n")
    arguments = ["--train-if-missing", str(table), "--target", "bigger"]

    for name in ("first", "second"):
        with servers.running(tmp_path, *arguments, name=name, seconds=90) as server, server.client() as client:
            assert client.post("/predict", json={"a": 11, "b": 1}).json()["prediction"] == "yes"
            libraries = Path(f"/proc/{server.process.pid}/maps").read_text()
            assert "lightgbm" not in libraries
            assert "sklearn" not in libraries

    assert "training a model on" in (tmp_path / "first.log").read_text()
    assert "training a model on" not in (tmp_path / "second.log").read_text()


def test_the_serve_command_can_train_a_missing_model_from_a_config_file(tmp_path: Path) -> None:
    rows = [f"{a},{b},{'yes' if a > b else 'no'}" for a in range(12) for b in range(12)]
    (tmp_path / "points.csv").write_text("a,b,bigger\n" + "\n".join(rows) + "\n")
    config = tmp_path / "points.yaml"
    config.write_text("table: points.csv\ntarget: bigger\nname: bigger\ncandidates: tree\ntrials: 2\n")

    with servers.running(tmp_path, "--train-if-missing", str(config), seconds=90) as server, server.client() as client:
        prediction = client.post("/models/bigger/predict", json={"a": 11, "b": 1}).json()

    assert (prediction["model"], prediction["prediction"]) == ("bigger", "yes")


def test_a_failed_training_run_is_reported_on_one_line(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text("a,b\n1,2\n")
    serve = ["serve", "--port", "0", "--home", tmp_path, "--train-if-missing", table]

    without_target = rowcast_process(*serve, cwd=tmp_path)
    wrong_target = rowcast_process(*serve, "--target", "nobody", cwd=tmp_path)

    assert (without_target.returncode, wrong_target.returncode) == (2, 2)
    assert "--target" in without_target.stderr
    last_line = wrong_target.stderr.splitlines()[-1]
    assert last_line.startswith("error: ")
    assert str(table) in last_line
    assert "nobody" in last_line


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with strict limits on the memory, size and trial time of new versions."""
    home = tmp_path_factory.mktemp("bounded")
    publish(home, "sum")
    settings = {"ROWCAST_TRIAL_MEMORY_MB": "512", "ROWCAST_MAX_MODEL_MB": "1", "ROWCAST_TRIAL_SECONDS": "8"}
    with servers.running(home, settings=settings) as running:
        yield running


@pytest.mark.parametrize(
    ("graph", "setting"),
    [
        (lambda: models.mlp_graph(2, 2, width=200_000), "max_model_mb"),
        (lambda: models.hungry_graph(2), ""),
        (lambda: models.endless_graph(2), "trial_seconds"),
        (lambda: b"nonsense", ""),
        (lambda: models.sum_graph(3), ""),
    ],
    ids=["too large", "too much memory", "infinite loop", "not a graph", "different columns"],
)
def test_a_broken_version_is_rejected_and_the_previous_version_stays_live(
    bounded: Server, graph: Any, setting: str
) -> None:
    server = bounded
    with server.client() as client:
        broken = publish_broken(server.home, "sum", graph())
        reply = client.post("/models/reload")
        assert reply.status_code == 409
        reason = reply.json()["processes"][0]["reload_error"]
        assert f"sum@{broken.version}" in reason
        assert setting in reason
        assert client.post("/predict", json=ROW).json()["version"] == 1
        assert server.process.poll() is None
        assert children(server.process.pid) == [server.indexer()]
        assert "indexer" in command_of(server.indexer())


def test_server_processes_and_the_supervisor_are_in_different_process_groups(server: Server) -> None:
    group = os.getpgid(server.process.pid)

    assert group not in {os.getpgid(pid) for pid in all_ready(server)}


def test_a_single_server_process_runs_without_a_supervisor(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    with servers.running(tmp_path) as server:
        (process,) = health(server)[1]["processes"]
        assert process["pid"] == server.process.pid
        listing = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=False
        )
        assert [int(word) for word in listing.stdout.split()] == [server.indexer()]
