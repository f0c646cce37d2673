"""`make bench-redis`: compare cache hits through Redis with cache hits in memory, and measure the effect of Redis
outages.

Each client sends one request after another on its own connection. All rows are already cached, so every reply is a
cache hit while Redis is available. In an outage, Redis is stopped, killed or paused under load: no request may fail,
and the p99 latency may exceed its normal value by at most the Redis timeout.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from machine import LOAD_CORE, Server, running
from requirements import Check, record, show
from rich.console import Console
from serve import BIN, FIRST, make_key, train, write_bodies

from support.redis import RedisServer, serving

PORT = 18215
ROWS = 200
TIMEOUT_MS = 50
MOST_EXTRA_MS = 1.5
OUTAGES: dict[str, tuple[Callable[[RedisServer], None], Callable[[RedisServer], None]]] = {
    "stopped": (RedisServer.stop, RedisServer.start),
    "killed": (RedisServer.kill, RedisServer.start),
    "paused": (RedisServer.pause, RedisServer.resume),
}


@dataclass
class Figures:
    """The replies received during one run of the load generator."""

    latencies: list[float] = field(default_factory=list)
    hits: int = 0
    failed: int = 0

    def percentile(self, percent: int) -> float:
        """Return a percentile of the latencies in milliseconds."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


def main() -> int:
    """Measure, check the requirements and record the figures."""
    options = arguments()
    os.sched_setaffinity(0, {options.load_core})
    console = Console(width=max(118, Console().width))
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as scratch:
        home = Path(scratch)
        console.print("Training the 200-tree model ...")
        bodies, sample = write_bodies(home, train(home))
        rows = [line.replace("\t", str(FIRST)).encode() for line in bodies.read_text().splitlines()[:ROWS]]
        with serving(home) as redis:
            bench = Bench(options, home, make_key(home), rows, sample, redis)
            extra = [bench.extra(connections) for connections in options.connections for _ in range(options.rounds)]
            outages = bench.outages()
    checks = []
    for connections in options.connections:
        group = [each for each in extra if each["connections"] == connections]
        label = f"{connections} connections"
        middle = median(each["extra_ms"] for each in group)
        checks += [
            Check(f"cache hit, p50: Redis - memory, ms, {label}", middle, most=MOST_EXTRA_MS),
            Check(f"share of cache hits, {label}", min(each["hits"] for each in group), least=0.99),
        ]
    for each in outages:
        name = each["outage"]
        checks.append(Check(f"failed requests, Redis {name}", each["failed"], most=0))
        checks.append(
            Check(f"p99, Redis {name}, ms", each["p99_ms"], most=round(TIMEOUT_MS + each["normal_p99_ms"], 1))
        )
    show(console, checks)
    kept = all(check.kept for check in checks)
    if not options.no_record:
        record(
            "redis",
            seconds=options.seconds,
            outage_seconds=options.outage,
            hits=extra,
            outages=outages,
            checks={check.name: round(check.value, 3) for check in checks},
            kept=kept,
        )
    return 0 if kept else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="duration of one load")
    parser.add_argument("--outage", type=float, default=10.0, help="duration of an outage in seconds")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--load-core", type=int, default=LOAD_CORE, help="core of the clients and of Redis")
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    return parser.parse_args()


class Bench:
    """The servers and the load of one benchmark run."""

    def __init__(
        self, options: argparse.Namespace, home: Path, key: str, rows: list[bytes], sample: bytes, redis: RedisServer
    ) -> None:
        self._options = options
        self._home = home
        self._key = key
        self._rows = rows
        self._sample = sample
        self._redis = redis

    def server(self, cache: str) -> Server:
        """Return a server with this cache, without starting it."""
        env = {
            "ROWCAST_HOME": str(self._home / "home"),
            "ROWCAST_CACHE": cache,
            "ROWCAST_REDIS_TIMEOUT_MS": str(TIMEOUT_MS),
        }
        command = [str(BIN / "rowcast"), "serve", "--port", str(PORT)]
        return Server(cache, command, PORT, "/predict", env, self._home / "servers.log", self._key)

    def load(self, connections: int, seconds: float) -> Figures:
        """Send requests on several connections."""
        figures = Figures()
        asyncio.run(self._ask_on_all(figures, connections, time.perf_counter() + seconds))
        return figures

    def extra(self, connections: int) -> dict[str, Any]:
        """Compare the latency of cache hits in memory and in Redis."""
        middle, hits = {}, {}
        for name, cache in (("memory", "memory"), ("redis", self._redis.url)):
            server = self.server(cache)
            with running(server, self._sample):
                for row in self._rows:
                    server.ask(row)
                figures = self.load(connections, self._options.seconds)
            middle[name] = figures.percentile(50)
            hits[name] = figures.hits / len(figures.latencies)
        return {
            "connections": connections,
            "memory_p50_ms": round(middle["memory"], 3),
            "redis_p50_ms": round(middle["redis"], 3),
            "extra_ms": round(middle["redis"] - middle["memory"], 3),
            "hits": round(min(hits.values()), 4),
        }

    def outages(self) -> list[dict[str, Any]]:
        """Measure the latency in normal operation and during each outage."""
        results = []
        with running(self.server(self._redis.url), self._sample):
            for name, (begin, end) in OUTAGES.items():
                self.load(8, self._options.seconds)
                normal = self.load(8, self._options.seconds)
                timer = threading.Timer(self._options.outage / 20, begin, (self._redis,))
                timer.start()
                away = self.load(8, self._options.outage)
                timer.join()
                end(self._redis)
                back = self._until_hit()
                results.append(
                    {
                        "outage": name,
                        "requests": len(away.latencies),
                        "failed": normal.failed + away.failed,
                        "hits": away.hits,
                        "p99_ms": round(away.percentile(99), 2),
                        "normal_p99_ms": round(normal.percentile(99), 2),
                        "longest_ms": round(away.percentile(100), 2),
                        "back_seconds": round(back, 2),
                    }
                )
        return results

    def _until_hit(self) -> float:
        """Send requests until a reply is a cache hit; return the elapsed seconds."""
        began = time.perf_counter()
        while not self.load(1, 0.05).hits:
            if time.perf_counter() - began > 30:
                raise SystemExit("the server did not resume using Redis")
        return time.perf_counter() - began

    async def _ask_on_all(self, figures: Figures, connections: int, end: float) -> None:
        await asyncio.gather(*[self._ask(figures, number, end) for number in range(connections)])

    async def _ask(self, figures: Figures, number: int, end: float) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\nx-api-key: {self._key}\r\n"
        requests = [f"{head}content-length: {len(row)}\r\n\r\n".encode() + row for row in self._rows]
        while time.perf_counter() < end:
            number += 1
            began = time.perf_counter()
            writer.write(requests[number % len(requests)])
            reply = await reader.readuntil(b"\r\n\r\n")
            length = int(reply.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            figures.latencies.append(time.perf_counter() - began)
            figures.failed += not reply.startswith(b"HTTP/1.1 200")
            figures.hits += b"x-cache: hit" in reply
        writer.close()


if __name__ == "__main__":
    sys.exit(main())
