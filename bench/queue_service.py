"""`make bench-queue`: compare predictions through the queue with direct predictions, and with a baseline that queues
single rows in a Redis list.

The process that answers requests runs on one core; Redis, the worker and wrk share the other core. The baseline
(`list_queue.py`) sends one row per message. In each round, the three services are started and measured one after
another. Rowcast requires an API key with a quota and records every prediction; the baseline records nothing.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from machine import HERE, LOAD_CORE, Server, load, resident, running
from requirements import Check, record, show
from rich.console import Console
from serve import BIN, FIRST, make_key, train, write_bodies

from support.redis import RedisServer, serving

PORT, WORKER_PORT, LIST_PORT, DIRECT_PORT = 18221, 18222, 18223, 18224
LEAST_FASTER, MOST_SLOWER = 5.0, 4.0
MOST_MEMORY_MB, MOST_START = 75.0, 0.7


class Service:
    """One of the compared services: an API and, unless it is the direct server, its worker."""

    def __init__(self, server: Server, worker: list[str], env: dict[str, str], log: Path) -> None:
        self.server = server
        self._worker = worker
        self._env = env
        self._log = log

    @contextmanager
    def running(self, sample: bytes) -> Iterator[float]:
        """Run the worker and the API during a `with` block; yield the seconds until the API's first response."""
        process = None
        if self._worker:
            with self._log.open("ab") as log:
                process = subprocess.Popen(
                    ["taskset", "-c", str(LOAD_CORE), *self._worker],
                    env={**os.environ, **self._env},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
        try:
            self._await_worker()
            with running(self.server, sample) as seconds:
                yield seconds
        finally:
            if process is not None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _await_worker(self) -> None:
        """Wait for Rowcast's worker, so that its startup time is not counted as part of the API's."""
        end = time.monotonic() + 60
        while self.server.name == "queue":
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{WORKER_PORT}/health/ready", timeout=5):
                    return
            except OSError:
                if time.monotonic() > end:
                    raise SystemExit(f"the worker does not start; its log:\n{self._log.read_text()[-4000:]}") from None
                time.sleep(0.05)


def main() -> int:
    """Measure, check the requirements and record the figures."""
    options = arguments()
    console = Console(width=max(118, Console().width))
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as scratch:
        home = Path(scratch)
        console.print("Training the 200-tree model ...")
        bundle = train(home)
        bodies, sample = write_bodies(home, bundle)
        key = make_key(home)
        with serving(home) as redis:
            os.sched_setaffinity(redis._process.pid, {LOAD_CORE})  # type: ignore[union-attr]
            rounds = [
                measure_round(services(home, bundle, key, redis), options, bodies, sample, console)
                for _ in range(options.rounds)
            ]
    checks = check_requirements(rounds, options.connections)
    show(console, checks)
    kept = all(check.kept for check in checks)
    if not options.no_record:
        record(
            "queue",
            seconds=options.seconds,
            rounds=rounds,
            checks={check.name: round(check.value, 3) for check in checks},
            kept=kept,
        )
    return 0 if kept else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of one run of wrk")
    parser.add_argument("--connections", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    return parser.parse_args()


def services(home: Path, bundle: Path, key: str, redis: RedisServer) -> list[Service]:
    """Return the direct server, the queue and the baseline, without starting them."""
    log = home / "servers.log"
    own = {"ROWCAST_HOME": str(home / "home")}
    queued = {**own, "ROWCAST_QUEUE": redis.url}
    listed = {"BUNDLE": str(bundle), "REDIS": redis.url.removesuffix("0") + "1"}
    rowcast = str(BIN / "rowcast")
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--loop", "uvloop", "--http", "httptools"]
    uvicorn += ["--no-access-log", "--no-server-header", "--no-proxy-headers", "--log-level", "warning", "--port"]

    def server(name: str, command: list[str], port: int, env: dict[str, str], key: str = "") -> Server:
        return Server(name, [*command, str(port)], port, "/predict", env, log, key)

    worker = [rowcast, "worker", "--port", str(WORKER_PORT)]
    return [
        Service(server("direct", [rowcast, "serve", "--port"], DIRECT_PORT, own, key), [], {}, log),
        Service(server("queue", [rowcast, "serve", "--port"], PORT, queued, key), worker, queued, log),
        Service(
            server("list", [*uvicorn[:-1], "list_queue:app", "--port"], LIST_PORT, listed),
            [sys.executable, str(HERE / "list_queue.py")],
            listed,
            log,
        ),
    ]


def measure_round(
    compared: list[Service], options: argparse.Namespace, bodies: Path, sample: bytes, console: Console
) -> dict[str, Any]:
    """Measure every service at each number of connections."""
    figures: dict[str, Any] = {}
    fresh = FIRST
    for service in compared:
        name = service.server.name
        with service.running(sample) as start:
            fresh += load(service.server, 32, 1, bodies, fresh).answered
            figures[f"{name} start"] = round(start, 3)
            for connections in options.connections:
                run = load(service.server, connections, options.seconds, bodies, fresh)
                if run.failed or not run.answered:
                    raise SystemExit(f"{name} at c{connections}: {run.failed} of {run.answered} requests failed")
                fresh = FIRST + (fresh + run.answered - FIRST) % 800_000
                figures[f"{name} c{connections}"] = {
                    "rps": round(run.answered / run.seconds),
                    "p50_ms": round(run.p50_ms, 3),
                    "p99_ms": round(run.p99_ms, 3),
                }
                console.print(f"{name:7} c{connections:<4} {figures[f'{name} c{connections}']}")
            figures[f"{name} memory_mb"] = round(resident(service.server.pid), 1)
    return figures


def check_requirements(rounds: list[dict[str, Any]], connections: list[int]) -> list[Check]:
    """Return the check for each requirement on the queue; each ratio is computed within one round."""
    checks = []
    for count in connections:
        faster = median(each[f"queue c{count}"]["rps"] / each[f"list c{count}"]["rps"] for each in rounds)
        slower = median(each[f"queue c{count}"]["p50_ms"] / each[f"direct c{count}"]["p50_ms"] for each in rounds)
        label = f"{count} connections"
        checks += [
            Check(f"requests/s: queue / list of single rows, {label}", faster, least=LEAST_FASTER),
            Check(f"p50: queue / direct, {label}", slower, most=MOST_SLOWER),
            Check(f"requests/s: queue, {label}", median(each[f"queue c{count}"]["rps"] for each in rounds)),
            Check(f"requests/s: direct, {label}", median(each[f"direct c{count}"]["rps"] for each in rounds)),
            Check(
                f"requests/s: list of single rows, {label}", median(each[f"list c{count}"]["rps"] for each in rounds)
            ),
        ]
    start = median(each["queue start"] / each["direct start"] for each in rounds)
    memory = median(each["queue memory_mb"] for each in rounds)
    checks.append(Check("startup time of a server: queue / direct", start, most=MOST_START))
    checks.append(Check("memory of a server with a queue, MB", memory, most=MOST_MEMORY_MB))
    return checks


if __name__ == "__main__":
    sys.exit(main())
