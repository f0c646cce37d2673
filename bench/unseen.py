"""`make bench-unseen`: compare Rowcast with AutoGluon and FLAML on tables that were not used in development.

    python bench/unseen.py run [--system rowcast autogluon flaml] [--preset best balanced] [--seconds 90] [--jobs 1]
                               [--seeds 0,1,2] [--tables a,b]
    python bench/unseen.py page

unseen_tables.py lists the eligible tables and draws the sample that is used. At most 20,000 rows of each table are
used. For each seed, a third of the rows are held out as the test part; for classification, the split preserves the
class proportions. Every system receives the training part as a CSV file, the target, the task, the same time limit and
one core per thread. `run` appends one line per table, seed and system to unseen.jsonl; an interrupted run continues
where it stopped. `page` updates docs/reference/quality.md.

A system that fails gets the score of a constant prediction. No table is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import quality
import unseen_tables
from contest import Budget, SystemFailedError, Task, commit, rowcast, run_peer, run_rowcast, score, write_parts
from sklearn.model_selection import train_test_split

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "unseen.jsonl"
MOST_ROWS, TEST_SHARE = 20_000, 1 / 3
RAREST = 6
"""The minimum number of rows per class. Rows from smaller classes are left out, because every part needs rows from
every class."""
SYSTEMS = ("rowcast", "autogluon", "flaml")
PRESETS = ("best", "balanced")
NO_PRESET = "none"


@dataclass(frozen=True)
class Entry:
    """One measurement: the table, the seed, the system with its preset, and the budget."""

    table: str
    seed: int
    system: str
    preset: str
    seconds: int
    jobs: int


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--system", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    running.add_argument("--preset", nargs="+", default=PRESETS, help=f"presets of Rowcast; {NO_PRESET}: the default")
    running.add_argument("--seconds", type=int, default=90)
    running.add_argument("--jobs", type=int, default=1, help="number of threads, and of cores")
    running.add_argument("--seeds", default="0,1,2")
    running.add_argument("--tables", help="comma-separated names; default: the drawn tables")
    running.add_argument("--results", type=Path, default=RESULTS)
    commands.add_parser("page")
    options = parser.parse_args()
    if options.command == "page":
        return quality.page(quality.RESULTS)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.jobs])
    listing = unseen_tables.read_list()
    drawn = listing.draw(listing.seed, listing.count)
    if options.tables:
        names = options.tables.split(",")
        drawn = [table for table in listing.eligible if table.name in names]
    tasks = {
        table.name: Task(table.name, path, table.task, table.target, exclude=table.exclude)
        for table, path in zip(drawn, unseen_tables.table_files(listing, drawn), strict=True)
    }
    done = finished(options.results)
    for entry in entries(list(tasks), options):
        if entry not in done:
            measure(tasks[entry.table], entry, options.results)
    return 0


def entries(tables: list[str], options: argparse.Namespace) -> Iterator[Entry]:
    """Yield the measurements. All systems are measured on one table before any system is measured on the next table, so
    that a partial run is fair."""
    for seed in map(int, options.seeds.split(",")):
        for table in tables:
            for system in options.system:
                for preset in options.preset if system == "rowcast" else ("medium" if system == "autogluon" else "",):
                    yield Entry(table, seed, system, preset, options.seconds, options.jobs)


def finished(results: Path) -> set[Entry]:
    """Return the measurements that have a score."""
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    names = Entry.__dataclass_fields__
    return {Entry(**{name: line[name] for name in names}) for line in lines if "error" not in line}


def measure(task: Task, entry: Entry, results: Path) -> None:
    """Train and score one system, and append a line to the results."""
    frame = load(task)
    labels = target(frame, task)
    train, test = split(labels, task, entry.seed)
    with tempfile.TemporaryDirectory(prefix="rowcast-unseen-") as folder:
        work = Path(folder)
        write_parts(frame[train], frame[test], task, entry.system, work)
        facts = attempt(task, entry, labels[test], work)
    if "error" in facts:
        facts["score"] = constant_score(task, labels[train], labels[test])
    line = {
        **vars(entry),
        "rows": frame.height,
        "columns": frame.width,
        "measure": task.measure,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "load": round(os.getloadavg()[1], 1),
        **facts,
    }
    with results.open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(json.dumps(line), flush=True)


def attempt(task: Task, entry: Entry, labels: np.ndarray, work: Path) -> dict[str, Any]:
    """Return the score and the other figures, or the system's error."""
    try:
        if entry.system == "rowcast":
            budget = Budget(entry.seconds, entry.jobs, rowcast_options(task, entry.preset))
            facts = run_rowcast(task, work, budget)
        else:
            facts = run_peer(task, work, Budget(entry.seconds, entry.jobs), system=entry.system)
        return {**facts, "score": round(score(task, labels, work), 5)}
    except (SystemFailedError, ValueError, LookupError, StopIteration, OSError, pl.exceptions.PolarsError) as error:
        return {"error": f"{type(error).__name__}: {error}"[:1200]}


def rowcast_options(task: Task, preset: str) -> tuple[str, ...]:
    """Return the options for `rowcast train`; older versions have no option for the task."""
    options = ("--task", task.kind) if "--task" in train_help() else ()
    return options if preset == NO_PRESET else (*options, "--preset", preset)


@cache
def train_help() -> str:
    """Return the help text of `rowcast train`."""
    return rowcast("train", "--help").output


def load(task: Task) -> pl.DataFrame:
    """Return the table as strings, without the excluded columns: at most MOST_ROWS rows, all of which have a target
    value."""
    frame = pl.read_csv(task.path, infer_schema=False).drop(task.exclude).drop_nulls(task.target)
    if task.kind != "regression":
        frame = frame.with_columns(pl.col(task.target).str.strip_chars().str.replace(r"^(-?\d+)\.0$", "$1"))
        frame = frame.filter(pl.len().over(task.target) >= RAREST)
    if frame.height > MOST_ROWS:
        frame = frame[np.sort(np.random.RandomState(0).choice(frame.height, MOST_ROWS, replace=False))]
    return frame


def target(frame: pl.DataFrame, task: Task) -> np.ndarray:
    """Return the target values: numbers for a regression, otherwise labels."""
    column = frame[task.target]
    return column.cast(pl.Float64).to_numpy() if task.kind == "regression" else np.array(column.to_list())


def split(labels: np.ndarray, task: Task, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the training rows and the test rows."""
    classes = None if task.kind == "regression" else labels
    rows = np.arange(len(labels))
    train, test = train_test_split(rows, test_size=TEST_SHARE, random_state=seed, stratify=classes)
    return train, test


def constant_score(task: Task, train: np.ndarray, test: np.ndarray) -> float:
    """Return the score of a prediction that is the same for all rows."""
    if task.kind == "regression":
        return 0.0
    if task.kind == "binary":
        return 0.5
    labels, counts = np.unique(train, return_counts=True)
    return float(np.mean(test == labels[counts.argmax()]))


if __name__ == "__main__":
    sys.exit(main())
