"""Several workers under one supervisor: they share the port, the counters and the board; none is missed for long."""

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
from support.servers import Server, children, command_of, is_running, rowcast
from support.waiting import eventually

ROW = {"x0": 2.0, "x1": 3.0}


def publish(home: Path, name: str) -> Reference:
    """The next version of a model that adds its columns up."""
    registry = FolderRegistry(home / "models")
    return models.publish(registry, name, models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


def publish_broken(home: Path, name: str, graph: bytes = b"nonsense") -> Reference:
    """A version whose graph is something else, under digests that are right."""
    registry = FolderRegistry(home / "models")
    good = registry.folder(Reference(name, 1))
    manifest = bundle.read_manifest(good)
    files = {bundle.MODEL: graph, bundle.GOLDEN: (good / bundle.GOLDEN).read_bytes()}
    reference = registry.publish(name, lambda folder: bundle.pack(folder, manifest, files) and None)
    registry.point(reference, "champion")
    return reference


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("workers")
    publish(home, "sum")
    return home


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[Server]:
    with servers.running(home, "--workers", "2") as running:
        all_ready(running)
        yield running


def health(server: Server) -> tuple[int, dict[str, Any]]:
    """What /health says, asked on a connection of its own until one worker answers."""

    def asked() -> httpx.Response | None:
        try:
            return httpx.get(f"{server.address}/health", timeout=1, trust_env=False)
        except httpx.TransportError:  # the kernel gave the connection to a worker that is stopped or just died
            return None

    reply = eventually(asked, 20)
    assert reply is not None
    return reply.status_code, reply.json()


def all_ready(server: Server) -> list[int]:
    """The workers' pids once all of them are ready."""
    eventually(lambda: health(server)[0] == 200, 20)
    return [worker["pid"] for worker in health(server)[1]["workers"]]


def states(server: Server) -> list[str]:
    return [worker["state"] for worker in health(server)[1]["workers"]]


def counted(server: Server) -> float:
    """Predictions of `sum` that the metrics know of."""
    text = httpx.get(f"{server.address}/metrics", timeout=5, trust_env=False).text
    found = re.findall(r'rowcast_predictions_total\{[^}]*model="sum"[^}]*\} (\S+)', text)
    return sum(map(float, found))


def ask(server: Server, times: int, path: str = "/predict") -> list[int]:
    """The statuses of so many predictions, each on a connection of its own so that all workers get some."""
    return [httpx.post(server.address + path, json=ROW, timeout=10, trust_env=False).status_code for _ in range(times)]


def versions(server: Server, name: str = "sum") -> set[int]:
    """The versions of a model that workers say they answer with."""
    seen = [
        {loaded["version"] for loaded in worker["models"] if loaded["model"] == name}
        for worker in health(server)[1]["workers"]
    ]
    return set.union(*seen)


def test_a_killed_worker_is_seen_at_once_and_replaced_and_nothing_counted_is_lost(server: Server) -> None:
    first, second = all_ready(server)
    before = counted(server)
    with ThreadPoolExecutor(8) as pool:
        assert [status for asked in pool.map(lambda _: ask(server, 5), range(8)) for status in asked] == [200] * 40
    assert counted(server) == before + 40

    os.kill(first, signal.SIGKILL)
    status, body = health(server)
    assert (status, body["status"], "dead" in states(server) or "starting" in states(server)) == (503, "degraded", True)
    assert counted(server) == before + 40
    after = all_ready(server)

    assert first not in after
    assert second in after
    assert counted(server) == before + 40
    assert 'rowcast_workers{state="ready"} 2.0' in httpx.get(f"{server.address}/metrics", trust_env=False).text


def test_a_worker_that_gives_no_sign_is_no_healthy_worker(server: Server) -> None:
    stopped, _ = all_ready(server)
    os.kill(stopped, signal.SIGSTOP)
    try:
        eventually(lambda: states(server) == ["stale", "ready"], 15)
        assert health(server)[0] == 503
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert stopped in all_ready(server)


def test_a_killed_indexer_comes_back(server: Server) -> None:
    first = server.indexer()
    os.kill(first, signal.SIGKILL)

    assert eventually(lambda: [pid for pid in [server.indexer()] if pid != first])


def test_workers_follow_the_registry_and_stay_where_a_version_is_broken(home: Path, server: Server) -> None:
    with server.client() as client:
        good = publish(home, "sum")
        eventually(lambda: versions(server) == {good.version}, 15)
        assert client.post("/predict", json=ROW).json()["version"] == good.version

        broken = publish_broken(home, "sum")
        reply = client.post("/models/reload")
        assert (reply.status_code, reply.json()["status"]) == (409, "failed")
        for worker in reply.json()["workers"]:
            assert f"sum@{broken.version} is not served, version {good.version} stays" in worker["reload_error"]
            assert "cannot be loaded" in worker["reload_error"]
        assert health(server)[0] == 200  # what is served is well
        assert client.post("/predict", json=ROW).json()["version"] == good.version
        assert "a new version is not served" in server.log.read_text()

        killed = all_ready(server)[0]
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: killed not in all_ready(server), 20)
        assert versions(server) == {good.version}

        FolderRegistry(home / "models").point(good, "champion")
        mended = client.post("/models/reload")
        assert (mended.status_code, mended.json()["status"]) == (200, "ok")
        assert {worker["reload_error"] for worker in mended.json()["workers"]} == {""}


def test_a_model_that_appears_is_served_under_its_name_and_one_that_goes_is_not(home: Path, server: Server) -> None:
    assert set(ask(server, 3, "/models/late/predict")) == {404}

    publish(home, "late")  # the only model so far stays the default, also of a worker that starts later
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


def test_a_registry_that_is_away_takes_nothing_from_those_who_ask(home: Path, server: Server) -> None:
    (home / "models").rename(home / "elsewhere")
    try:
        with server.client() as client:
            reply = client.post("/models/reload")
            assert reply.status_code == 409
            assert "what is served stays" in reply.json()["workers"][0]["reload_error"]
            assert set(ask(server, 4)) == {200}
    finally:
        (home / "elsewhere").rename(home / "models")


def test_told_to_stop_all_end_in_order_and_leave_nothing(tmp_path: Path) -> None:
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


def test_no_worker_survives_its_supervisor(tmp_path: Path) -> None:
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
    ("arguments", "sentence"),
    [
        (["nobody"], "there is no model 'nobody'"),
        (["--default-model", "nobody"], "'default_model' is 'nobody', which is not among the models served"),
        (["--workers", "0"], "setting 'workers' is 0"),
        (["--target", "y"], "--target requires --train-if-missing"),
    ],
)
def test_a_mistake_is_said_once_and_nothing_keeps_running(home: Path, arguments: list[str], sentence: str) -> None:
    finished = rowcast("serve", "--workers", "2", *arguments, "--port", "0", "--home", home, cwd=home)

    assert (finished.returncode, finished.stdout) == (2, "")
    assert sentence in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


def test_a_request_already_received_is_answered_and_the_connection_closed(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    server = servers.start(tmp_path)
    body = json.dumps(ROW).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(
        body
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as late:
        late.sendall(head + body[:5])
        eventually(lambda: counted_connections(server) >= 1)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: refuses(server))
        assert server.process.poll() is None
        late.sendall(body[5:])
        received = b"".join(iter(lambda: late.recv(65536), b""))

    assert received.startswith(b"HTTP/1.1 200 OK")
    assert b"connection: close" in received
    assert json.loads(received.partition(b"\r\n\r\n")[2])["prediction"] == 5.0
    assert server.process.wait(10) == 0


def test_a_client_that_asks_steadily_is_told_to_leave_with_its_first_answer(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    server = servers.start(tmp_path)
    body = json.dumps(ROW).encode()
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"

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


def counted_connections(server: Server) -> int:
    """Established connections to the server's port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in lines]
    return sum(row[3] == "01" and int(row[1].rpartition(":")[2], 16) == server.port for row in rows)


def refuses(server: Server) -> bool:
    """Whether nobody listens any more."""
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=5):
            return False
    except ConnectionRefusedError:
        return True


@pytest.mark.parametrize("hasten", [False, True], ids=["in time", "twice"])
def test_a_drain_ends_though_a_client_never_finishes(tmp_path: Path, hasten: bool) -> None:
    publish(tmp_path, "sum")
    seconds = "60" if hasten else "1"
    server = servers.start(tmp_path, settings={"ROWCAST_DRAIN_SECONDS": seconds})
    try:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{")
            eventually(lambda: counted_connections(server) >= 1)
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: refuses(server))
            if hasten:
                server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(15) == 0
    finally:
        server.kill()


def test_a_server_without_a_model_trains_one_first(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    rows = [f"{a},{b},{'yes' if a > b else 'no'}" for a in range(20) for b in range(20)]
    table.write_text("a,b,bigger\n" + "\n".join(rows) + "\n")
    arguments = ["--train-if-missing", str(table), "--target", "bigger"]

    for name in ("first", "second"):
        with servers.running(tmp_path, *arguments, name=name, seconds=90) as server, server.client() as client:
            assert client.post("/predict", json={"a": 18, "b": 1}).json()["prediction"] == "yes"
            loaded = Path(f"/proc/{server.process.pid}/maps").read_text()
            assert "lightgbm" not in loaded
            assert "sklearn" not in loaded

    assert "training on" in (tmp_path / "first.log").read_text()
    assert "training on" not in (tmp_path / "second.log").read_text()


def test_the_first_model_can_be_trained_from_a_file_of_options(tmp_path: Path) -> None:
    rows = [f"{a},{b},{'yes' if a > b else 'no'}" for a in range(20) for b in range(20)]
    (tmp_path / "points.csv").write_text("a,b,bigger\n" + "\n".join(rows) + "\n")
    config = tmp_path / "points.yaml"
    config.write_text("table: points.csv\ntarget: bigger\nname: bigger\ncandidates: tree\ntrials: 2\n")

    with servers.running(tmp_path, "--train-if-missing", str(config), seconds=90) as server, server.client() as client:
        found = client.post("/models/bigger/predict", json={"a": 18, "b": 1}).json()

    assert (found["model"], found["prediction"]) == ("bigger", "yes")


def test_training_that_fails_is_said_in_one_sentence(tmp_path: Path) -> None:
    table = tmp_path / "points.csv"
    table.write_text("a,b\n1,2\n")
    serve = ["serve", "--port", "0", "--home", tmp_path, "--train-if-missing", table]

    without_target = rowcast(*serve, cwd=tmp_path)
    wrong_target = rowcast(*serve, "--target", "nobody", cwd=tmp_path)

    assert (without_target.returncode, wrong_target.returncode) == (2, 2)
    assert "say with --target" in without_target.stderr
    assert "nobody" in wrong_target.stderr.splitlines()[-1]
    assert wrong_target.stderr.splitlines()[-1].startswith(f"error: training on {table} failed: ")


@pytest.fixture(scope="module")
def bounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that grants little to a new version."""
    home = tmp_path_factory.mktemp("bounded")
    publish(home, "sum")
    settings = {"ROWCAST_TRIAL_MEMORY_MB": "512", "ROWCAST_MAX_MODEL_MB": "1", "ROWCAST_TRIAL_SECONDS": "8"}
    with servers.running(home, settings=settings) as running:
        yield running


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (lambda: models.mlp_graph(2, 2, width=200_000), "is larger than 1 MB (setting max_model_mb)"),
        (lambda: models.hungry_graph(2), "sum@"),
        (lambda: models.endless_graph(2), "took more than 8 s (setting trial_seconds)"),
        (lambda: b"nonsense", "the model graph cannot be loaded"),
        (lambda: models.sum_graph(3), "cannot be run"),
    ],
    ids=["large", "hungry", "endless", "nonsense", "of other columns"],
)
def test_a_version_that_cannot_be_opened_dies_apart(bounded: Server, graph: Any, reason: str) -> None:
    server = bounded
    with server.client() as client:
        broken = publish_broken(server.home, "sum", graph())
        reply = client.post("/models/reload")
        assert reply.status_code == 409
        said = reply.json()["workers"][0]["reload_error"]
        assert f"sum@{broken.version} is not served, version 1 stays" in said
        assert reason in said
        assert client.post("/predict", json=ROW).json()["version"] == 1
        assert server.process.poll() is None
        assert children(server.process.pid) == [server.indexer()]
        assert "indexer" in command_of(server.indexer())


def test_workers_keep_their_own_process_group_away_from_the_terminal(server: Server) -> None:
    group = os.getpgid(server.process.pid)

    assert group not in {os.getpgid(pid) for pid in all_ready(server)}


def test_one_process_serves_without_a_supervisor(tmp_path: Path) -> None:
    publish(tmp_path, "sum")
    with servers.running(tmp_path) as server:
        (worker,) = health(server)[1]["workers"]
        assert worker["pid"] == server.process.pid
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True, check=False
        )
        assert [int(word) for word in listed.stdout.split()] == [server.indexer()]
