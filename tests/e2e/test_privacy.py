"""Commands and servers write nothing outside the folders that they are given, and connect to no other machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from support import servers
from support.servers import ROWCAST, environment, free_port
from support.waiting import eventually

TRACE = ["strace", "-f", "-qq", "--seccomp-bpf", "-e", "trace=connect,sendto,sendmsg,sendmmsg"]
INTERNET_ADDRESS = re.compile(r'sin6?_port=.*?inet_(?:addr|pton)\((?:AF_INET6, )?"([^"]+)"')
LOOPBACK = ("127.", "::1", "::ffff:127.")


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's home folder, which is empty."""
    folder = tmp_path / "user"
    folder.mkdir()
    return folder


def settings(user: Path) -> dict[str, str]:
    caches = {f"XDG_{name}_HOME": str(user / name.lower()) for name in ("CACHE", "CONFIG", "DATA", "STATE")}
    return environment(HOME=str(user), ORT_DISABLE_TELEMETRY="0", **caches)


def remote_addresses(trace: Path) -> list[str]:
    return [address for address in INTERNET_ADDRESS.findall(trace.read_text()) if not address.startswith(LOOPBACK)]


def test_training_and_scoring_leave_no_traces_and_connect_to_no_other_machine(user: Path, tmp_path: Path) -> None:
    trace, work = tmp_path / "trace", tmp_path / "work"
    work.mkdir()

    def run(*arguments: str) -> None:
        command = [*TRACE, "-o", str(trace), *ROWCAST, *arguments]
        subprocess.run(command, cwd=work, env=settings(user), check=True, capture_output=True, timeout=240)
        assert remote_addresses(trace) == [], arguments

    run("example", "loans", "--out", "loans.csv")
    run("train", "loans.csv", "--target", "loan_status", "--name", "loans", "--trials", "1", "--home", "home")
    run("predict", "loans", "loans.csv", "--out", "scores.csv", "--home", "home")

    # Ray would send usage data to its vendor, query cloud metadata services and listen on every network interface.
    run("predict", "loans", "loans.csv", "--out", "same.csv", "--home", "home", "--engine", "ray")
    assert (work / "same.csv").read_bytes() == (work / "scores.csv").read_bytes()
    assert list(Path("/tmp").glob("rowcast-ray-*")) == []

    run("models", "export", "loans", "--out", "loans.rowcast", "--home", "home")
    run("models", "import", "loans.rowcast", "--name", "copy", "--home", "home")
    graph = "home/models/copy/1/model.onnx"
    run("models", "import", graph, "--name", "graph", "--home", "home")
    run("replay", "--home", "home")

    assert [path for path in user.rglob("*") if path.is_file()] == []


def test_a_server_leaves_no_traces_and_connects_to_no_other_machine(
    user: Path, tmp_path: Path, serving_home: Path
) -> None:
    trace, port = tmp_path / "trace", free_port()
    command = [*TRACE, "-o", str(trace), *ROWCAST, "serve", "--port", str(port), "--home", str(serving_home)]
    process = subprocess.Popen(
        command, cwd=tmp_path, env=settings(user), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        server = servers.Server(process, f"http://127.0.0.1:{port}", tmp_path / "log", serving_home)
        with server.client() as client:
            eventually(lambda: servers.is_ready(client), 60)
            client.post(
                "/models/people/predict", json={"age": 30, "born": "2000-01-31", "weight": 70}
            ).raise_for_status()
            client.post("/models/people/predict", json={"age": "a secret"})
    finally:
        for traced in servers.children(process.pid):
            os.kill(traced, signal.SIGTERM)
        process.wait(30)

    assert remote_addresses(trace) == []
    assert [path for path in user.rglob("*") if path.is_file()] == []
