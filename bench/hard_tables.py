"""`make bench-hard`: train on generated tables for which a time limit is hard to meet.

The tables have 300 columns, 100 classes, long strings or 200,000 rows. Each is trained with `--timeout 30`. The whole
command may take at most 1.1 times the limit and must use less than 2 GB of memory. Memory is overestimated if processes
share pages. Figures are appended to results.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import polars as pl
from contest import Budget, SystemFailedError, limit, rowcast
from requirements import Check, record, show
from rich.console import Console

SLACK, MOST_MEGABYTES = 1.1, 2000
WORDS = 4_000


def main() -> int:
    """Measure, check the requirements and record the figures; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", default=",".join(TABLES))
    parser.add_argument("--timeout", type=int, default=30)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--options", default="", help="further options for `rowcast train`")
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    checks = [check for name in options.tables.split(",") for check in measure(name, options)]
    show(Console(width=110), checks)
    kept = all(check.kept for check in checks)
    if not options.no_record:
        figures = {check.name: round(check.value, 2) for check in checks}
        record("hard tables", timeout=options.timeout, options=options.options, checks=figures, kept=kept)
    return 0 if kept else 1


def measure(name: str, options: argparse.Namespace) -> list[Check]:
    """Train on one table; return the checks of the time, the memory and the number of label flips."""
    with tempfile.TemporaryDirectory(prefix="rowcast-hard-") as folder:
        work = Path(folder)
        TABLES[name](np.random.default_rng(0)).write_csv(work / "train.csv")
        arguments = ("train", work / "train.csv", "--target", "target", "--name", "model", "--home", work / "home")
        limits = ("--timeout", options.timeout, "--jobs", options.jobs, *options.options.split(), "--json")
        try:
            trained = rowcast(*arguments, *limits, limit=limit(Budget(options.timeout, options.jobs)))
        except SystemFailedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return [Check(f"{name}: failed", 1, most=0)]
        result = json.loads(trained.output)
    return [
        Check(f"{name}: wall time / limit", trained.seconds / options.timeout, most=SLACK),
        Check(f"{name}: peak memory, MB", trained.megabytes, most=MOST_MEGABYTES),
        Check(f"{name}: label flips", result["parity"]["label_flips"], most=0),
        Check(f"{name}: time per row, µs", result.get("row_microseconds") or 0.0),
    ]


def wide(random: np.random.Generator) -> pl.DataFrame:
    """Return 300 columns, a tenth of them categorical, and a binary target."""
    rows = 10_000
    numbers = random.normal(size=(rows, 270))
    columns: dict[str, object] = {f"number {index}": numbers[:, index].round(4) for index in range(270)}
    columns |= {f"category {index}": random.integers(0, 12, rows).astype(str) for index in range(30)}
    signal = numbers[:, :25] @ random.normal(size=25) + 3 * numbers[:, 30] * numbers[:, 31]
    return pl.DataFrame({**columns, "target": labels(signal + random.normal(size=rows) > 0)})


def classes(random: np.random.Generator) -> pl.DataFrame:
    """Return 20 numeric columns, and a target with 100 classes, each of which is a cluster in these columns."""
    rows, count = 20_000, 100
    label = random.integers(0, count, rows)
    numbers = random.normal(scale=2, size=(count, 20))[label] + random.normal(size=(rows, 20))
    columns = {f"number {index}": numbers[:, index].round(4) for index in range(20)}
    return pl.DataFrame({**columns, "target": [f"class {value}" for value in label]})


def texts(random: np.random.Generator) -> pl.DataFrame:
    """Return three text columns with up to 120 words per cell; some of the words determine the target."""
    rows = 10_000
    weights = random.normal(size=WORDS) * (random.random(WORDS) < 0.05)
    lengths = random.integers(20, 120, (3, rows))
    ranks = [np.minimum(random.zipf(1.3, length) - 1, WORDS - 1) for length in lengths.ravel()]
    texts = [" ".join(f"word{rank}" for rank in text) for text in ranks]
    signal = np.array([weights[text].sum() for text in ranks]).reshape(3, rows).sum(axis=0)
    columns = {f"text {index}": texts[index * rows : (index + 1) * rows] for index in range(3)}
    return pl.DataFrame({**columns, "target": labels(signal + random.normal(size=rows) > np.median(signal))})


def tall(random: np.random.Generator) -> pl.DataFrame:
    """Return 200,000 rows with numbers, categories and missing cells, and a numeric target."""
    rows = 200_000
    numbers = random.normal(size=(rows, 10))
    groups = random.integers(0, 200, rows)
    target = numbers[:, 0] * 3 + np.sin(numbers[:, 1] * 2) + random.normal(size=200)[groups] + random.normal(size=rows)
    frame = pl.DataFrame({f"number {index}": numbers[:, index].round(4) for index in range(10)})
    holes = pl.Series(random.random(rows) < 0.1)
    return frame.with_columns(
        pl.when(holes).then(None).otherwise(pl.col("number 2")).alias("number 2"),
        pl.Series("group", groups.astype(str)),
        pl.Series("target", target.round(4)),
    )


def labels(positive: np.ndarray) -> list[str]:
    """Return `yes` for each true value and `no` for each false value."""
    return ["yes" if value else "no" for value in positive]


TABLES: Mapping[str, Callable[[np.random.Generator], pl.DataFrame]] = {
    "wide": wide,
    "classes": classes,
    "texts": texts,
    "tall": tall,
}


if __name__ == "__main__":
    sys.exit(main())
