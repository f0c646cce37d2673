"""Real `rowcast` processes: started on a free port, asked over real sockets, and gone when the test is."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from support import logs
from support.waiting import eventually

PYTHON = [sys.executable]
ROWCAST = [*PYTHON, "-m", "rowcast.cli"]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without any Rowcast setting but those given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ROWCAST_")}
    return {**kept, **settings}


def rowcast(
    *arguments: str | Path, cwd: Path, settings: Mapping[str, str] | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """One command, run to its end."""
    return subprocess.run(
        [*ROWCAST, *map(str, arguments)],
        cwd=cwd,
        env=environment(**(settings or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def children(pid: int) -> list[int]:
    """The processes that this one started and that still run."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


def command_of(pid: int) -> str:
    """A process's command line; empty when there is no such process, or only its shell of a zombie."""
    found = subprocess.run(["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, line = found.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else line


def is_running(pid: int) -> bool:
    """Whether the process is there and is no zombie."""
    return bool(command_of(pid))


class Server:
    """One `rowcast serve`."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path, home: Path) -> None:
        self.process = process
        self.address = address
        self.log = log
        self.home = home

    @property
    def port(self) -> int:
        return int(httpx.URL(self.address).port or 0)

    def client(self, **options: Any) -> httpx.Client:
        """A client that trusts no proxy of this machine."""
        return httpx.Client(base_url=self.address, timeout=20, trust_env=False, **options)

    def indexer(self) -> int:
        """The process id of the indexer that this server started."""
        return eventually(lambda: [pid for pid in children(self.process.pid) if command_of(pid).endswith(" indexer")])[
            0
        ]

    def kill(self) -> None:
        """kill -9 of the server and whatever it started, in one go."""
        for pid in [self.process.pid, *children(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM, and the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        finally:
            if self.process.poll() is None:
                self.kill()


def start(
    home: Path,
    *arguments: str,
    settings: Mapping[str, str] | None = None,
    name: str = "server",
    seconds: float = 20,
) -> Server:
    """A server that is ready; AssertionError with its log when it does not become so."""
    log = home / f"{name}.log"
    started = [*ROWCAST, "serve", "--json", "--port", "0", "--home", str(home), *arguments]
    with logs.opened(log) as errors:
        process = subprocess.Popen(
            started,
            cwd=home,
            env=environment(**(settings or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        server = Server(process, _announced(process, log), log, home)
        with server.client() as client:
            eventually(lambda: process.poll() is not None or is_ready(client), seconds)
        assert process.poll() is None, log.read_text()
    except BaseException:
        process.kill()
        process.wait(10)
        raise
    return server


def _announced(process: subprocess.Popen[bytes], log: Path) -> str:
    """The address that a starting server prints."""
    assert process.stdout is not None
    said = b""
    with process.stdout:
        for line in process.stdout:
            said += line
            if line.rstrip() == b"}":
                return str(json.loads(said)["address"])
    process.wait(10)
    raise AssertionError(f"the server said {said!r} and {log.read_text()}")


def is_ready(client: httpx.Client) -> bool:
    """Whether somebody answers and has a model."""
    try:
        return client.get("/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def run_in(home: Path, command: Sequence[str], settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Some other server process, with its output in HOME/server.log; killed at the end if it still runs."""
    with logs.opened(home / "server.log") as log:
        process = subprocess.Popen(
            command, cwd=home, env=environment(**settings), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def running(home: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """A server for the length of a block, then stopped in order."""
    server = start(home, *arguments, **options)
    try:
        yield server
    finally:
        server.stop()
