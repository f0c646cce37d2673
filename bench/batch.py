"""`make bench-batch`: score a file of a million loan applications, and compare the cost with that of bare ONNX Runtime,
pandas + scikit-learn and MLflow.

    python bench/batch.py [--rows 1000000] [--more 4000000] [--rounds 3]

Every figure is measured in a separate process. The baseline is bare ONNX Runtime: a single `session.run` call for all
rows, on arrays in memory. It is measured with one thread and with one thread per core. The requirement compares
Rowcast's wall-clock time with that of the faster baseline in the same run. Baseline times cover only the call.
Rowcast's times include reading and writing the files, and its CPU time and memory include all of its processes. On a
busy machine, CPU times can be compared, but wall-clock times cannot. JSON Lines and the other tools (`peers.py`) are
measured only once.
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
from requirements import record

from rowcast.registry import bundle
from rowcast.tables import examples
from rowcast.tables.encode import encode_table
from rowcast.tables.write import open_writer

HERE = Path(__file__).resolve().parent
RATIO, MEGABYTES, GROWTH = 1.3, 400.0, 1.05
PIECE = 100_000


class Run(NamedTuple):
    """The figures measured for one process."""

    seconds: float
    cpu: float
    megabytes: float
    output: str


class Requirement(NamedTuple):
    """A measured value with its limit."""

    name: str
    value: float
    most: float


def main() -> int:
    """Measure, print and record the figures; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--more", type=int, default=4_000_000, help="number of rows in the second memory test; 0 skips the test"
    )
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        work = Path(folder)
        model = train(work)
        generate(work, "rows", options.rows, "csv", "parquet", "jsonl")
        figures = measure(work, model, options.rounds)
        figures["rowcast jsonl"] = [predict(work, "rows", "jsonl")]
        figures |= measure_alternatives(work)
        if options.more:
            generate(work, "more", options.more, "csv", "parquet")
            for kind in ("csv", "parquet"):
                figures[f"rowcast {kind}, {options.more:,} rows"] = [predict(work, "more", kind)]
                (work / f"out.{kind}").unlink()
    medians = {name: summary(runs) for name, runs in figures.items()}
    requirements = check_requirements(medians, options.more)
    show(medians, requirements)
    record(
        "batch",
        versions={name: version(name) for name in ("polars", "onnxruntime", "numpy")},
        peers=peers.PINS,
        rows=options.rows,
        more=options.more,
        rounds=options.rounds,
        medians=medians,
        checks={requirement.name: round(requirement.value, 3) for requirement in requirements},
        kept=all(requirement.value <= requirement.most for requirement in requirements),
    )
    return 0 if all(requirement.value <= requirement.most for requirement in requirements) else 1


def train(work: Path) -> Path:
    """Train the 200-tree model and return its folder."""
    with open_writer(work / "train.csv") as writer:
        writer.append(writer.prepare(pl.DataFrame(examples.loans(5000, 0)), first=True))
    command = [sys.executable, HERE / "model.py", work / "train.csv", work / "home"]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    return Path(finished.stdout.strip())


def generate(work: Path, name: str, rows: int, *kinds: str) -> None:
    """Write `rows` applications without labels, chunk by chunk."""
    with ExitStack() as files:
        writers = [files.enter_context(open_writer(work / f"{name}.{kind}")) for kind in kinds]
        for start in range(0, rows, PIECE):
            frame = pl.DataFrame(examples.loans(min(PIECE, rows - start), 7 + start)).drop("loan_status")
            for writer in writers:
                writer.append(writer.prepare(frame, first=start == 0))


def measure(work: Path, model: Path, rounds: int) -> dict[str, list[Run]]:
    """Alternate the measurements, so that load from other processes affects all of them equally."""
    figures: dict[str, list[Run]] = {}
    cores = len(os.sched_getaffinity(0))
    for _ in range(rounds):
        for threads in sorted({1, cores}):
            name = f"ONNX Runtime on arrays in memory, {threads} threads" if threads > 1 else BARE
            figures.setdefault(name, []).append(run_bare(work, model, threads))
        for kind in ("csv", "parquet"):
            figures.setdefault(f"rowcast {kind}", []).append(predict(work, "rows", kind))
    return figures


BARE = "ONNX Runtime on arrays in memory, 1 thread"


def measure_alternatives(work: Path) -> dict[str, list[Run]]:
    """Measure the alternatives, each with a model of the same size. MLflow's time includes its startup time."""
    python, script, model = peers.python(), HERE / "usual.py", work / "usual"
    run_sampled([python, script, "train", work / "train.csv", model])
    figures = {}
    for kind in ("csv", "parquet"):
        run = run_sampled([python, script, "score", model, work / f"rows.{kind}", work / f"usual.{kind}"])
        figures[f"pandas + scikit-learn {kind}"] = [run._replace(seconds=float(run.output))]
    command = [python, "-m", "mlflow", "models", "predict", "--env-manager", "local", "-m", model, "-t", "csv"]
    figures["mlflow models predict csv"] = [run_sampled([*command, "-i", work / "rows.csv", "-o", work / "usual.json"])]
    return figures


def predict(work: Path, name: str, kind: str) -> Run:
    """Run `rowcast predict` and return its figures, including the duration that the command prints."""
    command = [sys.executable, "-m", "rowcast.cli", "predict", "loans", work / f"{name}.{kind}"]
    run = run_sampled([*command, "--out", work / f"out.{kind}", "--home", work / "home", "--json"])
    return run._replace(seconds=json.loads(run.output)["seconds"])


def run_bare(work: Path, model: Path, threads: int) -> Run:
    """Run bare ONNX Runtime in a separate process."""
    run = run_sampled([sys.executable, __file__, "--bare", work, model, threads])
    seconds, cpu = map(float, run.output.split())
    return run._replace(seconds=seconds, cpu=cpu)


def run_sampled(command: list[Any]) -> Run:
    """Run a command and sample the resident memory of its process tree every 20 ms."""
    began = time.monotonic()
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1"}
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True, env=environment)
    before, peak = resource.getrusage(resource.RUSAGE_CHILDREN), 0.0
    while process.poll() is None:
        peak = max(peak, tree_megabytes(process.pid))
        time.sleep(0.02)
    seconds, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert process.stdout is not None
    output = process.stdout.read()
    if process.returncode:
        raise SystemExit(f"{command} exited with status {process.returncode}")
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return Run(seconds, cpu, peak, output)


def tree_megabytes(root: int) -> float:
    """Return the resident memory of a process and all of its descendants."""
    total, waiting = 0, [root]
    while waiting:
        pid = waiting.pop()
        with suppress(OSError):
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            waiting += [int(child) for child in children.split()]
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def bare(work: str, model: str, threads: str) -> None:
    """Run bare ONNX Runtime on tensors in memory; print the elapsed seconds and the CPU seconds."""
    import onnxruntime as ort

    opened = bundle.open(Path(model))
    frame = pl.read_parquet(Path(work) / "rows.parquet")
    tensors = encode_table(frame, opened.manifest.schema, opened.manifest.plan)
    settings = ort.SessionOptions()
    settings.intra_op_num_threads = int(threads)
    session = ort.InferenceSession(opened.model, settings, providers=["CPUExecutionProvider"])
    output = [opened.manifest.output.name]
    session.run(output, {name: tensor[:1000] for name, tensor in tensors.items()})
    began, worked = time.monotonic(), time.process_time()
    session.run(output, tensors)
    print(time.monotonic() - began, time.process_time() - worked)


def summary(runs: list[Run]) -> dict[str, float]:
    """Return the median times and the highest memory peak."""
    return {
        "seconds": round(median(run.seconds for run in runs), 3),
        "cpu": round(median(run.cpu for run in runs), 3),
        "megabytes": round(max(run.megabytes for run in runs), 1),
    }


def check_requirements(medians: dict[str, dict[str, float]], more: int) -> list[Requirement]:
    """Return the requirements on run time (relative to the faster ONNX Runtime baseline) and on peak memory."""
    baselines = [name for name in medians if name.startswith("ONNX Runtime")]
    fastest = min(baselines, key=lambda name: medians[name]["seconds"])
    requirements = []
    for kind in ("csv", "parquet"):
        ours = medians[f"rowcast {kind}"]
        requirements.append(
            Requirement(f"{kind} time: Rowcast / {fastest}", ours["seconds"] / medians[fastest]["seconds"], RATIO)
        )
        requirements.append(Requirement(f"{kind}: peak memory, MB", ours["megabytes"], MEGABYTES))
        if more:
            larger = medians[f"rowcast {kind}, {more:,} rows"]["megabytes"]
            requirements.append(Requirement(f"{kind}: peak memory with {more:,} rows, MB", larger, MEGABYTES))
            requirements.append(Requirement(f"{kind}: growth of peak memory", larger / ours["megabytes"], GROWTH))
    return requirements


def show(medians: dict[str, dict[str, float]], requirements: list[Requirement]) -> None:
    """Print the figures and the requirements."""
    base = medians[BARE]["seconds"]
    print(f"{'run':44} {'seconds':>9} {'ratio':>7} {'CPU s':>7} {'peak MB':>8}")
    for name, figures in medians.items():
        times = f"{figures['seconds']:9.2f} {figures['seconds'] / base:7.2f} {figures['cpu']:7.2f}"
        print(f"{name:44} {times} {figures['megabytes']:8.0f}")
    print(f"\n{'requirement':64} {'measured':>8} {'at most':>8}")
    for requirement in requirements:
        verdict = "met" if requirement.value <= requirement.most else "NOT MET"
        print(f"{requirement.name:64} {requirement.value:8.2f} {requirement.most:8.2f} {verdict}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        bare(*sys.argv[2:])
    else:
        sys.exit(main())
