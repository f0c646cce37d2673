"""`make bench-dialects`: send the same 1,000-row requests as native JSON and as binary V2 tensors, and compare the
costs.

The server runs on one core; its indexer and the load generator run on the other. In each round, the two forms are
measured one after the other and compared. By default, the model is linear, so that the cost of the dialects dominates.
With `--trees`, the server uses the 200-tree model from `make bench-serve`, which takes 4 µs per row in either form. The
two forms must return the same scores. The benchmark fails if a requirement is not met.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import socket
import struct
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import requirements
from machine import LOAD_CORE, Server, busy_seconds, running
from requirements import Check
from rich.console import Console
from serve import BIN, cell, history, make_key, rowcast, train

PORT = 18206
ROWS, BATCHES, CONNECTIONS = 1000, 5, 2
NATIVE, BINARY = "native JSON", "V2 binary"
LEAST = 5.0
LEAST_TREES = 1.8
"""The required ratio with `--trees`. It is lower because tree evaluation takes two thirds of the time for V2 rows."""


class Measure(NamedTuple):
    """The figures for one form in one round."""

    round: int
    form: str
    rows_per_second: float
    cpu_us: float
    """CPU time of the server process per row."""
    beside_us: float
    """CPU time of the indexer per row."""
    others: float
    """The number of cores used by everything else on the machine."""


def main() -> int:
    """Prepare, measure, check the requirements and record the figures."""
    options = arguments()
    console = Console(width=110)
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as scratch:
        home = Path(scratch)
        bundle = train(home) if options.trees else linear(home)
        batches = read_rows(home, bundle)
        key = make_key(home)
        requests = {
            NATIVE: [native(key, rows) for rows in batches],
            BINARY: [binary(key, rows) for rows in batches],
        }
        log = home / "log"
        env = {"ROWCAST_HOME": str(home / "home")}
        command = [str(BIN / "rowcast"), "serve", "--port", str(PORT)]
        server = Server("rowcast", command, PORT, "/predict", env, log, key)
        with running(server, json.dumps(batches[0][0]).encode()):
            compare(requests)
            measures = measure_rounds(server, requests, options, console)
        report = history(home)
    answered = sum(rows for _, rows in COUNTED)
    checks = check_requirements(measures, report, answered, LEAST_TREES if options.trees else LEAST)
    requirements.show(console, checks)
    if not options.no_record:
        record(options, measures, checks)
    return 0 if all(check.kept for check in checks) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--trees", action="store_true", help="200 trees instead of a linear model")
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    return parser.parse_args()


def linear(home: Path) -> Path:
    """Train a logistic regression on the loan example and return the bundle's folder."""
    table = home / "loans.csv"
    rowcast(home, "example", "loans", "--out", str(table))
    words = ["train", str(table), "--target", "loan_status", "--name", "loans", "--candidates", "logistic"]
    rowcast(home, *words, "--trials", "1")
    return home / "home" / "models" / "loans" / "1"


def read_rows(home: Path, bundle: Path) -> list[list[dict[str, Any]]]:
    """Return batches of the table's rows, as a client would send them."""
    schema = json.loads((bundle / "bundle.json").read_text())["schema"]["columns"]
    kinds = {column["name"]: column["kind"] for column in schema}
    with (home / "loans.csv").open(newline="") as table:
        read = csv.DictReader(table)
        rows = [
            {name: cell(row[name], kind) for name, kind in kinds.items()}
            for row, _ in zip(read, range(ROWS * BATCHES), strict=False)
        ]
    for row in rows:  # in both forms of request, this column is a boolean
        row["self_employed"] = row["self_employed"] == "Yes"
    return [rows[start : start + ROWS] for start in range(0, len(rows), ROWS)]


def request(key: str, path: str, body: bytes, headers: bytes) -> bytes:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nx-api-key: %b\r\n%bContent-Length: %d\r\n\r\n"
    return head % (path.encode(), key.encode(), headers, len(body)) + body


def native(key: str, rows: list[dict[str, Any]]) -> bytes:
    """Return a batch request in the native dialect."""
    body = json.dumps({"rows": rows}, separators=(",", ":")).encode()
    return request(key, "/predict", body, b"Content-Type: application/json\r\n")


def binary(key: str, rows: list[dict[str, Any]]) -> bytes:
    """Return the request that `tritonclient` sends for these rows, with binary inputs and outputs."""
    inputs, tail = [], b""
    for name in rows[0]:
        cells = [row[name] for row in rows]
        if isinstance(cells[0], str):
            kind, raw = "BYTES", b"".join(struct.pack("<I", len(text)) + text for text in map(str.encode, cells))
        elif isinstance(cells[0], bool):
            kind, raw = "BOOL", np.array(cells).tobytes()
        elif None in cells:
            kind, raw = "FP64", np.array([np.nan if cell is None else cell for cell in cells]).tobytes()
        else:
            kind, raw = "INT64", np.array(cells, np.int64).tobytes()
        inputs.append(
            {"name": name, "datatype": kind, "shape": [len(cells), 1], "parameters": {"binary_data_size": len(raw)}}
        )
        tail += raw
    head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
    headers = b"Content-Type: application/octet-stream\r\nInference-Header-Content-Length: %d\r\n" % len(head)
    return request(key, "/v2/models/loans/infer", head + tail, headers)


def reply(stream: Any) -> tuple[dict[bytes, bytes], bytes]:
    """Read one reply; exit if its status is not 200."""
    status = stream.readline()
    headers = {}
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    body: bytes = stream.read(int(headers[b"content-length"]))
    if b" 200 " not in status:
        raise SystemExit(f"{status!r} {body[:500]!r}")
    return headers, body


def compare(requests: dict[str, list[bytes]]) -> None:
    """Exit if the scores returned for the two forms are not bit-identical."""
    with socket.create_connection(("127.0.0.1", PORT)) as connection:
        stream = connection.makefile("rb")
        for native_request, binary_request in zip(requests[NATIVE], requests[BINARY], strict=True):
            connection.sendall(native_request)
            scores = [prediction["score"] for prediction in json.loads(reply(stream)[1])["predictions"]]
            connection.sendall(binary_request)
            headers, body = reply(stream)
            at = int(headers[b"inference-header-content-length"])
            for output in json.loads(body[:at])["outputs"]:
                size = output["parameters"]["binary_data_size"]
                if output["name"] == "score" and np.frombuffer(body[at : at + size], "<f4").tolist() != scores:
                    raise SystemExit("the scores differ")
                at += size
            COUNTED.append((0, 2 * ROWS))


COUNTED: list[tuple[int, int]] = []
"""Pairs of a phase (0 for warm-up, 1 for measurement) and a number of answered rows. All answered rows must be in the
history."""


def measure_rounds(
    server: Server, requests: dict[str, list[bytes]], options: argparse.Namespace, console: Console
) -> list[Measure]:
    """Send both forms to warm up the server, then measure both forms in each round."""
    os.sched_setaffinity(0, {LOAD_CORE})
    for bodies in requests.values():
        load(bodies, 1.0)
    server.settle()
    measures = []
    for turn in range(1, options.rounds + 1):
        for form, bodies in requests.items():
            server.clear_core()
            busy, (cpu, beside), mine = busy_seconds(), server.cpu(), time.process_time()
            rows, seconds = load(bodies, options.seconds)
            busy_after, (cpu_after, beside_after) = busy_seconds(), server.cpu()
            ours = cpu_after - cpu + beside_after - beside + time.process_time() - mine
            others = max(0.0, (busy_after - busy - ours) / seconds)
            server.settle()
            beside_after = server.cpu()[1]
            cpu_us, beside_us = (cpu_after - cpu) / rows * 1e6, (beside_after - beside) / rows * 1e6
            measures.append(Measure(turn, form, rows / seconds, cpu_us, beside_us, others))
            console.print(
                f"{turn} {form:12} {rows / seconds:10,.0f} rows/s  cpu {cpu_us:6.2f} µs/row  indexer {beside_us:5.2f}"
                f"  others {others:.2f}"
            )
    return measures


def load(requests: list[bytes], seconds: float) -> tuple[int, float]:
    """Send requests over two connections without pauses; return the number of answered rows and the elapsed seconds."""
    answered = [0] * CONNECTIONS
    began = time.perf_counter()

    def ask(number: int) -> None:
        with socket.create_connection(("127.0.0.1", PORT)) as connection:
            stream = connection.makefile("rb")
            while time.perf_counter() < began + seconds:
                connection.sendall(requests[answered[number] % len(requests)])
                reply(stream)
                answered[number] += 1

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    COUNTED.append((1, sum(answered) * ROWS))
    return sum(answered) * ROWS, time.perf_counter() - began


def check_requirements(measures: list[Measure], report: dict[str, Any], answered: int, least: float) -> list[Check]:
    """Return the check for each requirement."""
    rounds = [
        {measure.form: measure for measure in measures if measure.round == turn}
        for turn in {measure.round for measure in measures}
    ]
    faster = median(group[BINARY].rows_per_second / group[NATIVE].rows_per_second for group in rounds)
    lighter = median(group[NATIVE].cpu_us / group[BINARY].cpu_us for group in rounds)
    return [
        Check("rows/s: V2 binary / native JSON, 1,000 rows per request", faster, least=least),
        Check("CPU time per row: native JSON / V2 binary", lighter, least=least),
        Check("broken chains", len(report["broken"]), most=0),
        Check("history entries minus predictions", abs(report["entries"] - 1 - answered), most=0),
    ]


def record(options: argparse.Namespace, measures: list[Measure], checks: list[Check]) -> None:
    """Append one line of figures to results.jsonl."""
    figures = ("rows_per_second", "cpu_us", "beside_us", "others")
    requirements.record(
        "dialects",
        model="200 trees" if options.trees else "linear",
        rounds=options.rounds,
        seconds=options.seconds,
        medians={
            form: {
                name: round(median(getattr(measure, name) for measure in measures if measure.form == form), 3)
                for name in figures
            }
            for form in (NATIVE, BINARY)
        },
        checks={check.name: round(check.value, 4) for check in checks},
        kept=all(check.kept for check in checks),
    )


if __name__ == "__main__":
    sys.exit(main())
