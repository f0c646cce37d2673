"""A million loan applications from disk to disk, beside bare ONNX Runtime, pandas + scikit-learn and MLflow.

    python bench/batch.py [--rows 1000000] [--more 4000000] [--rounds 3]

Every figure is taken in a process of its own. The baseline is bare ONNX Runtime: one `session.run` over arrays that
lie ready in memory, all rows in one call, with one thread and with one a core; the promise is held against the faster
of the two, in wall clock of the same run. Its seconds and CPU seconds are those of the call alone, ours are from the
file that is read to the file that is written, CPU and memory those of the whole process tree. On a machine that is busy
with other things, CPU seconds compare and wall clock does not. JSON Lines and the peers (`peers.py`) run once.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import peers
import polars as pl
from promises import record

from rowcast import tables
from rowcast.registry import bundle
from rowcast.tables import examples

HERE = Path(__file__).resolve().parent
RATIO, MEGABYTES, GROWTH = 1.3, 400.0, 1.05
PIECE = 100_000


class Run(NamedTuple):
    """One process, from start to end."""

    seconds: float
    cpu: float
    megabytes: float
    said: str


class Promise(NamedTuple):
    """A figure and its bound."""

    name: str
    found: float
    most: float


def main() -> int:
    """Measure, print, append to results.jsonl; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--more", type=int, default=4_000_000, help="rows for the second look at memory; 0 for none")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        work = Path(folder)
        model = train(work)
        generate(work, "rows", options.rows, "csv", "parquet", "jsonl")
        figures = measure(work, model, options.rounds)
        figures["rowcast jsonl"] = [predict(work, "rows", "jsonl")]
        figures |= beside(work)
        if options.more:
            generate(work, "more", options.more, "csv", "parquet")
            for kind in ("csv", "parquet"):
                figures[f"rowcast {kind}, {options.more:,} rows"] = [predict(work, "more", kind)]
                (work / f"out.{kind}").unlink()
    found = {name: summary(runs) for name, runs in figures.items()}
    promises = judged(found, options.more)
    show(found, promises)
    record(
        "batch",
        versions={name: version(name) for name in ("polars", "onnxruntime", "numpy")},
        peers=peers.PINS,
        rows=options.rows,
        more=options.more,
        rounds=options.rounds,
        medians=found,
        checks={promise.name: round(promise.found, 3) for promise in promises},
        kept=all(promise.found <= promise.most for promise in promises),
    )
    return 0 if all(promise.found <= promise.most for promise in promises) else 1


def train(work: Path) -> Path:
    """The 200-tree model's folder."""
    tables.write(pl.DataFrame(examples.loans(5000, 0)), work / "train.csv")
    command = [sys.executable, HERE / "model.py", work / "train.csv", work / "home"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(finished.stdout.strip())


def generate(work: Path, name: str, rows: int, *kinds: str) -> None:
    """`rows` applications without their labels, a piece at a time."""
    with ExitStack() as files:
        writers = [files.enter_context(tables.writing(work / f"{name}.{kind}")) for kind in kinds]
        for start in range(0, rows, PIECE):
            frame = pl.DataFrame(examples.loans(min(PIECE, rows - start), 7 + start)).drop("loan_status")
            for writer in writers:
                writer.append(writer.prepare(frame, first=start == 0))


def measure(work: Path, model: Path, rounds: int) -> dict[str, list[Run]]:
    """Everything that is compared, in turns, so that a busy minute falls on all of them."""
    figures: dict[str, list[Run]] = {}
    cores = len(os.sched_getaffinity(0))
    for _ in range(rounds):
        for threads in sorted({1, cores}):
            name = f"onnxruntime, ready array, {threads} threads" if threads > 1 else BARE
            figures.setdefault(name, []).append(alone(work, model, threads))
        for kind in ("csv", "parquet"):
            figures.setdefault(f"rowcast {kind}", []).append(predict(work, "rows", kind))
    return figures


BARE = "onnxruntime, ready array, 1 thread"


def beside(work: Path) -> dict[str, list[Run]]:
    """What people use instead, with a model of like size; MLflow's command prints no seconds: start included."""
    python, script, model = peers.python(), HERE / "usual.py", work / "usual"
    watched([python, script, "train", work / "train.csv", model])
    figures = {}
    for kind in ("csv", "parquet"):
        run = watched([python, script, "score", model, work / f"rows.{kind}", work / f"usual.{kind}"])
        figures[f"pandas + scikit-learn {kind}"] = [run._replace(seconds=float(run.said))]
    command = [python, "-m", "mlflow", "models", "predict", "--env-manager", "local", "-m", model, "-t", "csv"]
    figures["mlflow models predict csv"] = [watched([*command, "-i", work / "rows.csv", "-o", work / "usual.json"])]
    return figures


def predict(work: Path, name: str, kind: str) -> Run:
    """`rowcast predict`, as a person calls it; the seconds are those that it prints."""
    command = [sys.executable, "-m", "rowcast.cli", "predict", "loans", work / f"{name}.{kind}"]
    run = watched([*command, "--out", work / f"out.{kind}", "--home", work / "home", "--json"])
    return run._replace(seconds=json.loads(run.said)["seconds"])


def alone(work: Path, model: Path, threads: int) -> Run:
    """`bare` in a process of its own."""
    run = watched([sys.executable, __file__, "--bare", work, model, threads])
    seconds, cpu = map(float, run.said.split())
    return run._replace(seconds=seconds, cpu=cpu)


def watched(command: list[Any]) -> Run:
    """Run a command; the peak of its tree's resident memory is looked at every 20 ms."""
    began = time.monotonic()
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)
    before, peak = resource.getrusage(resource.RUSAGE_CHILDREN), 0.0
    while process.poll() is None:
        peak = max(peak, tree_megabytes(process.pid))
        time.sleep(0.02)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.stdout is not None
    said = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Run(seconds, cpu, peak, said)


def tree_megabytes(root: int) -> float:
    """Resident memory of a process and of all its descendants."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            waiting += [int(child) for child in children.split()]
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def bare(work: str, model: str, threads: str) -> None:
    """ONNX Runtime alone, over tensors that are ready."""
    import onnxruntime as ort

    opened = bundle.open(Path(model))
    frame = pl.read_parquet(Path(work) / "rows.parquet")
    tensors = tables.encode(frame, opened.manifest.schema, opened.manifest.plan)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = int(threads)
    session = ort.InferenceSession(opened.model, settings, providers=["CPUExecutionProvider"])
    output = [opened.manifest.output.name]
    session.run(output, {name: tensor[:1000] for name, tensor in tensors.items()})
    began, worked = time.monotonic(), time.process_time()
    session.run(output, tensors)
    print(time.monotonic() - began, time.process_time() - worked)


def summary(runs: list[Run]) -> dict[str, float]:
    """The median time and the highest peak."""
    return {
        "seconds": round(median(run.seconds for run in runs), 3),
        "cpu": round(median(run.cpu for run in runs), 3),
        "megabytes": round(max(run.megabytes for run in runs), 1),
    }


def judged(found: dict[str, dict[str, float]], more: int) -> list[Promise]:
    """What `rowcast predict` must hold against the faster way of bare ONNX Runtime, in memory, at more rows."""
    bares = [name for name in found if name.startswith("onnxruntime")]
    alike = min(bares, key=lambda name: found[name]["seconds"])
    promises = []
    for kind in ("csv", "parquet"):
        ours = found[f"rowcast {kind}"]
        promises.append(Promise(f"{kind}: seconds / {alike}", ours["seconds"] / found[alike]["seconds"], RATIO))
        promises.append(Promise(f"{kind}: megabytes", ours["megabytes"], MEGABYTES))
        if more:
            larger = found[f"rowcast {kind}, {more:,} rows"]["megabytes"]
            promises.append(Promise(f"{kind}: megabytes at {more:,} rows", larger, MEGABYTES))
            promises.append(Promise(f"{kind}: megabytes / megabytes of fewer rows", larger / ours["megabytes"], GROWTH))
    return promises


def show(found: dict[str, dict[str, float]], promises: list[Promise]) -> None:
    """Both tables on screen."""
    base = found[BARE]["seconds"]
    print(f"{'what':44} {'seconds':>9} {'/ bare':>7} {'CPU s':>7} {'peak MB':>8}")
    for name, figures in found.items():
        times = f"{figures['seconds']:9.2f} {figures['seconds'] / base:7.2f} {figures['cpu']:7.2f}"
        print(f"{name:44} {times} {figures['megabytes']:8.0f}")
    print(f"\n{'promise':64} {'found':>8} {'at most':>8}")
    for promise in promises:
        verdict = "kept" if promise.found <= promise.most else "broken"
        print(f"{promise.name:64} {promise.found:8.2f} {promise.most:8.2f} {verdict}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        bare(*sys.argv[2:])
    else:
        sys.exit(main())
