"""Train a model on a table with Rowcast or another system, as a user would, and score its predictions. Used by
quality.py and unseen.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import peers
import polars as pl
from machine import process_tree, resident
from sklearn import metrics

from rowcast.tables.write import open_writer

HERE = Path(__file__).resolve().parent
ROW = "row of the fold"
PEERS = {"autogluon": "AutoGluon", "flaml": "FLAML"}
MEASURES = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}


@dataclass(frozen=True)
class Task:
    """A table and its prediction task. Every system receives the same data."""

    name: str
    path: Path
    kind: str
    target: str
    positive: str | None = None
    exclude: tuple[str, ...] = ()
    map: Mapping[str, str] = field(default_factory=dict)
    """Maps incorrect labels to correct ones. In one table, some labels end with a period and others do not."""
    reference: float = 0.0
    spread: float = 0.0

    @property
    def measure(self) -> str:
        return MEASURES[self.kind]


@dataclass(frozen=True)
class Budget:
    """The time limit and the number of threads for a system, and additional options for `rowcast train`."""

    seconds: int
    jobs: int
    options: tuple[str, ...] = ()


class SystemFailedError(Exception):
    """A system failed. The message is the last part of the system's standard error output."""


@dataclass(frozen=True)
class Finished:
    """A finished process: its output, its wall time and the peak memory of its process tree."""

    output: str
    seconds: float
    megabytes: float


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as a CSV file."""
    with open_writer(path) as writer:
        writer.append(writer.prepare(frame, first=True))


def write_parts(train: pl.DataFrame, test: pl.DataFrame, task: Task, system: str, work: Path) -> None:
    """Write the training rows, and the test rows without the target; for Rowcast, number the test rows."""
    write_table(train, work / "train.csv")
    rows = test.drop(task.target)
    write_table(rows.with_row_index(ROW) if system == "rowcast" else rows, work / "test.csv")


def run_rowcast(task: Task, work: Path, budget: Budget) -> dict[str, Any]:
    """Run `rowcast train` and `rowcast predict`, so that the published graph makes the predictions."""
    home = ["--home", work / "home"]
    positive = ["--positive", task.positive] if task.positive is not None and task.kind == "binary" else []
    trained = rowcast(
        *("train", work / "train.csv", "--target", task.target, "--name", "model", "--json", *home, *positive),
        *("--timeout", budget.seconds, "--jobs", budget.jobs, *budget.options),
        limit=limit(budget),
    )
    result = json.loads(trained.output)
    files = ("--out", work / "scored.csv", "--rejects", work / "rejects.csv")
    scored = json.loads(rowcast("predict", "model", work / "test.csv", *files, "--json", *home).output)
    complete_answers(work).write_csv(work / "answers.csv")
    return {
        "refused": scored["rejected"],
        "members": result["candidates"][0].get("members") or {result["candidates"][0]["name"]: 1.0},
        "train": result["seconds"],
        "wall": round(trained.seconds, 1),
        "memory_mb": round(trained.megabytes),
        "bundle_mb": round(size(Path(result["path"])) / 1e6, 2),
        "row_us": result.get("row_microseconds"),
        "holdout": result["holdout"].get(task.measure),
        "flips": result["parity"]["label_flips"],
        "apart": result["parity"]["max_abs_diff"],
    }


def run_peer(task: Task, work: Path, budget: Budget, *, system: str) -> dict[str, Any]:
    """Run the script in this folder that trains another system and predicts with it."""
    script = HERE / f"peer_{system}.py"
    python = peers.python(*peers.SYSTEMS[system])
    ran = run([python, script, work, task.target, task.kind, budget.seconds, budget.jobs], work, limit(budget))
    return {"wall": round(ran.seconds, 1), "memory_mb": round(ran.megabytes)}


def limit(budget: Budget) -> float:
    """Return how many seconds to wait before killing a system that ignores its time limit."""
    return 5 * budget.seconds + 300


def rowcast(*arguments: Any, limit: float = 600) -> Finished:
    """Run a `rowcast` command."""
    return run([sys.executable, "-m", "rowcast.cli", *arguments], HERE.parent, limit)


def run(command: list[Any], folder: Path, limit: float) -> Finished:
    """Run a command in a folder, track the memory usage of its process tree, and kill the tree after `limit` seconds.

    Memory pages that several processes share are counted once per process.
    """
    peak, began = 0.0, time.monotonic()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            list(map(str, command)), cwd=folder, stdout=out, stderr=errors, start_new_session=True
        )
        try:
            while process.poll() is None and time.monotonic() - began < limit:
                peak = max(peak, sum(map(resident, process_tree(process.pid))))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            seconds = time.monotonic() - began
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        out.seek(0)
        errors.seek(0)
        if process.returncode:
            status = f"killed after {seconds:.0f} s" if seconds >= limit else f"exit status {process.returncode}"
            raise SystemFailedError(f"{status}: {errors.read()[-1000:]}")
        return Finished(out.read(), seconds, peak)


def size(path: Path) -> int:
    """Return the size of a file, or of all files in a folder, in bytes."""
    return sum(entry.stat().st_size for entry in ([path] if path.is_file() else path.rglob("*")) if entry.is_file())


def complete_answers(work: Path) -> pl.DataFrame:
    """Return the predictions for all rows, in order; a rejected row gets the mean prediction."""
    numbered = pl.read_csv(work / "test.csv", infer_schema=False).select(ROW)
    answers = numbered.join(
        pl.read_csv(work / "scored.csv", infer_schema=False), on=ROW, how="left", maintain_order="left"
    )
    numbers = [name for name in answers.columns if name.startswith("probability.")]
    usual = answers["prediction"].drop_nulls().mode().sort()[0]
    if not numbers:
        usual = str(answers["prediction"].cast(pl.Float64).mean())
    means = [pl.col(name).fill_null(str(answers[name].cast(pl.Float64).mean())) for name in numbers]
    return answers.with_columns(pl.col("prediction").fill_null(usual), *means)


def score(task: Task, target: np.ndarray, work: Path) -> float:
    """Return the task's metric on the test rows."""
    answers = pl.read_csv(work / "answers.csv", infer_schema=False)
    if task.kind == "regression":
        return float(metrics.r2_score(target, answers["prediction"].cast(pl.Float64).to_numpy()))
    if task.kind == "multiclass":
        return float(np.mean(answers["prediction"].to_numpy() == target))
    positive = (task.positive or max(set(target.tolist()))).lower()  # TRUE and True are the same label
    column = next(name for name in answers.columns if name.lower() == f"probability.{positive}")
    hits = [label.lower() == positive for label in target]
    return float(metrics.roc_auc_score(hits, answers[column].cast(pl.Float64)))


def commit() -> str:
    """Return the short hash of the checked-out commit."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()
