"""`make bench-serve`: measure the cost of a prediction and the additional cost of a wire template. The cost is compared
with that of a bare JSON echo server (the floor) and that of plain FastAPI + ONNX Runtime.

All servers run under uvicorn with uvloop, httptools and no access log, on one core; wrk and Rowcast's indexer share the
other core. Rowcast requires an API key with a quota and records the key's id with each prediction. Each round starts
the servers, measures them one after another and compares them. The server with the wire template also serves the same
model without a template (`beside`), because the costs of two processes that run the same code can differ by 10%. When
other processes load the machine, the CPU time per answered request is stable, but requests per second are not. If a
requirement is not met, the benchmark prints it and fails.
"""

from __future__ import annotations

import argparse
import csv
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from machine import HERE, Server, busy_seconds, load, running
from requirements import Check, record
from requirements import show as show_checks
from rich.console import Console
from rich.table import Table

FRESH = "annual_income"
"""The column that gets a new six-digit number in every request."""
FIRST, LAST = 100_000, 999_998
"""The range of the numbers in this column. The size of the range and the number of rows are coprime, so no body
repeats."""
NAMES = ("floor", "plain", "rowcast", "wire")
BESIDE = "beside"
"""The model without a template that the server `wire` also serves."""
QUOTA = "999999999/1s"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Measure:
    """The figures for one server at one number of connections in one round."""

    round: int
    server: str
    connections: int
    answered: int
    rps: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of the server process per answered request."""
    beside_us: float
    """CPU time of the server's other processes (the indexer) per answered request."""
    others: float
    """The number of cores used by everything else on the machine except wrk."""


def main() -> int:
    """Prepare, measure, check the requirements and record the figures."""
    options = arguments()
    console = Console(width=max(118, Console().width))
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as scratch:
        home = Path(scratch)
        console.print("Training the 200-tree model ...")
        bundle = train(home)
        bodies, sample = write_bodies(home, bundle)
        key = make_key(home)
        shutil.copy(home / "home" / "keys.json", home / "home-wire" / "keys.json")
        run = Run(options, bodies, sample, console)
        for turn in range(1, options.rounds + 1):
            run.measure_round(turn, servers(home, bundle, key))
        report = history(home)
    checks = check_requirements(run, report)
    show(run, checks)
    if not options.no_record:
        record(
            "serve",
            versions={name: version(name) for name in ("uvicorn", "uvloop", "onnxruntime", "msgspec", "fastapi")},
            rounds=options.rounds,
            seconds=options.seconds,
            medians=summary(run.measures),
            start_seconds={name: round(median(seconds), 3) for name, seconds in run.starts.items()},
            memory_mb={name: round(size, 1) for name, size in run.memory.items()},
            checks={check.name: round(check.value, 4) for check in checks},
            kept=not [check for check in checks if not check.kept],
        )
    broken = [check for check in checks if not check.kept]
    for check in broken:
        console.print(f"[red]requirement not met: {check.name} is {check.value:.3g}")
    return 1 if broken else 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=20, help="number of rounds (many short rounds average out other load)"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="duration of one run of wrk")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32, 128])
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    return parser.parse_args()


def output(command: list[str], env: dict[str, str] | None = None) -> str:
    """Return the output of a command; exit with its output if it fails."""
    finished = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=HERE.parent
    )
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{finished.stdout}{finished.stderr}")
    return finished.stdout


def rowcast(home: Path, *words: str) -> str:
    """Run a `rowcast` command with this benchmark's home."""
    return output([str(BIN / "rowcast"), *words], {**os.environ, "ROWCAST_HOME": str(home / "home")})


def train(home: Path) -> Path:
    """Train a 200-tree model on the loan example and return the bundle's folder."""
    table = home / "loans.csv"
    rowcast(home, "example", "loans", "--out", str(table))
    command = [sys.executable, str(HERE / "model.py"), str(table), str(home / "home")]
    return Path(output(command).strip())


def make_key(home: Path) -> str:
    """Create a key with a quota that the load never reaches."""
    words = ["keys", "create", "bench", "--scope", "predict,read", "--quota", QUOTA, "--json"]
    key: str = json.loads(rowcast(home, *words))["key"]
    return key


def write_bodies(home: Path, bundle: Path) -> tuple[Path, bytes]:
    """Write rows of the table as JSON, each split where wrk inserts a number; return the file and one complete row."""
    schema = json.loads((bundle / "bundle.json").read_text())["schema"]["columns"]
    kinds = {column["name"]: column["kind"] for column in schema}
    path = home / "bodies.txt"
    with (home / "loans.csv").open(newline="") as table, path.open("w") as out:
        rows = csv.DictReader(table)
        for _, row in zip(range(5000), rows, strict=False):
            cells = {FRESH: 0, **{name: cell(row[name], kind) for name, kind in kinds.items() if name != FRESH}}
            head, tail = '{"' + FRESH + '":', json.dumps(cells, separators=(",", ":")).partition(":0")[2]
            out.write(f"{head}\t{tail}\n")
    return path, f"{head}{FIRST + 1}{tail}".encode()


def cell(text: str, kind: str) -> Any:
    """Convert a CSV cell to the value that a client would send."""
    if text == "":
        return None
    if kind == "integer":
        return int(float(text))
    return float(text) if kind == "number" else text


def servers(home: Path, bundle: Path, key: str) -> list[Server]:
    """Return the servers without starting them. Each server has its own port; the Rowcast servers require a key."""
    uvicorn = [sys.executable, "-m", "uvicorn", "--app-dir", str(HERE), "--loop", "uvloop", "--http", "httptools"]
    uvicorn += ["--no-access-log", "--no-server-header", "--no-proxy-headers", "--log-level", "warning", "--port"]
    log = home / "servers.log"
    return [
        Server("floor", [*uvicorn, "18201", "floor:app"], 18201, "/predict", {}, log),
        Server("plain", [*uvicorn, "18202", "plain_fastapi:app"], 18202, "/predict", {"BUNDLE": str(bundle)}, log),
        Server(
            "rowcast",
            [str(BIN / "rowcast"), "serve", "--port", "18203"],
            18203,
            "/predict",
            {"ROWCAST_HOME": str(home / "home")},
            log,
            key,
        ),
        Server(
            "wire",
            [str(BIN / "rowcast"), "serve", "loans", "plain", "--port", "18204"],
            18204,
            "/predict",
            {"ROWCAST_HOME": str(home / "home-wire")},
            log,
            key,
        ),
    ]


def compare(started: list[Server], bodies: Path) -> None:
    """Exit if the servers do not return the same predictions."""
    for line in bodies.read_text().splitlines()[:100]:
        body = line.replace("\t", str(FIRST)).encode()
        plain, ours = (json.loads(server.ask(body)) for server in started)
        if plain["prediction"] != ours["prediction"] or abs(plain["probability"] - ours["probability"]) > 1e-6:
            raise SystemExit(f"the predictions differ for {body.decode()}: {plain} and {ours}")


class Run:
    """The measurements of all rounds.

    Each round starts new servers, because the speeds of two processes that run the same code can differ by 10%.
    """

    def __init__(self, options: argparse.Namespace, bodies: Path, sample: bytes, console: Console) -> None:
        self.console = console
        self.measures: list[Measure] = []
        self.starts: dict[str, list[float]] = {name: [] for name in NAMES}
        """The number of seconds from each start to the first response."""
        self.memory: dict[str, float] = {}
        self.system_calls = 0.0
        """The number of system calls per request from a single client."""
        self.answers = 0.0
        """The number of predictions that the native server made."""
        self._options = options
        self._bodies = bodies
        self._sample = sample
        self._fresh = FIRST

    def measure_round(self, turn: int, started: list[Server]) -> None:
        """Start the servers, and measure each server at each number of connections."""
        with ExitStack() as stack:
            for server in started:
                self.starts[server.name].append(stack.enter_context(running(server, self._sample)))
            if turn == 1:
                compare(started[1:3], self._bodies)
            for server in started:
                self._count(load(server, 32, 1, self._bodies, self._fresh).answered)
                server.settle()
            pair = [started[3], started[3].at(BESIDE, "/models/plain/predict")]
            measured = [*started[:3], *(pair if turn % 2 else reversed(pair))]
            for connections in self._options.connections:
                for server in measured:
                    self._measure(turn, server, connections)
            self.memory = {server.name: server.memory() for server in started}
            if turn == self._options.rounds:
                self.system_calls = system_calls(started[2], self._sample)
            self.answers += prediction_count(started[2])

    def _measure(self, turn: int, server: Server, connections: int) -> None:
        result = measure(server, turn, connections, self._options.seconds, self._bodies, self._fresh)
        self._count(result.answered)
        self.measures.append(result)
        self.console.print(
            f"{turn} c{connections:<4} {server.name:8} {result.rps:8.0f}/s  cpu {result.cpu_us:6.1f} µs"
            f"  indexer {result.beside_us:5.1f}  p50 {result.p50_ms:.2f}  p99 {result.p99_ms:.2f}"
            f"  others {result.others:.2f}"
        )

    def _count(self, answered: int) -> None:
        self._fresh = FIRST + (self._fresh + answered - FIRST) % (LAST - FIRST)


def measure(server: Server, turn: int, connections: int, seconds: float, bodies: Path, fresh: int) -> Measure:
    """Run wrk once and return the server's throughput, latency and CPU time."""
    server.clear_core()
    busy, (cpu, beside) = busy_seconds(), server.cpu()
    run = load(server, connections, seconds, bodies, fresh)
    busy_after, (cpu_after, beside_after) = busy_seconds(), server.cpu()
    if run.failed or not run.answered:
        raise SystemExit(f"{server.name} at c{connections}: {run.failed} of {run.answered} requests failed")
    others = busy_after - busy - (cpu_after - cpu) - (beside_after - beside) - run.cpu
    # Wait for the indexer, because its CPU time is part of this run.
    server.settle()
    beside_after = server.cpu()[1]
    return Measure(
        turn,
        server.name,
        connections,
        run.answered,
        run.answered / run.seconds,
        run.p50_ms,
        run.p99_ms,
        (cpu_after - cpu) / run.answered * 1e6,
        (beside_after - beside) / run.answered * 1e6,
        max(0.0, others / run.seconds),
    )


def prediction_count(server: Server) -> float:
    """Return the number of predictions since the server started, according to its metrics."""
    text = server.ask(None, "/metrics").decode()
    lines = [line for line in text.splitlines() if line.startswith("rowcast_predictions_total")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def system_calls(server: Server, body: bytes, requests: int = 500) -> float:
    """Return how many system calls the server's main thread makes per request from a single client."""
    headers = {"content-type": "application/json", "x-api-key": server.key}
    client = http.client.HTTPConnection("127.0.0.1", server.port)
    with tempfile.NamedTemporaryFile("r", suffix=".strace") as counts:
        tracer = subprocess.Popen(
            ["strace", "-c", "-p", str(server.pid), "-o", counts.name], stderr=subprocess.PIPE, text=True
        )
        assert tracer.stderr is not None
        tracer.stderr.readline()  # strace reports that it is attached
        for _ in range(requests):
            client.request("POST", "/predict", body, headers)
            client.getresponse().read()
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
        (total,) = [line for line in counts.read().splitlines() if line.endswith("total")]
    client.close()
    return int(total.split()[3]) / requests


def history(home: Path) -> dict[str, Any]:
    """Verify all chains and count the entries, after the server has stopped."""
    report: dict[str, Any] = json.loads(rowcast(home, "history", "verify", "--json"))
    return report


def median_ratio(measures: list[Measure], connections: int, ratio: Callable[[dict[str, Measure]], float]) -> float:
    """Return the median, over all rounds, of a ratio that is computed in each round."""
    rounds = sorted({each.round for each in measures})
    groups = [
        {each.server: each for each in measures if (each.round, each.connections) == (turn, connections)}
        for turn in rounds
    ]
    return median(map(ratio, groups))


def check_requirements(run: Run, report: dict[str, Any]) -> list[Check]:
    """Return the check for each serving requirement."""
    measures = run.measures
    checks = []
    loads = {each.connections for each in measures}
    for connections, least, aim in ((32, 0.50, 0.52), (128, 0.58, 0.63)):
        if connections not in loads:
            continue

        def at(ratio: Callable[[dict[str, Measure]], float], connections: int = connections) -> float:
            return median_ratio(measures, connections, ratio)

        label = f"{connections} connections"
        checks += [
            Check(
                f"CPU time: floor / Rowcast, {label}",
                at(lambda m: m["floor"].cpu_us / m["rowcast"].cpu_us),
                least=least,
                aim=aim,
            ),
            Check(
                f"CPU time: wire template / native, {label}",
                at(lambda m: m["wire"].cpu_us / m[BESIDE].cpu_us),
                most=1.1,
            ),
            Check(
                f"requests/s: Rowcast / plain FastAPI, {label}",
                at(lambda m: m["rowcast"].rps / m["plain"].rps),
                least=3.0,
            ),
            Check(
                f"requests/s: plain FastAPI / floor, {label}",
                at(lambda m: m["plain"].rps / m["floor"].rps),
                least=0.13,
            ),
            Check(
                f"latency p99/p50: Rowcast / floor, {label}",
                at(lambda m: spread(m["rowcast"]) / spread(m["floor"])),
                most=3,
            ),
            Check(
                f"CPU time: indexer / server, {label}",
                at(lambda m: m["rowcast"].beside_us / m["rowcast"].cpu_us),
                most=0.5,
            ),
        ]
    if 1 in loads:
        checks += single_client_checks(measures, run.system_calls)
    ratio = median(ours / plain for ours, plain in zip(run.starts["rowcast"], run.starts["plain"], strict=True))
    checks.append(Check("time to first response: Rowcast / plain FastAPI", ratio, most=2.5))
    checks.append(Check("server memory, MB", run.memory["rowcast"], most=130))
    checks.append(Check("broken chains", len(report["broken"]), most=0))
    surplus = report["entries"] - run.answers
    checks.append(Check("history entries minus predictions", surplus, most=0, least=0))
    return checks


def single_client_checks(measures: list[Measure], calls: float) -> list[Check]:
    """Return the checks for a single client that sends one request after another."""

    def at(ratio: Callable[[dict[str, Measure]], float]) -> float:
        return median_ratio(measures, 1, ratio)

    return [
        Check(
            "CPU time: floor / Rowcast, 1 connection", at(lambda m: m["floor"].cpu_us / m["rowcast"].cpu_us), least=0.42
        ),
        Check(
            "requests/s: Rowcast / plain FastAPI, 1 connection",
            at(lambda m: m["rowcast"].rps / m["plain"].rps),
            least=1.7,
        ),
        Check(
            "latency p50: Rowcast / floor, 1 connection", at(lambda m: m["rowcast"].p50_ms / m["floor"].p50_ms), most=2
        ),
        Check("system calls per request, 1 connection", calls, most=7),
    ]


def spread(each: Measure) -> float:
    return each.p99_ms / each.p50_ms


def show(run: Run, checks: list[Check]) -> None:
    """Print the medians and the checks."""
    table = Table(title="medians over all rounds")
    for heading in ("server", "c", "requests/s", "p50 ms", "p99 ms", "CPU µs", "indexer µs", "others", "start s", "MB"):
        table.add_column(heading, justify="left" if heading == "server" else "right")
    for row in summary(run.measures):
        name = row["server"]
        table.add_row(
            name,
            str(row["connections"]),
            f"{row['rps']:,.0f}",
            f"{row['p50_ms']:.2f}",
            f"{row['p99_ms']:.2f}",
            f"{row['cpu_us']:.1f}",
            f"{row['beside_us']:.1f}",
            f"{row['others']:.2f}",
            f"{median(run.starts[name]):.2f}" if name in run.starts else "",
            f"{run.memory[name]:.0f}" if name in run.memory else "",
        )
    run.console.print(table)
    show_checks(run.console, checks)


def summary(measures: list[Measure]) -> list[dict[str, Any]]:
    """Return the median of each figure for each combination of server and number of connections."""
    rows = []
    for connections in sorted({each.connections for each in measures}):
        for name in (*NAMES, BESIDE):
            group = [asdict(each) for each in measures if (each.server, each.connections) == (name, connections)]
            figures = ("rps", "p50_ms", "p99_ms", "cpu_us", "beside_us", "others")
            middle = {figure: round(median(row[figure] for row in group), 3) for figure in figures}
            rows.append({"server": name, "connections": connections, **middle})
    return rows


if __name__ == "__main__":
    sys.exit(main())
