"""Measure model quality: train with default options on every table in a folder, and predict with the published
graph.

    python bench/quality.py run --data FOLDER [--tables a,b] [--system autogluon] [--seconds 60]
    python bench/quality.py page

FOLDER contains `manifest.json`, which lists tables with their targets, columns to exclude, labels to correct and the
scores of reference models. At most 20,000 rows of each table are used, in three shuffled folds (seed 0). Each system
receives the training part of a fold as a CSV file and predicts the other rows. Figures are appended to
`quality.jsonl`; `page` writes docs/reference/quality.md from the latest figures for each table and the figures from
unseen.py. The other systems run in environments that are created on first use (peers.py).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import polars as pl
import unseen_page
from contest import MEASURES, PEERS, Budget, Task, commit, run_peer, run_rowcast, score, write_parts
from sklearn.model_selection import KFold, StratifiedKFold

from rowcast.tables.read import read_table

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "quality.jsonl"
PAGE = HERE.parent / "docs" / "reference" / "quality.md"
FOLDS, MOST_ROWS, SLACK = 3, 20_000, 0.01
LEAST = {"autogluon": -0.003, "flaml": 0.0}
"""The lowest acceptable mean difference: Rowcast's score minus the other system's score."""


def main() -> int:
    """Run the command; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run")
    running.add_argument("--data", type=Path, required=True)
    running.add_argument("--tables", help="comma-separated names; default: all")
    running.add_argument("--system", choices=("rowcast", *LEAST), default="rowcast")
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
    budget = Budget(options.seconds, options.jobs, tuple(options.options.split()))
    folds: list[Mapping[str, Any]] = []
    for train, test in split_folds(target, task.kind):
        with tempfile.TemporaryDirectory(prefix="rowcast-quality-") as folder:
            work = Path(folder)
            write_parts(frame[train], frame[test], task, options.system, work)
            if options.system == "rowcast":
                facts = run_rowcast(task, work, budget)
            else:
                facts = run_peer(task, work, budget, system=options.system)
            folds.append({**facts, "score": score(task, target[test], work)})
            print(task.name, folds[-1], file=sys.stderr, flush=True)
    line = {
        "table": task.name,
        "rows": len(target),
        "measure": task.measure,
        "system": options.system,
        "seconds": options.seconds,
        "options": options.options,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
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
    """Return the table as strings, without the excluded columns and with corrected labels; also return the target
    values."""
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


def split_folds(target: np.ndarray, kind: str) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Return the training and test rows of each fold."""
    cutter = KFold if kind == "regression" else StratifiedKFold
    return iter(cutter(FOLDS, shuffle=True, random_state=0).split(target, target))


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
    unseen, unseen_kept = unseen_page.section(HERE / "unseen.jsonl")
    PAGE.write_text(
        TEXT.format(
            seconds=first["seconds"],
            when=max(line["at"] for line in own.values())[:10],
            requirements="\n".join(requirements),
            rows="\n".join(rows),
        )
        + unseen
    )
    print("\n".join(requirements))
    return 0 if kept and unseen_kept else 1


def tolerance(line: Mapping[str, Any]) -> float:
    """Return how far below the reference a table's score may be."""
    return max(SLACK, line["spread"])


def total(own: Mapping[str, Mapping[str, Any]], fact: str) -> int:
    """Return the sum of a figure over all folds of all tables."""
    return sum(int(fold[fact]) for line in own.values() for fold in line["folds"])


def row(table: str, line: Mapping[str, Any], newest: Mapping[tuple[str, str], Mapping[str, Any]]) -> str:
    """Return one row of the table on the page."""
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
