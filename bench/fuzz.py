"""`make fuzz`: test a server with invalid requests, decompression bombs, slow senders and idle connections.

The throughput of a normal client is measured without other load, then with idle connections and with slow senders; it
must not fall by more than half. No test may cause a 5xx response, terminate the server or leak memory; 505 is allowed,
because it is the correct response to an unknown HTTP version. The figures are appended to results.jsonl.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import resource
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Self

from machine import Server, running
from requirements import record
from serve import BIN, FIRST, make_key, train, write_bodies

PORT = 18205
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"
SPLICES = (b"\x00", b"\xff\xfe", b"{", b"[" * 200, b"1e999", b"NaN", b'"rows":[', b"\r\n", b"-", b'"' * 3, b"\\ud800")


def main() -> int:
    """Run all tests; return 1 if a requirement is not met."""
    options = arguments()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, options.idle + 2000)), hard))
    with tempfile.TemporaryDirectory(prefix="rowcast-fuzz-") as scratch, ExitStack() as stack:
        home = Path(scratch)
        bundle = train(home)
        bodies, sample = write_bodies(home, bundle)
        key = make_key(home)
        env = {"ROWCAST_HOME": str(home / "home"), "ROWCAST_RECEIVE_SECONDS": "5"}
        log = home / "log"
        server = Server(
            "rowcast", [str(BIN / "rowcast"), "serve", "--port", str(PORT)], PORT, "/predict", env, log, key
        )
        stack.enter_context(running(server, sample))
        rows = [line.replace("\t", str(FIRST)).encode() for line in bodies.read_text().splitlines()]
        figures = measure(server, rows, options)
    broken = unmet_requirements(figures)
    figures["kept"] = not broken
    print(json.dumps(figures, indent=1))
    for requirement in broken:
        print(f"requirement not met: {requirement}", file=sys.stderr)
    if not options.no_record:
        record("fuzz", **figures)
    return 1 if broken else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=200_000)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--slow", type=int, default=500)
    parser.add_argument("--bombs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    return parser.parse_args()


def measure(server: Server, rows: list[bytes], options: argparse.Namespace) -> dict[str, Any]:
    """Run all tests and return the figures."""
    for _ in range(3):
        normal_speed(server, rows, 1.0)  # warm up
    alone = normal_speed(server, rows, 3.0)
    before = server.memory()
    figures: dict[str, Any] = {"alone_rps": round(alone)}
    statuses = asyncio.run(send_mutated(server.key, rows, options.requests, random.Random(options.seed)))
    figures["mutated"] = {"sent": options.requests, "statuses": dict(sorted(statuses.items()))}
    with Crowd(lambda: idle(options.idle)) as crowd:
        figures["idle"] = {"open": crowd.size, "share": round(normal_speed(server, rows, 3.0) / alone, 3)}
    with Crowd(lambda: idle(options.slow), trickle=True) as crowd:
        figures["slow"] = {"open": crowd.size, "share": round(normal_speed(server, rows, 3.0) / alone, 3)}
    bomb = gzip.compress(b" " * 200_000_000)
    answers = Counter(post(server.key, bomb, b"Content-Encoding: gzip\r\n") for _ in range(options.bombs))
    figures["bombs"] = {"bytes": len(bomb), "statuses": dict(answers)}
    figures["after_rps"] = round(normal_speed(server, rows, 3.0))
    figures["memory_mb"] = {"before": round(before, 1), "after": round(server.memory(), 1)}
    figures["alive"] = server.answers(rows[0])
    return figures


def unmet_requirements(figures: dict[str, Any]) -> list[str]:
    """Return the requirements that are not met."""
    statuses = {int(code) for part in ("mutated", "bombs") for code in figures[part]["statuses"]}
    requirements = {
        "no 5xx response except 505": not any(code >= 500 and code != 505 for code in statuses),
        "bombs are rejected with 413": set(figures["bombs"]["statuses"]) <= {413},
        "a client keeps at least half its throughput with idle connections open": figures["idle"]["share"] >= 0.5,
        "a client keeps at least half its throughput with slow senders connected": figures["slow"]["share"] >= 0.5,
        "memory grows by less than 60 MB": figures["memory_mb"]["after"] - figures["memory_mb"]["before"] < 60,
        "the server still responds": figures["alive"],
    }
    return [name for name, held in requirements.items() if not held]


def request(key: str, body: bytes, extra: bytes = b"") -> bytes:
    """Return a complete request."""
    return HEAD + b"x-api-key: %s\r\n%sContent-Length: %d\r\n\r\n%s" % (key.encode(), extra, len(body), body)


def normal_speed(server: Server, rows: list[bytes], seconds: float) -> float:
    """Return the requests per second of one client on one connection; every status must be 200."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=30) as connection:
        stream = connection.makefile("rb")
        began, count = time.perf_counter(), 0
        while (now := time.perf_counter()) < began + seconds:
            connection.sendall(request(server.key, rows[count % len(rows)]))
            if (status := read_reply(stream)) != 200:
                raise SystemExit(f"a request from the normal client returned {status}")
            count += 1
        return count / (now - began)


def read_reply(stream: Any) -> int:
    """Read one reply and return its status, or 0 if the server closed the connection."""
    line = stream.readline()
    if not line:
        return 0
    length = 0
    while (header := stream.readline().strip()) != b"":
        if header.lower().startswith(b"content-length:"):
            length = int(header.partition(b":")[2])
    stream.read(length)
    return int(line.split()[1])


def post(key: str, body: bytes, extra: bytes) -> int:
    """Send one request on a new connection and return the status."""
    with socket.create_connection(("127.0.0.1", PORT), timeout=60) as connection:
        connection.sendall(request(key, body, extra))
        return read_reply(connection.makefile("rb"))


def mutate(row: bytes, rng: random.Random) -> bytes:
    """Return the row with up to four random mutations."""
    body = bytearray(row)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(body) + 1)
        how = rng.randrange(4)
        if how == 0 and body:
            body[place % len(body)] = rng.randrange(256)
        elif how == 1:
            body[place:place] = rng.choice(SPLICES)
        elif how == 2:
            del body[place : place + rng.randint(1, 40)]
        else:
            body += body[: rng.randint(0, 60)]
    return bytes(body)


async def send_mutated(key: str, rows: list[bytes], count: int, rng: random.Random) -> Counter[int]:
    """Send mutated requests over 16 connections and count the statuses; 2% of the requests also have mutated headers.

    Status 0 means that no reply arrived: the server is waiting for the rest of a body, or has closed the connection.
    """
    statuses: Counter[int] = Counter()

    async def send(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        for _ in range(share):
            whole = request(key, mutate(rng.choice(rows), rng))
            if rng.random() < 0.02:
                head, end, body = whole.partition(b"\r\n\r\n")
                whole = mutate(head, rng) + end + body
            writer.write(whole)
            status, ends = 0, True
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                status, ends = await asyncio.wait_for(answer(reader), 0.3)
            statuses[status] += 1
            if ends:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
        writer.close()

    await asyncio.gather(*(send(count // 16) for _ in range(16)))
    return statuses


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Read one reply; return its status, and whether the server will close the connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next((int(line.partition(b":")[2]) for line in lines if line.startswith(b"content-length:")), 0)
    await reader.readexactly(length)
    return int(head.split()[1]), b"connection: close" in lines


def idle(count: int) -> list[socket.socket]:
    """Open connections without sending anything."""
    return [socket.create_connection(("127.0.0.1", PORT), timeout=30) for _ in range(count)]


class Crowd:
    """Keeps connections open during a `with` block. If `trickle` is true, each connection sends a request byte by
    byte."""

    def __init__(self, enter: Callable[[], list[socket.socket]], *, trickle: bool = False) -> None:
        self._enter = enter
        self._trickle = trickle
        self._over = threading.Event()

    def __enter__(self) -> Self:
        self._sockets = self._enter()
        self.size = len(self._sockets)
        if self._trickle:
            threading.Thread(target=self._send, daemon=True).start()
        return self

    def __exit__(self, *failure: object) -> None:
        self._over.set()
        for connection in self._sockets:
            connection.close()

    def _send(self) -> None:
        text = HEAD + b"Content-Length: 1000000\r\n\r\n" + b" " * 1000
        for byte in text:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.send(bytes([byte]))
            if self._over.wait(0.2):
                return


if __name__ == "__main__":
    sys.exit(main())
