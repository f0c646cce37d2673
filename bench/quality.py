"""Measure model quality: train with default options on every table in a folder, and predict with the published
graph.

    python bench/quality.py run --data FOLDER [--tables a,b] [--system autogluon --python PYTHON] [--seconds 60]
    python bench/quality.py page

FOLDER contains `manifest.json`, which lists tables with their targets, columns to exclude, labels to correct and the
scores of reference models. At most 20,000 rows of each table are used, in three shuffled folds (seed 0). Each system
receives the training part of a fold as a CSV file and predicts the other rows. Figures are appended to
`quality.jsonl`; `page` writes docs/reference/quality.md from the latest figures for each table. Every other system
needs a separate environment; PYTHON is the interpreter of that environment:

    autogluon   pip install torch==2.13.0 'autogluon.tabular[lightgbm,catboost,xgboost,fastai]==1.6.3'
    flaml       pip install 'flaml[automl]==2.7.0'
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
from sklearn import metrics
from sklearn.model_selection import KFold, StratifiedKFold

from rowcast.tables.read import read_table
from rowcast.tables.write import open_writer

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "quality.jsonl"
PAGE = HERE.parent / "docs" / "reference" / "quality.md"
ROW = "row of the fold"
FOLDS, MOST_ROWS, SLACK = 3, 20_000, 0.01
LEAST = {"autogluon": -0.003, "flaml": 0.0}
"""The lowest acceptable mean difference: Rowcast's score minus the other system's score."""
PEERS = {"autogluon": "AutoGluon", "flaml": "FLAML"}
MEASURES = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}


@dataclass(frozen=True)
class Task:
    """One table in the folder; every system gets the same tables."""

    name: str
    path: Path
    kind: str
    target: str
    positive: str | None
    exclude: tuple[str, ...]
    map: Mapping[str, str]
    """Label corrections: in one table, each label has a second spelling that ends with a period."""
    reference: float
    spread: float

    @property
    def measure(self) -> str:
        return MEASURES[self.kind]


def main() -> int:
    """Run the command; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--tables", help="comma-separated names; default: all")
    running.add_argument("--system", choices=("rowcast", *LEAST), default="rowcast")
    running.add_argument("--python", type=Path, help="interpreter of the other system")
    running.add_argument("--seconds", type=int, default=60)
    running.add_argument("--jobs", type=int, default=1, help="number of threads")
    running.add_argument("--results", type=Path, default=RESULTS)
    running.add_argument("--options", default="", help="further options for `rowcast train`")
    writing = commands.add_parser("page")
    writing.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "page":
        return page(options.results)
    names = set(options.tables.split(",")) if options.tables else None
    for task in tasks(options.data):
        if names is None or task.name in names:
            record(task, options)
    return 0


def tasks(folder: Path) -> Iterator[Task]:
    """Yield one task for each table in the manifest."""
    for entry in json.loads((folder / "manifest.json").read_text()):
        kind = entry["task"]
        known = entry["reference"]
        scores = [known[model][MEASURES[kind]] for model in ("linear", "hgb")]
        labels = [str(label).strip() for label in entry.get("classes") or ()] if kind != "regression" else []
        yield Task(
            name=entry["name"],
            path=folder / entry["file"],
            kind=kind,
            target=entry["target"].strip(),
            positive=None if entry.get("positive") is None else str(entry["positive"]).strip(),
            exclude=tuple(entry.get("leak_columns") or ()) + tuple(entry.get("id_columns") or ()),
            map={f"{label}.": label for label in labels},
            reference=max(scores),
            spread=known["std_hgb"],
        )


def record(task: Task, options: argparse.Namespace) -> None:
    """Run one system on the three folds of one table, and append a line to the results."""
    frame, target = load(task)
    folds: list[Mapping[str, Any]] = []
    for train, test in split_folds(target, task.kind):
        with tempfile.TemporaryDirectory(prefix="rowcast-quality-") as folder:
            work = Path(folder)
            write_table(frame[train], work / "train.csv")
            rows = frame[test].drop(task.target).with_row_index(ROW)
            write_table(rows if options.system == "rowcast" else rows.drop(ROW), work / "test.csv")
            began = time.monotonic()
            facts = run_rowcast(task, work, options) if options.system == "rowcast" else run_peer(task, work, options)
            wall = time.monotonic() - began
            answers = pl.read_csv(work / "answers.csv", infer_schema=False)
            folds.append({**facts, "wall": round(wall, 1), "score": score(task, target[test], answers)})
            print(task.name, folds[-1], file=sys.stderr, flush=True)
    line = {
        "table": task.name,
        "rows": len(target),
        "measure": task.measure,
        "system": options.system,
        "seconds": options.seconds,
        "options": options.options,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "load": round(os.getloadavg()[1], 1),
        "reference": task.reference,
        "spread": task.spread,
        "score": round(fmean(fold["score"] for fold in folds), 5),
        "folds": folds,
    }
    with options.results.open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(f"{task.name:24} {options.system} {line['score']:.4f} reference {task.reference:.4f}", flush=True)


def load(task: Task) -> tuple[pl.DataFrame, np.ndarray]:
    """Return the table as strings, without the excluded columns, and the corrected labels."""
    frame = read_table(task.path).frame
    frame = frame.drop([name for name in task.exclude if name in frame.columns])
    if frame.height > MOST_ROWS:
        sample = np.sort(
            np.random.RandomState(0).choice(frame.height, MOST_ROWS, replace=False)
        )  # the sample that pandas would draw
        frame = frame[sample]
    target = np.array([str(label).strip() for label in frame[task.target].to_list()], object)
    target = np.array([task.map.get(label, label) for label in target.tolist()])
    return frame.with_columns(pl.Series(task.target, target)), target.astype(
        float
    ) if task.kind == "regression" else target


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame as a CSV file."""
    with open_writer(path) as writer:
        writer.append(writer.prepare(frame, first=True))


def split_folds(target: np.ndarray, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the training and test rows of each fold."""
    cutter = KFold if kind == "regression" else StratifiedKFold
    return iter(cutter(FOLDS, shuffle=True, random_state=0).split(target, target))


def run_rowcast(task: Task, work: Path, options: argparse.Namespace) -> Mapping[str, Any]:
    """Run `rowcast train` and `rowcast predict`, so that the published graph makes the predictions."""
    home = ["--home", work / "home"]
    positive = ["--positive", task.positive] if task.positive is not None and task.kind == "binary" else []
    result = rowcast(
        *("train", work / "train.csv", "--target", task.target, "--name", "model", "--json", *home, *positive),
        *("--timeout", options.seconds, "--jobs", options.jobs, *options.options.split()),
    )
    files = ("--out", work / "scored.csv", "--rejects", work / "rejects.csv")
    scored = rowcast("predict", "model", work / "test.csv", *files, "--json", *home)
    complete_answers(work).write_csv(work / "answers.csv")
    return {
        "refused": scored["rejected"],
        "members": result["candidates"][0].get("members") or {result["candidates"][0]["name"]: 1.0},
        "train": result["seconds"],
        "holdout": result["holdout"].get(task.measure),
        "flips": result["parity"]["label_flips"],
        "apart": result["parity"]["max_abs_diff"],
    }


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


def rowcast(*arguments: Any) -> dict[str, Any]:
    """Run a `rowcast` command and return its JSON output."""
    command = [sys.executable, "-m", "rowcast.cli", *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def run_peer(task: Task, work: Path, options: argparse.Namespace) -> Mapping[str, Any]:
    """Run another system with its script in this folder."""
    script = HERE / f"peer_{options.system}.py"
    command = [options.python, script, work, task.target, task.kind, str(options.seconds), str(options.jobs)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=work)
    return {}


def score(task: Task, target: np.ndarray, answers: pl.DataFrame) -> float:
    """Return the task's metric on the test rows."""
    if task.kind == "regression":
        return float(metrics.r2_score(target, answers["prediction"].cast(pl.Float64).to_numpy()))
    if task.kind == "multiclass":
        return float(np.mean(answers["prediction"].to_numpy() == target))
    positive = (task.positive or max(set(target.tolist()))).lower()  # TRUE and True are the same label
    column = next(name for name in answers.columns if name.lower() == f"probability.{positive}")
    hits = [label.lower() == positive for label in target]
    return float(metrics.roc_auc_score(hits, answers[column].cast(pl.Float64)))


def page(results: Path) -> int:
    """Write the page from the latest figures; return 1 if a requirement is not met."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        newest[line["system"], line["table"]] = line
    own = {table: line for (system, table), line in newest.items() if system == "rowcast"}
    gaps = [line["score"] - line["reference"] for line in own.values()]
    broken = [table for table, line in own.items() if line["score"] < line["reference"] - tolerance(line)]
    requirements = [
        f"| tables below their reference by more than the tolerance | {', '.join(broken) or 'none'} | none |",
        f"| mean difference from the reference | {fmean(gaps):+.4f} | above 0 |",
        f"| label flips between the trained model and the graph | {total(own, 'flips')} | 0 |",
    ]
    kept = not broken and fmean(gaps) > 0 and not total(own, "flips")
    for peer, least in LEAST.items():
        pairs = [(own[table]["score"], line["score"]) for (system, table), line in newest.items() if system == peer]
        gap = fmean(ours - others for ours, others in pairs)
        name = PEERS[peer]
        requirements.append(
            f"| mean difference from {name}, {len(pairs)} tables | {gap:+.4f} | at least {least:+.3f} |"
        )
        kept = kept and gap >= least
    first = next(iter(own.values()))
    rows = [row(table, line, newest) for table, line in sorted(own.items())]
    PAGE.write_text(
        TEXT.format(
            seconds=first["seconds"],
            when=max(line["at"] for line in own.values())[:10],
            requirements="\n".join(requirements),
            rows="\n".join(rows),
        )
    )
    print("\n".join(requirements))
    return 0 if kept else 1


def tolerance(line: Mapping[str, Any]) -> float:
    """Return how far below the reference a table's score may be."""
    return max(SLACK, line["spread"])


def total(own: Mapping[str, Mapping[str, Any]], fact: str) -> int:
    """Return the sum of a figure over all folds of all tables."""
    return sum(int(fold[fact]) for line in own.values() for fold in line["folds"])


def row(table: str, line: Mapping[str, Any], newest: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return a row of the page's table."""
    kinds = sorted({kind for fold in line["folds"] for kind in fold["members"]})
    others = [f"{newest[peer, table]['score']:.4f}" if (peer, table) in newest else "" for peer in LEAST]
    cells = [
        table,
        str(line["rows"]),
        line["measure"],
        f"{line['score']:.4f}",
        f"{line['reference']:.4f}",
        f"{line['score'] - line['reference']:+.4f}",
        *others,
        f"{fmean(fold['train'] for fold in line['folds']):.0f}",
        ", ".join(kinds),
    ]
    return f"| {' | '.join(cells)} |"


TEXT = """# Model quality

These figures compare Rowcast with other tools on public tables. Each model is trained for at most {seconds} seconds on
one core with default options, except that the target is specified and leaking columns are excluded. The published graph
predicts rows that were not used in training. At most 20,000 rows of each table are used, in three shuffled folds
(seed 0). If a row is rejected because it lacks a value that was never missing in training, the mean prediction is used
instead. `bench/quality.py` measured the figures on {when}.

The reference is the score of the better of two scikit-learn models on the same folds: a linear model and histogram
gradient boosting. These models are trained on all training rows; Rowcast uses a fifth of these rows as the holdout.
Rowcast's score must be no more than 0.01 below the reference, or no more than one standard deviation of the reference
across folds if that is larger. AutoGluon (medium preset) and FLAML were given the same rows, the same time limit and
one core.

| requirement | measured | required |
|---|---|---|
{requirements}

| table | rows | metric | Rowcast | reference | difference | AutoGluon | FLAML | seconds | kinds of models |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
