"""`make bench-processes`: compare the throughput of two server processes with that of one, and measure memory use over
two million requests.

The benchmark compares the CPU time that the server, including its supervisor and indexer, uses per answered request. It
does not compare requests per second, because wrk also uses both cores of a two-core machine. If cpu(n) is the CPU time
per request with n server processes, then two server processes on two cores could answer 2 / cpu(2) requests per second
without other load, and one server process could answer 1 / cpu(1). A single server process leaves one core to the
indexer, so the indexer's CPU time is included only for two server processes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, median
from typing import Any

from machine import Server, cpu_seconds, load, resident, running
from requirements import Check, record, show
from rich.console import Console
from serve import BIN, FIRST, LAST, history, make_key, train, write_bodies

PORT = 18210
GROUPS = ("answering", "indexer")


@dataclass(frozen=True)
class Measure:
    """One run against a server with `processes` server processes. CPU times are in microseconds per answered
    request."""

    round: int
    processes: int
    connections: int
    answered: int
    rps: float
    answering_us: float
    indexer_us: float


class MultiProcessServer(Server):
    """A server with several processes on all cores."""

    def groups(self) -> dict[str, list[int]]:
        """Group the processes. The supervisor, which uses little CPU time, belongs to the group `answering`."""
        groups: dict[str, list[int]] = {group: [] for group in GROUPS}
        for pid in self.tree():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                groups["indexer" if b"indexer" in words else "answering"].append(pid)
        return groups

    def cpu_by_group(self) -> dict[str, float]:
        """Return the CPU seconds of each group."""
        return {group: sum(map(cpu_seconds, pids)) for group, pids in self.groups().items()}

    def memory_by_group(self) -> dict[str, float]:
        """Return the memory usage of the largest process in each group."""
        return {group: max(map(resident, pids), default=0.0) for group, pids in self.groups().items()}


def main() -> int:
    """Measure, check the requirements and record the figures."""
    options = arguments()
    console = Console(width=max(118, Console().width))
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as scratch:
        home = Path(scratch)
        console.print("Training the 200-tree model ...")
        bodies, sample = write_bodies(home, train(home))
        key = make_key(home)
        measures = []
        for turn in range(1, options.rounds + 1):
            for processes in (1, 2) if turn % 2 else (2, 1):
                measures += measure_loads(home, key, processes, turn, options, bodies, sample, console)
        memory = long_run(home, key, options.requests, bodies, sample, console) if options.requests else []
        report = history(home)
    checks = check_requirements(measures, memory, report)
    show(console, checks)
    if not options.no_record:
        record(
            "processes",
            rounds=options.rounds,
            seconds=options.seconds,
            medians=summary(measures),
            memory=memory,
            checks={check.name: round(check.value, 4) for check in checks},
            kept=all(check.kept for check in checks),
        )
    return 0 if all(check.kept for check in checks) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of one run of wrk")
    parser.add_argument(
        "--requests", type=int, default=2_000_000, help="number of requests for the memory test; 0 skips the test"
    )
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    return parser.parse_args()


def server(home: Path, key: str, processes: int) -> MultiProcessServer:
    """Return a server without starting it."""
    command = [str(BIN / "rowcast"), "serve", "--port", str(PORT), "--workers", str(processes)]
    env = {"ROWCAST_HOME": str(home / "home")}
    return MultiProcessServer(
        f"{processes} server processes", command, PORT, "/predict", env, home / "servers.log", key
    )


def measure_loads(
    home: Path,
    key: str,
    processes: int,
    turn: int,
    options: argparse.Namespace,
    bodies: Path,
    sample: bytes,
    console: Console,
) -> list[Measure]:
    """Start a server and measure it once at each number of connections per server process."""
    measures = []
    started = server(home, key, processes)
    with running(started, sample):
        free(started)
        fresh = FIRST + load(started, 32, 1, bodies, FIRST).answered
        started.settle()
        for each in (32, 128):
            before = started.cpu_by_group()
            run = load(started, each * processes, options.seconds, bodies, fresh)
            fresh = FIRST + (fresh + run.answered - FIRST) % (LAST - FIRST)
            started.settle()
            if run.failed or not run.answered:
                raise SystemExit(f"{started.name} at c{each}: {run.failed} of {run.answered} requests failed")
            cost = {
                group: (spent - before[group]) / run.answered * 1e6 for group, spent in started.cpu_by_group().items()
            }
            rps = run.answered / run.seconds
            measures.append(Measure(turn, processes, each, run.answered, rps, cost["answering"], cost["indexer"]))
            console.print(
                f"{turn} {processes} server processes, {each} connections each {rps:8.0f}/s"
                f"  answering {cost['answering']:5.1f} µs  indexer {cost['indexer']:5.1f} µs"
            )
    return measures


def long_run(home: Path, key: str, requests: int, bodies: Path, sample: bytes, console: Console) -> list[Any]:
    """Return the memory of each group over time, while two server processes are answering requests."""
    lines: list[Any] = []
    started = server(home, key, 2)
    with running(started, sample):
        free(started)
        answered, fresh = 0, FIRST
        while answered < requests:
            run = load(started, 64, 5, bodies, fresh)
            if run.failed:
                raise SystemExit(f"{run.failed} of {run.answered} requests failed after {answered} requests")
            answered += run.answered
            fresh = FIRST + (fresh + run.answered - FIRST) % (LAST - FIRST)
            lines.append(
                {"answered": answered, **{name: round(mb, 1) for name, mb in started.memory_by_group().items()}}
            )
            console.print(f"{answered:9,} answered  " + "  ".join(f"{name} {lines[-1][name]} MB" for name in GROUPS))
    return lines


def free(started: Server) -> None:
    """Allow every process to run on every core."""
    for pid in started.tree():
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), range(os.cpu_count() or 1))


def check_requirements(measures: list[Measure], memory: list[Any], report: dict[str, Any]) -> list[Check]:
    """Return the check for each requirement."""
    checks = []
    for each in sorted({measure.connections for measure in measures}):
        single, double = ([m for m in measures if (m.processes, m.connections) == (number, each)] for number in (1, 2))
        answering = median(2 * a.answering_us / b.answering_us for a, b in zip(single, double, strict=True))
        whole = median(
            2 * a.answering_us / (b.answering_us + b.indexer_us) for a, b in zip(single, double, strict=True)
        )
        checks += [
            Check(f"throughput: two server processes / one, {each} connections each", answering, least=1.6),
            Check(f"throughput including the indexer: two server processes / one, {each} connections each", whole),
        ]
    if memory:
        quarter = max(1, len(memory) // 4)
        for group in GROUPS:
            early, late = (mean(line[group] for line in part) for part in (memory[:quarter], memory[-quarter:]))
            name = {"answering": "server processes", "indexer": "indexer"}[group]
            checks.append(Check(f"memory of the {name}: last quarter / first quarter", late / early, most=1.05))
    checks.append(Check("broken chains", len(report["broken"]), most=0))
    return checks


def summary(measures: list[Measure]) -> list[dict[str, Any]]:
    """Return the median of each figure for each combination of server processes and connections."""
    lines = []
    for key in sorted({(measure.processes, measure.connections) for measure in measures}):
        group = [asdict(m) for m in measures if (m.processes, m.connections) == key]
        middle = {name: round(median(row[name] for row in group), 2) for name in ("rps", "answering_us", "indexer_us")}
        lines.append({"processes": key[0], "connections": key[1], **middle})
    return lines


if __name__ == "__main__":
    sys.exit(main())
