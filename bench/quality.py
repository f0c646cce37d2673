"""How good the models are: every table of a folder, trained as a person would, scored by the served graph.

    python bench/quality.py run --data FOLDER [--tables a,b] [--system autogluon --python THEIRS] [--seconds 60]
    python bench/quality.py page

FOLDER holds `manifest.json`, whose entries name a table, its target and what is known of it: columns that must be left
out, labels to mend, the score of a reference model. Three shuffled folds (seed 0) of at most 20,000 rows; each system
sees the training part of a fold as a CSV file and answers for the other rows. Figures are appended to
`quality.jsonl`; `page` writes docs/reference/quality.md from the newest of each. Another system needs an environment
of its own, with this interpreter's name as THEIRS:

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

from rowcast import tables

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "quality.jsonl"
PAGE = HERE.parent / "docs" / "reference" / "quality.md"
ROW = "row of the fold"
FOLDS, MOST_ROWS, SLACK = 3, 20_000, 0.01
LEAST = {"autogluon": -0.003, "flaml": 0.0}
"""The mean distance to another system that is promised at least."""
MEASURES = {"binary": "roc_auc", "multiclass": "accuracy", "regression": "r2"}


@dataclass(frozen=True)
class Task:
    """One table of the folder, as every system gets it."""

    name: str
    path: Path
    kind: str
    target: str
    positive: str | None
    exclude: tuple[str, ...]
    map: Mapping[str, str]
    """How labels are mended: in one table each has a second spelling that ends with a full stop."""
    reference: float
    spread: float

    @property
    def measure(self) -> str:
        return MEASURES[self.kind]


def main() -> int:
    """Run or write; 1 where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--tables", help="names by comma; all")
    running.add_argument("--system", choices=("rowcast", *LEAST), default="rowcast")
    running.add_argument("--python", type=Path, help="the other system's interpreter")
    running.add_argument("--seconds", type=int, default=60)
    running.add_argument("--jobs", type=int, default=1, help="threads; another system gets one a core")
    running.add_argument("--results", type=Path, default=RESULTS)
    running.add_argument("--options", default="", help="more options for `rowcast train`")
    writing = commands.add_parser("page")
    writing.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.command == "page":
        return page(options.results)
    wanted = set(options.tables.split(",")) if options.tables else None
    for task in tasks(options.data):
        if wanted is None or task.name in wanted:
            record(task, options)
    return 0


def tasks(folder: Path) -> Iterator[Task]:
    """What the manifest says of each table."""
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
    """The three folds of one table by one system; a line in the results."""
    frame, target = load(task)
    found: list[Mapping[str, Any]] = []
    for train, test in cuts(target, task.kind):
        with tempfile.TemporaryDirectory(prefix="rowcast-quality-") as folder:
            work = Path(folder)
            tables.write(frame[train], work / "train.csv")
            rows = frame[test].drop(task.target).with_row_index(ROW)
            tables.write(rows if options.system == "rowcast" else rows.drop(ROW), work / "test.csv")
            began = time.monotonic()
            facts = ours(task, work, options) if options.system == "rowcast" else theirs(task, work, options)
            wall = time.monotonic() - began
            answers = pl.read_csv(work / "answers.csv", infer_schema=False)
            found.append({**facts, "wall": round(wall, 1), "score": score(task, target[test], answers)})
            print(task.name, found[-1], file=sys.stderr, flush=True)
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
        "score": round(fmean(fold["score"] for fold in found), 5),
        "folds": found,
    }
    with options.results.open("a") as out:
        out.write(json.dumps(line) + "\n")
    print(f"{task.name:24} {options.system} {line['score']:.4f} reference {task.reference:.4f}", flush=True)


def load(task: Task) -> tuple[pl.DataFrame, np.ndarray]:
    """The table as texts, without what must be left out, and its labels mended."""
    frame = tables.read(task.path).frame
    frame = frame.drop([name for name in task.exclude if name in frame.columns])
    if frame.height > MOST_ROWS:
        chosen = np.sort(np.random.default_rng(0).permutation(frame.height)[:MOST_ROWS])
        frame = frame[chosen]
    target = np.array([str(label).strip() for label in frame[task.target].to_list()], object)
    target = np.array([task.map.get(label, label) for label in target.tolist()])
    return frame.with_columns(pl.Series(task.target, target)), target.astype(
        float
    ) if task.kind == "regression" else target


def cuts(target: np.ndarray, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test rows of each fold."""
    cutter = KFold if kind == "regression" else StratifiedKFold
    return iter(cutter(FOLDS, shuffle=True, random_state=0).split(target, target))


def ours(task: Task, work: Path, options: argparse.Namespace) -> Mapping[str, Any]:
    """`rowcast train` and `rowcast predict`, as a person calls them: what answers is the served graph."""
    home = ["--home", work / "home"]
    positive = ["--positive", task.positive] if task.positive is not None and task.kind == "binary" else []
    told = called(
        *("train", work / "train.csv", "--target", task.target, "--name", "model", "--json", *home, *positive),
        *("--timeout", options.seconds, "--jobs", options.jobs, *options.options.split()),
    )
    files = ("--out", work / "scored.csv", "--rejects", work / "rejects.csv")
    scored = called("predict", "model", work / "test.csv", *files, "--json", *home)
    whole(work).write_csv(work / "answers.csv")
    return {
        "refused": scored["rejected"],
        "members": told["candidates"][0].get("members") or {told["candidates"][0]["name"]: 1.0},
        "train": told["seconds"],
        "holdout": told["holdout"].get(task.measure),
        "flips": told["parity"]["label_flips"],
        "apart": told["parity"]["max_abs_diff"],
    }


def whole(work: Path) -> pl.DataFrame:
    """The answers to all rows in their order; a row that the server refuses counts with the mean answer."""
    asked = pl.read_csv(work / "test.csv", infer_schema=False).select(ROW)
    answers = asked.join(
        pl.read_csv(work / "scored.csv", infer_schema=False), on=ROW, how="left", maintain_order="left"
    )
    numbers = [name for name in answers.columns if name.startswith("probability.")]
    usual = answers["prediction"].drop_nulls().mode().sort()[0]
    if not numbers:
        usual = str(answers["prediction"].cast(pl.Float64).mean())
    means = [pl.col(name).fill_null(str(answers[name].cast(pl.Float64).mean())) for name in numbers]
    return answers.with_columns(pl.col("prediction").fill_null(usual), *means)


def called(*arguments: Any) -> dict[str, Any]:
    """What a rowcast command prints."""
    command = [sys.executable, "-m", "rowcast.cli", *map(str, arguments)]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"{' '.join(command)}\n{finished.stderr}")
    document: dict[str, Any] = json.loads(finished.stdout)
    return document


def theirs(task: Task, work: Path, options: argparse.Namespace) -> Mapping[str, Any]:
    """Another system through its small script beside this one."""
    script = HERE / f"peer_{options.system}.py"
    cores = str(os.cpu_count())
    command = [options.python, script, work, task.target, task.kind, str(options.seconds), cores]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=work)
    return {}


def score(task: Task, target: np.ndarray, answers: pl.DataFrame) -> float:
    """The measure of the task on rows no system has seen."""
    if task.kind == "regression":
        return float(metrics.r2_score(target, answers["prediction"].cast(pl.Float64).to_numpy()))
    if task.kind == "multiclass":
        return float(np.mean(answers["prediction"].to_numpy() == target))
    positive = (task.positive or max(set(target.tolist()))).lower()  # TRUE and True are one label
    column = next(name for name in answers.columns if name.lower() == f"probability.{positive}")
    hits = [label.lower() == positive for label in target]
    return float(metrics.roc_auc_score(hits, answers[column].cast(pl.Float64)))


def page(results: Path) -> int:
    """Write the page from the newest figures; 1 where a promise is broken."""
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for text in results.read_text().splitlines():
        line = json.loads(text)
        newest[line["system"], line["table"]] = line
    own = {table: line for (system, table), line in newest.items() if system == "rowcast"}
    gaps = [line["score"] - line["reference"] for line in own.values()]
    broken = [table for table, line in own.items() if line["score"] < line["reference"] - allowed(line)]
    promises = [
        f"| tables below their reference by more than they may | {', '.join(broken) or 'none'} | none |",
        f"| mean distance to the reference | {fmean(gaps):+.4f} | above 0 |",
        f"| label flips between trained model and graph | {total(own, 'flips')} | 0 |",
    ]
    kept = not broken and fmean(gaps) > 0 and not total(own, "flips")
    for peer, least in LEAST.items():
        pairs = [(own[table]["score"], line["score"]) for (system, table), line in newest.items() if system == peer]
        gap = fmean(ours - others for ours, others in pairs)
        promises.append(f"| mean distance to {peer}, {len(pairs)} tables | {gap:+.4f} | {least:+.3f} or more |")
        kept = kept and gap >= least
    first = next(iter(own.values()))
    rows = [row(table, line, newest) for table, line in sorted(own.items())]
    PAGE.write_text(
        TEXT.format(
            seconds=first["seconds"],
            when=max(line["at"] for line in own.values())[:10],
            promises="\n".join(promises),
            rows="\n".join(rows),
        )
    )
    print("\n".join(promises))
    return 0 if kept else 1


def allowed(line: Mapping[str, Any]) -> float:
    """How far below the reference a table may come out."""
    return max(SLACK, line["spread"])


def total(own: Mapping[str, Mapping[str, Any]], fact: str) -> int:
    """The sum of a fact over all folds of all tables."""
    return sum(int(fold[fact]) for line in own.values() for fold in line["folds"])


def row(table: str, line: Mapping[str, Any], newest: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """One line of the page's table."""
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


TEXT = """# How good the models are

Public tables, each trained with nothing but its target named (and columns left out that hold the answer), at most
{seconds} seconds a model on one core, scored by the published graph on rows that training had not seen: three shuffled
folds (seed 0) of at most 20,000 rows. Measured on {when} by `bench/quality.py`. A row that the server refuses, because
a cell is missing that was never missing in training, counts with the mean answer.

The reference is the better of a linear model and histogram gradient boosting of scikit-learn on the same folds, which
learn from every training row; Rowcast keeps a fifth of them aside to certify what it publishes. A table may come out
below its reference by 0.01 or by what the reference itself varies from fold to fold. AutoGluon (medium preset) and
FLAML got the same rows and seconds, and two cores.

| promise | found | must be |
|---|---|---|
{promises}

| table | rows | measure | Rowcast | reference | distance | AutoGluon | FLAML | seconds | kinds in the graphs |
|---|---|---|---|---|---|---|---|---|---|
{rows}
"""


if __name__ == "__main__":
    sys.exit(main())
