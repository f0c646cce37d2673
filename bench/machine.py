"""Tools to measure server processes: start them on a core, read their CPU time and memory, and generate load."""

from __future__ import annotations

import copy
import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVER_CORE, LOAD_CORE = 0, 1
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Load:
    """The result of one run of wrk."""

    answered: int
    seconds: float
    p50_ms: float
    p99_ms: float
    failed: int
    cpu: float
    """CPU seconds used by wrk itself."""


class Server:
    """A server process with its descendants, on one core."""

    def __init__(
        self, name: str, command: list[str], port: int, path: str, env: dict[str, str], log: Path, key: str = ""
    ) -> None:
        self.name = name
        self.key = key
        self.url = f"http://127.0.0.1:{port}{path}"
        self.port = port
        self._command = command
        self._env = env
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.pid = 0

    def at(self, name: str, path: str) -> Server:
        """Return the same running server under another name, with another path for the load generator."""
        other = copy.copy(self)
        other.name, other.url = name, f"http://127.0.0.1:{self.port}{path}"
        return other

    def start(self, body: bytes) -> float:
        """Start the server, wait until it responds and return the elapsed seconds."""
        began = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["taskset", "-c", str(SERVER_CORE), *self._command],
                env={**os.environ, "ORT_DISABLE_TELEMETRY": "1", **self._env},
                cwd=HERE.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self.answers(body):
            if self._process.poll() is not None or time.perf_counter() - began > 60:
                self.stop()
                raise SystemExit(f"{self.name} does not respond; its log:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.002)
        seconds = time.perf_counter() - began
        self.pid = self._listening_process()
        return seconds

    def answers(self, body: bytes) -> bool:
        """Return whether the server responds to this body with status 200."""
        try:
            return len(self.ask(body)) > 0
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise SystemExit(f"{self.name} returned {error.code}: {error.read()[:2000]!r}") from None
            return False
        except OSError:
            return False

    def ask(self, body: bytes | None, path: str | None = None) -> bytes:
        """Send one request and return the reply."""
        url = self.url if path is None else f"http://127.0.0.1:{self.port}{path}"
        headers = {"content-type": "application/json", **({"x-api-key": self.key} if self.key else {})}
        request = urllib.request.Request(url, body, headers)
        with urllib.request.urlopen(request, timeout=10) as reply:
            answer: bytes = reply.read()
            return answer

    def stop(self) -> None:
        """Stop the server with SIGTERM, then kill any remaining processes."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def tree(self) -> list[int]:
        """Return the process ids of the server and all of its descendants."""
        assert self._process is not None
        return process_tree(self._process.pid)

    def cpu(self) -> tuple[float, float]:
        """Return the CPU seconds used so far by the listening process and by the server's other processes."""
        beside = sum(cpu_seconds(pid) for pid in self.tree() if pid != self.pid)
        return cpu_seconds(self.pid), beside

    def clear_core(self) -> None:
        """Move this server's other processes to the load generator's core."""
        for pid in self.tree():
            if pid != self.pid:
                with suppress(ProcessLookupError):
                    os.sched_setaffinity(pid, {LOAD_CORE})

    def memory(self) -> float:
        """Return the resident memory of the listening process in megabytes."""
        return resident(self.pid)

    def settle(self, limit: float = 60.0) -> None:
        """Wait until all of the server's processes, including the indexer, are idle."""
        deadline = time.monotonic() + limit
        calm = 0
        before = sum(self.cpu())
        while calm < 3 and time.monotonic() < deadline:
            time.sleep(0.15)
            now = sum(self.cpu())
            calm = calm + 1 if now - before <= 1.5 / TICKS else 0
            before = now

    def _listening_process(self) -> int:
        """Return the listening process, or the process with the most CPU time if several processes hold the socket."""
        inodes = _listening(self.port)
        holders = [pid for pid in self.tree() if inodes & set(_sockets(pid))]
        return max(holders or self.tree(), key=cpu_seconds)


def process_tree(root: int) -> list[int]:
    """Return the ids of a process and all of its descendants."""
    children: dict[int, list[int]] = {}
    for pid in (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()):
        with suppress(OSError, ValueError):
            children.setdefault(int(_stat(pid)[1]), []).append(pid)
    tree, new = [], [root]
    while new:
        tree += new
        new = [child for parent in new for child in children.get(parent, [])]
    return tree


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat that follow the process name: state, parent process id and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds used by all threads of a process, including finished threads; the resolution is 10 ms."""
    try:
        fields = _stat(pid)
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident(pid: int) -> float:
    """Return the resident memory of a process in megabytes, including shared pages, or 0 if the process has exited."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


def busy_seconds() -> float:
    """Return the CPU seconds used so far by the whole machine."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    idle = fields[3] + fields[4]
    return (sum(fields[:8]) - idle) / TICKS


def _listening(port: int) -> set[str]:
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = (line.split() for line in lines)
    return {row[9] for row in rows if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port}


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    yield target[8:-1]


def load(server: Server, connections: int, seconds: float, bodies: Path, first: int) -> Load:
    """Run wrk on a separate core; every request has a different body."""
    before = os.times()
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(HERE / "unique.lua"), server.url]
    finished = subprocess.run(
        ["taskset", "-c", str(LOAD_CORE), *wrk],
        env={**os.environ, "BENCH_BODIES": str(bodies), "BENCH_FIRST": str(first), "BENCH_KEY": server.key},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds + 60,
    )
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    return Load(**json.loads(finished.stdout.strip().splitlines()[-1]), cpu=cpu)


@contextmanager
def running(server: Server, body: bytes) -> Iterator[float]:
    """Run a server during a `with` block; yield the seconds until its first response."""
    try:
        yield server.start(body)
    finally:
        server.stop()
