"""`make bench-jobs`: score a million loan applications as a job, and compare the speed with that of `rowcast predict`.

    python bench/jobs.py [--rows 1000000] [--more 4000000] [--rounds 3]

A job's time is measured from its start to its end and includes loading libraries. The job and
`rowcast predict` run one after the other with the same priority. The memory figure is the job runner's peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from batch import generate, train
from requirements import Check, record, show
from rich.console import Console

from rowcast.client import Client, JobStatus

ROWCAST = [sys.executable, "-m", "rowcast.cli"]
PRIORITY = 5
"""The amount by which the server raises the niceness of its job runner."""
LEAST_SPEED, MOST_GROWTH = 0.8, 1.1
WAIT_SECONDS = 3600.0


class Run(NamedTuple):
    """The figures of one job, or of one run of `rowcast predict`."""

    seconds: float
    cpu: float
    """The CPU time in seconds, which can be compared even if other processes use the machine."""
    megabytes: float = 0.0


def main() -> int:
    """Measure, print and record the figures; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--more", type=int, default=4_000_000, help="rows of the second memory test; 0 skips it")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console(width=max(118, Console().width))
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        work = Path(folder)
        train(work)
        generate(work, "rows", options.rows, "csv")
        predicted: list[Run] = []
        jobs: list[Run] = []
        with serving(work / "home") as (process, client):
            for _ in range(options.rounds):
                predicted.append(predict(work))
                jobs.append(run_job(client, process, work / "rows.csv", work / "result.csv"))
                same = (work / "result.csv").read_bytes() == (work / "out.csv").read_bytes()
            more = None
            if options.more:
                generate(work, "more", options.more, "csv")
                more = run_job(client, process, work / "more.csv", work / "result.csv")
    speed = median(run.seconds for run in predicted) / median(job.seconds for job in jobs)
    cpu = median(run.cpu for run in predicted) / median(job.cpu for job in jobs)
    peak = max(job.megabytes for job in jobs)
    checks = [
        Check(f"speed of a job / speed of rowcast predict, {options.rows:,} rows", speed, least=LEAST_SPEED),
        Check("CPU time of rowcast predict / CPU time of the job runner", cpu),
        Check("rows/s of a job", options.rows / median(job.seconds for job in jobs)),
        Check("the result is identical to that of rowcast predict", float(same), least=1),
        Check("peak memory of the job runner, MB", peak),
    ]
    if more is not None:
        growth = more.megabytes / peak
        checks.append(
            Check(f"peak memory with {options.more:,} rows / {options.rows:,} rows", growth, most=MOST_GROWTH)
        )
    show(console, checks)
    record(
        "jobs",
        rows=options.rows,
        more=options.more,
        rounds=options.rounds,
        predict=[run._asdict() for run in predicted],
        jobs=[run._asdict() for run in jobs],
        checks={check.name: round(check.value, 3) for check in checks},
        kept=all(check.kept for check in checks),
    )
    return 0 if all(check.kept for check in checks) else 1


@contextlib.contextmanager
def serving(home: Path) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """Run a server, and yield its process and a client."""
    with (home / "bench.log").open("ab") as log:
        process = subprocess.Popen(
            [*ROWCAST, "serve", "--json", "--port", "0", "--home", str(home)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        printed = ""
        for line in process.stdout:
            printed += line
            if line.rstrip() == "}":
                break
        with Client(json.loads(printed)["address"], timeout=WAIT_SECONDS) as client:
            while not client.ready():
                time.sleep(0.1)
            yield process, client
    finally:
        process.terminate()
        process.wait(60)


def predict(work: Path) -> Run:
    """Run `rowcast predict` with a job's priority; return the seconds that the command prints, and its CPU time."""
    command = ["nice", "-n", str(PRIORITY), *ROWCAST, "predict", "loans", str(work / "rows.csv")]
    command += ["--out", str(work / "out.csv"), "--home", str(work / "home"), "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(float(json.loads(finished.stdout)["seconds"]), round(cpu, 3))


def run_job(client: Client, server: subprocess.Popen[str], table: Path, out: Path) -> Run:
    """Run a job and download the result; return the job's time and the runner's peak memory."""
    peak, ending = 0.0, threading.Event()

    def sample() -> None:
        nonlocal peak
        pids: list[int] = []
        while not ending.wait(0.05):
            pids = pids or runners(server.pid)  # listing all processes for each sample would be too slow
            peak = max([peak, *map(megabytes, pids)])

    for pid in runners(server.pid):  # an earlier job must not have warmed up or enlarged the runner
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)
    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        job = client.jobs.wait(client.jobs.submit(table).id)
    finally:
        ending.set()
        sampler.join()
    cpu = sum(map(cpu_seconds, runners(server.pid)))
    client.jobs.result(job.id, out)
    return Run(seconds_of(job), cpu, round(peak, 1))


def seconds_of(job: JobStatus) -> float:
    """Return how long a job took; raise SystemExit if it failed."""
    if job.state != "done" or job.started is None or job.ended is None:
        raise SystemExit(f"the job is {job.state}: {job.error}")
    started: datetime = job.started
    return (job.ended - started).total_seconds()


def runners(server: int) -> list[int]:
    """Return a server's job runners."""
    listing = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(server)], capture_output=True, text=True, check=False
    )
    lines: list[Any] = [line.split(None, 1) for line in listing.stdout.splitlines()]
    return [int(pid) for pid, command in lines if command.endswith(" job-runner")]


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def megabytes(pid: int) -> float:
    """Return the resident memory of a process, or 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    sys.exit(main())
