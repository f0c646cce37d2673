"""Run real `rowcast` processes on free ports during a test."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
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
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""The TLS settings of clients that send plain HTTP. By default, every httpx client loads all root certificates."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment, with all Rowcast settings replaced with `settings`."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("ROWCAST_")}
    return {**others, **settings}


def rowcast_process(
    *arguments: str | Path, cwd: Path, settings: Mapping[str, str] | None = None, seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a `rowcast` command in a new process and wait for it to finish; `commands.rowcast` is faster."""
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
    """Return the IDs of a process's running child processes."""
    listing = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in listing.stdout.split()]


def command_of(pid: int) -> str:
    """Return the command line of a process, or an empty string if the process does not exist or is a zombie."""
    listing = subprocess.run(["ps", "-o", "stat=,args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    state, _, line = listing.stdout.strip().partition(" ")
    return "" if not state or state.startswith("Z") else line


def is_running(pid: int) -> bool:
    """Return whether the process exists and is not a zombie."""
    return bool(command_of(pid))


class Server:
    """A running `rowcast serve` process."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path, home: Path) -> None:
        self.process = process
        self.address = address
        self.log = log
        self.home = home

    @property
    def port(self) -> int:
        return int(httpx.URL(self.address).port or 0)

    def client(self, **options: Any) -> httpx.Client:
        """Return a client that ignores this machine's proxy settings."""
        return httpx.Client(base_url=self.address, timeout=20, trust_env=False, verify=NO_TLS, **options)

    def indexer(self) -> int:
        """Return the process ID of this server's indexer."""
        return eventually(lambda: [pid for pid in children(self.process.pid) if command_of(pid).endswith(" indexer")])[
            0
        ]

    def kill(self) -> None:
        """Kill the server and all its child processes."""
        for pid in [self.process.pid, *children(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, seconds: float = 20) -> int:
        """Send SIGTERM and return the exit status."""
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
    command: str = "serve",
    until: str = "/health/ready",
) -> Server:
    """Start a server or a worker, and wait until it is ready; raise AssertionError if it does not start."""
    log = home / f"{name}.log"
    words = [*ROWCAST, command, "--json", "--port", "0", "--home", str(home), *arguments]
    with logs.open_log(log) as errors:
        process = subprocess.Popen(
            words,
            cwd=home,
            env=environment(**(settings or {})),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    try:
        server = Server(process, _read_address(process, log), log, home)
        with server.client() as client:
            eventually(lambda: process.poll() is not None or is_ready(client, until), seconds)
        assert process.poll() is None, log.read_text()
    except BaseException:
        process.kill()
        process.wait(10)
        raise
    return server


def _read_address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address that a starting server prints."""
    assert process.stdout is not None
    output = b""
    with process.stdout:
        for line in process.stdout:
            output += line
            if line.rstrip() == b"}":
                return str(json.loads(output)["address"])
    process.wait(10)
    raise AssertionError(f"the server printed no address; output: {output!r}; log: {log.read_text()}")


@contextlib.contextmanager
def running_unready(home: Path, *arguments: str, **options: Any) -> Iterator[Server]:
    """Run a server during a `with` block; wait until it is live, but not until it is ready."""
    server = start(home, *arguments, **options, until="/health/live")
    try:
        yield server
    finally:
        server.stop()


def is_ready(client: httpx.Client, path: str = "/health/ready") -> bool:
    """Return whether a server responds and is ready."""
    try:
        return client.get(path).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def run_in(home: Path, command: Sequence[str], settings: Mapping[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server command with its output in HOME/server.log; kill it at the end if it is still running."""
    with logs.open_log(home / "server.log") as log:
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
    """Run a server during a `with` block, then stop it."""
    server = start(home, *arguments, **options)
    try:
        yield server
    finally:
        server.stop()
