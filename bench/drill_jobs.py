"""`make drill-jobs`: kill a job's runner at random moments, and check the result and the history.

    python bench/drill_jobs.py [--kills 20] [--rows 300000] [--longest 4] [--seed 1]

Each job records every row. If a job ends before the last kill, another job is submitted. Every job's result
must be byte-identical to the output of `rowcast predict`, and the history must contain every row of every job exactly
once.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from batch import generate, train
from requirements import Check, record, show
from rich.console import Console

from jobs import ROWCAST, predict, runners, serving
from rowcast.client import Client


def main() -> int:
    """Run the drill; return 1 if a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--longest", type=float, default=4.0, help="longest time until a kill, in seconds")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    killed = different = 0
    jobs: list[str] = []
    with tempfile.TemporaryDirectory(prefix="rowcast-drill-") as folder:
        work = Path(folder)
        train(work)
        generate(work, "rows", options.rows, "csv")
        predict(work)
        expected = (work / "out.csv").read_bytes()
        with serving(work / "home") as (process, client):
            while killed < options.kills:
                job = client.jobs.submit(work / "rows.csv", record="rows").id
                jobs.append(job)
                killed += kill_until_done(
                    client, process, job, lambda: rng.uniform(0.0, options.longest), options.kills - killed
                )
                client.jobs.result(job, work / "result.csv")
                different += (work / "result.csv").read_bytes() != expected
        verification = run(work, "verify")
        replay = run(work, "replay")
    recorded = verification["entries"] - len(jobs)
    checks = [
        Check("kills", killed, least=options.kills),
        Check("jobs", len(jobs)),
        Check("results that differ from those of rowcast predict", different, most=0),
        Check("rows missing from the history or recorded twice", abs(recorded - len(jobs) * options.rows), most=0),
        Check("broken chains", len(verification["broken"]), most=0),
        Check("recorded rows whose replay differs", replay["entries"] - replay["equal"], most=0),
    ]
    show(Console(width=max(118, Console().width)), checks)
    kept = all(check.kept for check in checks)
    figures = {check.name: check.value for check in checks}
    record("drill jobs", rows=options.rows, seed=options.seed, checks=figures, kept=kept)
    return 0 if kept else 1


def kill_until_done(
    client: Client, server: subprocess.Popen[str], job: str, pause: Callable[[], float], most: int
) -> int:
    """Kill the runner at random moments until the job has ended; return the number of kills."""
    kills = 0
    while (shown := client.jobs.get(job)).state in ("queued", "running"):
        pids = runners(server.pid)
        if not pids or kills >= most:
            time.sleep(0.1)
            continue
        time.sleep(pause())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                kills += 1
    if shown.state != "done":
        raise SystemExit(f"the job is {shown.state}: {shown.error}")
    return kills


def run(work: Path, command: str) -> Any:
    """Run a `rowcast` command with the drill's home and return the decoded JSON output."""
    arguments = [*ROWCAST, command, "--json", "--home", str(work / "home")]
    return json.loads(subprocess.run(arguments, capture_output=True, text=True, check=False).stdout)


if __name__ == "__main__":
    sys.exit(main())
