"""`make bench-check`: profile a table of a million rows and 50 columns with `rowcast check`.

    python bench/check.py [--rows 1000000] [--no-record]

The table contains decimal numbers, integers, categories, dates, text and missing cells. It is written as CSV and as
Parquet. The command runs in a separate process, whose memory is sampled every 20 ms. The limits apply to a machine with
two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import polars as pl
from batch import run_sampled
from requirements import Check, record, show
from rich.console import Console

from rowcast.tables.write import open_writer

SECONDS, MEGABYTES = 15.0, 1000.0
PIECE = 50_000
COLUMNS = 50


def main() -> int:
    """Measure, check the requirements and record the figures; return 1 if a requirement is not met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--no-record", action="store_true", help="do not write to results.jsonl")
    options = parser.parse_args()
    checks = []
    with tempfile.TemporaryDirectory(prefix="rowcast-bench-") as folder:
        for kind in ("csv", "parquet"):
            path = Path(folder) / f"rows.{kind}"
            generate(path, options.rows)
            run = run_sampled([sys.executable, "-m", "rowcast.cli", "check", path, "--json"])
            verify(json.loads(run.output), options.rows)
            size = path.stat().st_size / 1e6
            path.unlink()
            checks += [
                Check(f"{kind} of {size:.0f} MB, seconds", run.seconds, most=SECONDS),
                Check(f"{kind}, CPU seconds", run.cpu),
                Check(f"{kind}, peak memory, MB", run.megabytes, most=MEGABYTES),
            ]
    show(Console(width=110), checks, f"rowcast check, {options.rows:,} rows and {COLUMNS} columns")
    kept = all(check.kept for check in checks)
    if not options.no_record:
        figures = {check.name: round(check.value, 2) for check in checks}
        record("check", rows=options.rows, cores_used=len(os.sched_getaffinity(0)), checks=figures, kept=kept)
    return 0 if kept else 1


def generate(path: Path, rows: int) -> None:
    """Write the table in chunks."""
    with open_writer(path) as writer:
        for start in range(0, rows, PIECE):
            writer.append(writer.prepare(piece(start, min(PIECE, rows - start)), first=start == 0))


def piece(start: int, rows: int) -> pl.DataFrame:
    """Return some rows of the table. There are ten columns of each kind; the first column of each kind has missing
    cells."""
    rng = np.random.default_rng([1, start])
    columns: dict[str, pl.Series] = {}
    towns = np.array(["Bern", "Lima", "Oslo", "Paris", "Quito", "Riga", "Sofia", "Tokyo"])
    for number in range(COLUMNS // 5):
        amounts = rng.lognormal(size=rows).round(4)
        columns[f"amount {number}"] = pl.Series(amounts)
        columns[f"count {number}"] = pl.Series(rng.poisson(10 ** (1 + number % 4), rows))
        columns[f"town {number}"] = pl.Series(rng.choice(towns, rows))
        days = np.datetime64("2015-01-01") + rng.integers(0, 4000, rows)
        columns[f"day {number}"] = pl.Series(days.astype("datetime64[D]")).dt.to_string("%Y-%m-%d")
        columns[f"note {number}"] = "order " + pl.Series(rng.integers(0, 10**9, rows)).cast(pl.String)
    frame = pl.DataFrame(columns)
    gaps = pl.Series(rng.random(rows) < 0.1)
    return frame.with_columns(pl.when(~gaps).then(pl.col(name)).alias(name) for name in list(columns)[:5])


def verify(profile: dict[str, object], rows: int) -> None:
    """Exit if the profile does not describe the generated table."""
    columns = profile["columns"]
    assert isinstance(columns, list)
    kinds = [column["kind"] for column in columns]
    expected = ["number", "integer", "category", "datetime", "category"] * (COLUMNS // 5)
    if profile["rows"] != rows or kinds != expected or not 0.09 < columns[0]["missing_share"] < 0.11:
        raise SystemExit(f"the profile is wrong: {profile['rows']} rows, kinds {kinds}")


if __name__ == "__main__":
    sys.exit(main())
