"""`make measured`: write docs/reference/measured.md from the latest entry of each benchmark in results.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reference" / "measured.md"
BENCHES = {
    "startup": ("Start-up time", "make bench-startup"),
    "serve": ("Single predictions", "make bench-serve"),
    "processes": ("Two server processes and memory", "make bench-processes"),
    "dialects": ("Dialects", "make bench-dialects"),
    "redis": ("Cache in Redis", "make bench-redis"),
    "queue": ("Queue and workers", "make bench-queue"),
    "drill": ("Killed processes, reloads and shutdowns", "make drill"),
    "drill history": ("Disk, clock, store and journal failures", "make drill-history"),
    "drill services": ("Failures of services and connections", "make drill-services"),
    "fuzz": ("Invalid requests and many connections", "make fuzz"),
    "batch": ("Scoring tables", "make bench-batch"),
    "jobs": ("Jobs", "make bench-jobs"),
    "drill jobs": ("Killed job runners", "make drill-jobs"),
    "check": ("Profiling tables", "make bench-check"),
    "store": ("History in PostgreSQL", "make bench-store"),
    "store durability": ("Waiting for the commit in PostgreSQL", "make bench-store"),
    "hard tables": ("Training time limit", "make bench-hard"),
    "mutants": ("Mutations detected by the tests", "make mutants"),
}
ABOUT = {
    "startup": "The lowest CPU time of five processes.",
    "serve": """One server process on one core serves a 200-tree model with an API key, a quota, a journal and metrics.
The floor is a bare JSON echo server that uses the same server software. Plain FastAPI runs the model with ONNX Runtime
and keeps no history.""",
    "processes": """The CPU time of the whole server per answered request, with one server process and with two, and the
memory use over two million requests.""",
    "dialects": "The same rows sent as native JSON and as binary V2 tensors, compared within one run.",
    "redis": """Cache hits through Redis compared with cache hits in memory, and eight clients while Redis is stopped,
killed or paused for ten seconds. A server waits at most 50 ms for Redis.""",
    "queue": """One server that sends rows through Redis to one worker, compared with a server that scores its own rows,
and with a service that sends each row separately through a Redis list. The API or the server has one core; Redis, the
worker and the load generator share the other core.""",
    "drill": """Two server processes under constant load. Every acknowledged prediction must be in the history exactly
once and match its reply.""",
    "drill history": """One server under constant load while its disk fills up, its clock changes, its store is locked
or its journal is damaged.""",
    "drill services": """One API and one worker, with Redis as their queue and PostgreSQL (`fsync=on`) as their store,
under constant load in each durability mode. Each process is killed with SIGKILL and paused with SIGSTOP for ten
seconds, and connections to Redis and PostgreSQL are dropped, delayed and cut. Then NGINX distributes the requests to
two APIs, and these and two workers are restarted one at a time. Half of the requests have an `Idempotency-Key` and are
repeated until they are answered; each attempt counts as a request. The status 409 means that an earlier attempt may
still be in progress. A request goes unanswered only while the API is dead. Recovery is the time from the end of a fault
until every client has been answered again.""",
    "fuzz": """Mutated requests, decompression bombs, slow senders and idle connections, while another client is
sending valid requests.""",
    "mutants": """400 places in the code are changed, one at a time. A mutation is detected if a test fails.""",
    "hard tables": """Training runs with a time limit on generated tables that have 300 columns, 100 classes, long
strings or 200,000 rows.""",
    "batch": """The time needed to score a million rows, compared with bare ONNX Runtime on arrays in memory, and
the peak memory.""",
    "store": """Predictions are moved from journals into PostgreSQL with `fsync=on`. Then entries are listed and looked
up in a table that covers twelve months.""",
    "store durability": """Two servers are measured in alternating runs with 128 connections. One waits until
PostgreSQL, with `fsync=on`, has committed a prediction before it replies; the other has the default settings.""",
    "jobs": "A table is scored as a job by a server with one process, and by `rowcast predict` on the same machine.",
    "drill jobs": "The runner of jobs that record every row is killed at random moments.",
    "check": "The time and the peak memory that `rowcast check` needs to profile a million rows with 50 columns.",
}
FUZZ_LABELS = {
    "alone_rps": "requests/s of one client before the tests",
    "after_rps": "requests/s of one client after the tests",
    "mutated sent": "mutated requests sent",
    "idle open": "idle connections",
    "idle share": "relative throughput of one client with idle connections open",
    "slow open": "slow senders",
    "slow share": "relative throughput of one client with slow senders connected",
    "bombs bytes": "compressed size of a bomb, bytes",
    "memory_mb before": "server memory before the tests, MB",
    "memory_mb after": "server memory after the tests, MB",
    "alive": "server responds after the tests",
}
FUZZ_STATUSES = {
    "mutated statuses ": "mutated requests answered with status ",
    "bombs statuses ": "bombs answered with status ",
}
OLD_NAMES = {
    "workers": "processes",
    "killed workers": "killed server processes",
    "requests lost when a worker was killed": "requests lost when a server process was killed",
    "memory of the workers: last quarter / first quarter": (
        "memory of the server processes: last quarter / first quarter"
    ),
    "result has the same bytes as that of rowcast predict": "the result is identical to that of rowcast predict",
    "results that differ from that of rowcast predict": "results that differ from those of rowcast predict",
    "rows that the history lacks or contains twice": "rows missing from the history or recorded twice",
    **{
        f"{what}: two workers / one, {connections}": f"{what}: two server processes / one, {connections}"
        for what in ("throughput", "throughput including the indexer")
        for connections in ("32 connections each", "128 connections each")
    },
}
"""The names used in entries before 2026-11-28, mapped to the current names."""
INTRO = """# Benchmark results

Generated from `bench/results.jsonl` by `make measured`. The benchmark machines are shared, so requests per second vary
from run to run, but ratios within one run are stable.
"""


def main() -> None:
    """Write the page."""
    latest: dict[str, dict[str, Any]] = {}
    for line in (HERE / "results.jsonl").read_text().splitlines():
        entry = renamed(json.loads(line))
        latest[entry["bench"]] = entry
    parts = [part for name in BENCHES if name in latest for part in section(name, latest[name])]
    PAGE.write_text("\n".join([INTRO, *parts]).rstrip() + "\n")


def renamed(entry: dict[str, Any]) -> dict[str, Any]:
    """Replace old names of the benchmark, its scenarios and its figures."""
    names = {OLD_NAMES.get(key, key): renamed(part) if isinstance(part, dict) else part for key, part in entry.items()}
    return names | ({"bench": OLD_NAMES.get(entry["bench"], entry["bench"])} if "bench" in entry else {})


def section(name: str, entry: dict[str, Any]) -> Iterator[str]:
    """Yield the section for one benchmark: description, date and figures."""
    title, command = BENCHES[name]
    yield f"## {title}\n\n{ABOUT[name]}\n"
    verdict = "all requirements met" if entry["kept"] else "some requirements not met"
    yield f"`{command}`, {entry['at'][:10]}, commit `{entry['commit']}`, {entry['cores']} cores: {verdict}.\n"
    if name == "fuzz":
        yield from table((fuzz_label(key), figure) for key, figure in flat(entry) if key not in COMMON)
        return
    for scenario, checks in entry.get("scenarios", {"": entry.get("checks", {})}).items():
        if scenario:
            yield f"### {scenario.capitalize()}\n"
        yield from table(checks.items())
        if "phases" in entry:
            yield from fault_table(entry["phases"][scenario])


def fault_table(phases: dict[str, Any]) -> Iterator[str]:
    """Yield a table with one row for each fault that `make drill-services` caused."""
    yield "| during and after | answered | 503 | 409 | no reply | longest reply, s | recovery, s |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for name, phase in phases.items():
        counts = [
            sum(count for outcome, count in phase["outcomes"].items() if outcome.startswith(prefix))
            for prefix in ("answered", "503", "409", "lost")
        ]
        times = [f"{phase[time]:.1f}" for time in ("longest", "recovery")]
        yield f"| {name} | {' | '.join([*(f'{count:,}' for count in counts), *times])} |"
    yield ""


COMMON = frozenset({"bench", "at", "commit", "python", "cores", "load", "kept"})


def fuzz_label(key: str) -> str:
    """Return the label for a figure from the fuzz benchmark."""
    for prefix, label in FUZZ_STATUSES.items():
        if key.startswith(prefix):
            return label + key.removeprefix(prefix)
    return FUZZ_LABELS.get(key, key)


def flat(figures: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Flatten nested figures; the keys are joined by spaces."""
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def table(rows: Iterable[tuple[str, Any]]) -> Iterator[str]:
    """Yield a table with two columns."""
    yield "| measurement | value |\n|---|---:|"
    for name, figure in rows:
        if isinstance(figure, bool):
            text = "yes" if figure else "no"
        else:
            text = f"{figure:,.4g}" if isinstance(figure, float) and abs(figure) < 1e4 else f"{figure:,}"
        yield f"| {name} | {text} |"
    yield ""


if __name__ == "__main__":
    main()
