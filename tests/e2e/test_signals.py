"""Signals that stop a server while it is loading, when it becomes ready, and when it is a container's first process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.schema.schema import Column, Schema
from support import models, servers
from support.commands import rowcast
from support.servers import PYTHON, ROWCAST, environment, free_port
from support.waiting import eventually


@pytest.fixture(autouse=True)
def _handled_hangups() -> Iterator[None]:
    """Let child processes handle SIGHUP, even if the tests run under `nohup`, which makes them ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with one small model."""
    schema = Schema(tuple(Column(name=name, kind="number", example=1.0) for name in ("a", "b")))
    models.publish(FolderRegistry(tmp_path / "models"), "sum", models.sum_graph(2), schema, models.REGRESSION, "values")
    return tmp_path


def handled_signals(pid: int) -> set[int]:
    """Return the signals for which a process has a handler. The kernel ignores all other signals to process 1."""
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt:")]
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}


@contextlib.contextmanager
def starting(home: Path, *arguments: str, prefix: Sequence[str] = ()) -> Iterator[subprocess.Popen[bytes]]:
    """Run `rowcast serve` with its standard error in a pipe; kill it at the end of the block if it is still running."""
    port = free_port()
    command = [*prefix, *ROWCAST, "serve", "--port", str(port), "--home", str(home), *arguments]
    process = subprocess.Popen(command, cwd=home, env=environment(), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        assert process.stderr is not None
        process.stderr.close()
        if process.poll() is None:
            process.kill()
        process.wait(10)


@contextlib.contextmanager
def blocked_load(home: Path) -> Iterator[None]:
    """Hold a lock that a server needs before it can load its models."""
    (home / "run").mkdir(mode=0o700)
    with (home / "run" / ".lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_listening(pid: int) -> bool:
    """Return whether a process has a listening TCP socket."""
    links = [str(path.readlink()) for path in Path(f"/proc/{pid}/fd").iterdir() if path.is_symlink()]
    inodes = {link.removeprefix("socket:[").removesuffix("]") for link in links if link.startswith("socket:")}
    rows = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "0A" and row[9] in inodes for row in rows)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_a_server_that_is_still_loading(home: Path, number: signal.Signals) -> None:
    with blocked_load(home), starting(home) as process:
        eventually(lambda: is_listening(process.pid))

        process.send_signal(number)

        assert process.wait(10) == 128 + number


def test_a_loading_server_handles_signals_even_as_the_first_process_of_a_container(home: Path) -> None:
    with blocked_load(home), starting(home) as process:
        eventually(lambda: is_listening(process.pid))

        assert {signal.SIGTERM, signal.SIGHUP} <= handled_signals(process.pid)


def test_sigterm_stops_a_command_that_is_the_first_process_of_a_container(tmp_path: Path) -> None:
    row = tmp_path / "row"
    os.mkfifo(row)  # the command waits until the test writes a row
    first_process = "import os; os.getpid = lambda: 1; from rowcast import cli; cli.main()"
    command = [*PYTHON, "-c", first_process, "call", f"@{row}", "--home", str(tmp_path)]
    with (
        subprocess.Popen(command, cwd=tmp_path, env=environment(), stdin=subprocess.DEVNULL) as process,
        row.open("w"),  # opening blocks until the command reads
    ):
        assert signal.SIGTERM in handled_signals(process.pid)

        process.terminate()

        assert process.wait(10) == 128 + signal.SIGTERM


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_signal_sent_as_soon_as_the_server_announces_its_address_stops_the_server(home: Path, processes: str) -> None:
    with starting(home, "--workers", processes) as process:
        assert process.stderr is not None
        line = next(line for line in process.stderr if line.startswith(b"serving"))

        process.send_signal(signal.SIGTERM)

        assert line
        assert process.wait(20) == 0


@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_hangup_drains_the_server(home: Path, processes: str) -> None:
    server = servers.start(home, "--workers", processes)
    body = b'{"a":1,"b":2}'
    head = b"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    with server.client() as client, socket.create_connection(("127.0.0.1", server.port), timeout=10) as late:
        late.sendall(head % len(body) + body[:5])
        assert client.post("/predict", json={"a": 1, "b": 2}).status_code == 200
        eventually(lambda: client.get("/predictions").json()["predictions"])  # until the indexer is running

        server.process.send_signal(signal.SIGHUP)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not is_listening(server.process.pid))
        late.sendall(body[5:])

        received = b"".join(iter(lambda: late.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 200 OK")
    assert server.process.wait(20) == 0
    assert entry_count(home) == 2


def test_a_server_drains_when_its_terminal_closes(home: Path) -> None:
    port = free_port()
    terminal, end = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *ROWCAST, "serve", "--port", str(port), "--home", str(home)],
        cwd=home,
        env=environment(),
        stdin=end,
        stdout=end,
        stderr=end,
    )
    try:
        os.close(end)
        output = b""
        while b"serving" not in output:
            output += os.read(terminal, 4096)

        os.close(terminal)

        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)
    assert list((home / "journal").glob("*.journal")) == []
    assert [path.name for path in (home / "run").iterdir() if path.is_dir()] == []


def test_a_server_that_ignores_hangups_keeps_running(home: Path) -> None:
    with starting(home, prefix=["nohup"]) as process:
        assert process.stderr is not None
        assert next(line for line in process.stderr if line.startswith(b"serving"))

        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)

        assert process.wait(20) == 0


def entry_count(home: Path) -> int:
    listing = rowcast("history", "list", "--json", "--home", home, cwd=home).stdout
    return len(json.loads(listing)["predictions"])
