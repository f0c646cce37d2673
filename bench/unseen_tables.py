"""List the tables that `make bench-unseen` can use, and draw a sample of them.

    python bench/unseen_tables.py list [--shared FOLDER]
    python bench/unseen_tables.py draw [--seed S] [--count N]

`list` prints every data set in the pinned packages that has at least 500 rows, together with either its target or the
reason why it is not eligible. It fails if unseen_tables.toml does not match the packages: if a data set is not listed
exactly once, if the documentation does not contain a quoted passage, or if a column does not exist. It also fails if
two eligible tables, or an eligible table and a table in the FOLDER of bench/quality.py, contain the same columns.
`draw` prints the drawn tables. The tables are read from the installed packages, and are not copied into the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peers
import polars as pl

from rowcast.tables.read import read_table

HERE = Path(__file__).resolve().parent
LIST = HERE / "unseen_tables.toml"
LEAST_ROWS, LEAST_INPUTS = 500, 3


@dataclass(frozen=True)
class Eligible:
    """An eligible table; `quote` is the passage in its documentation that names the target."""

    name: str
    target: str
    task: str
    quote: str
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The contents of unseen_tables.toml; `reasons` contains, for every other data set, the reason why it is not
    eligible."""

    packages: tuple[str, ...]
    seed: int
    count: int
    eligible: tuple[Eligible, ...]
    reasons: Mapping[str, str]

    def draw(self, seed: int, count: int) -> list[Eligible]:
        """Return a random sample of the eligible tables."""
        return random.Random(seed).sample(sorted(self.eligible, key=lambda table: table.name), count)


def main() -> int:
    """Run the command; return 1 if the list does not match the packages."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    listing = read_list()
    printing = commands.add_parser("list")
    printing.add_argument("--shared", type=Path, help="folder of bench/quality.py")
    drawing = commands.add_parser("draw")
    drawing.add_argument("--seed", type=int, default=listing.seed)
    drawing.add_argument("--count", type=int, default=listing.count)
    options = parser.parse_args()
    if options.command == "draw":
        for table in listing.draw(options.seed, options.count):
            print(f"{table.name:32} {table.task:12} {table.target}")
        return 0
    facts = read_facts(listing)
    show(listing, facts)
    problems = [*check(listing, facts), *find_copies(listing, options.shared)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def read_list() -> Listing:
    """Read unseen_tables.toml."""
    document = tomllib.loads(LIST.read_text())
    reasons = [(name, group["reason"]) for group in document["ineligible"] for name in group["tables"]]
    reasons += [(name, f"the same data as {original}") for name, original in document["duplicates"].items()]
    listed = Counter([*(name for name, _ in reasons), *(table["name"] for table in document["table"])])
    if repeated := [name for name, times in listed.items() if times > 1]:
        raise SystemExit(f"{LIST.name} lists tables twice: {', '.join(repeated)}")
    return Listing(
        packages=tuple(document["packages"]),
        seed=document["seed"],
        count=document["count"],
        eligible=tuple(
            Eligible(**{**table, "exclude": tuple(table.get("exclude", ()))}) for table in document["table"]
        ),
        reasons=dict(reasons),
    )


def folder(listing: Listing) -> Path:
    """Return the cache folder for tables from these packages."""
    path = peers.WHERE / f"tables-{peers.digest(*listing.packages)}"
    path.mkdir(parents=True, exist_ok=True)
    return path


def read_facts(listing: Listing) -> Mapping[str, Mapping[str, Any]]:
    """Return the rows, columns and documentation of every data set with at least LEAST_ROWS rows."""
    path = folder(listing) / "facts.jsonl"
    if not path.exists():
        export(listing)
    facts = [json.loads(line) for line in path.read_text().splitlines()]
    return {fact["name"]: fact for fact in facts if fact["rows"] >= LEAST_ROWS}


def export(listing: Listing, *names: str) -> None:
    """Write facts.jsonl, or the tables with these names."""
    script = [peers.python(*listing.packages), HERE / "unseen_export.py", folder(listing), *names]
    subprocess.run(script, check=True)


def table_files(listing: Listing, tables: Sequence[Eligible]) -> list[Path]:
    """Return the CSV files for these tables."""
    paths = [folder(listing) / f"{table.name.replace('/', '.')}.csv" for table in tables]
    if missing := [table.name for table, path in zip(tables, paths, strict=True) if not path.exists()]:
        export(listing, *missing)
    return paths


def show(listing: Listing, facts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print all data sets."""
    targets = {table.name: f"{table.task}: {table.target}" for table in listing.eligible}
    for name, fact in sorted(facts.items(), key=lambda pair: (pair[0] not in targets, pair[0].lower())):
        about = targets.get(name) or f"not eligible: {listing.reasons.get(name, 'NOT LISTED')}"
        print(f"{name:44} {fact['rows']:>8} rows {len(fact['columns']):>4} columns  {about}")
    print(f"{len(targets)} of {len(facts)} data sets are eligible")


def check(listing: Listing, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Yield the differences between the list and the packages."""
    names = {table.name for table in listing.eligible} | set(listing.reasons)
    yield from (f"{name}: not listed" for name in sorted(set(facts) - names))
    yield from (f"{name}: not in the packages" for name in sorted(names - set(facts)))
    for table in listing.eligible:
        fact = facts.get(table.name, {"columns": (), "text": ""})
        if table.quote not in fact["text"]:
            yield f"{table.name}: the documentation does not contain {table.quote!r}"
        for column in {table.target, *table.exclude} - set(fact["columns"]):
            yield f"{table.name}: no column {column!r}"
        if len(set(fact["columns"]) - {table.target, *table.exclude}) < LEAST_INPUTS:
            yield f"{table.name}: fewer than {LEAST_INPUTS} input columns"


def find_copies(listing: Listing, shared: Path | None) -> Iterator[str]:
    """Yield pairs of tables in which one table consists mostly of the other's columns."""
    tables = sorted(listing.eligible, key=lambda table: table.name)
    prints = {
        table.name: fingerprints(pl.read_csv(path, infer_schema=False))
        for table, path in zip(tables, table_files(listing, tables), strict=True)
    }
    others = {}
    if shared is not None:
        entries = json.loads((shared / "manifest.json").read_text())
        others = {entry["name"]: fingerprints(read_table(shared / entry["file"]).frame) for entry in entries}
    pairs = [*itertools.combinations(prints.items(), 2), *itertools.product(prints.items(), others.items())]
    for (name, columns), (other, its) in pairs:
        if len(columns & its) > min(len(columns), len(its)) / 2:
            yield f"{name}: contains the columns of {other}"


def fingerprints(frame: pl.DataFrame) -> set[str]:
    """Return a digest of the sorted values of each column; numbers are compared as numbers."""
    digests = set()
    for column in frame.iter_columns():
        numbers = column.cast(pl.Float64, strict=False)
        values = column.cast(pl.String).str.strip_chars() if numbers.null_count() > column.null_count() else numbers
        text = "\n".join(map(str, values.sort().to_list()))
        digests.add(hashlib.sha256(text.encode()).hexdigest())
    return digests


if __name__ == "__main__":
    sys.exit(main())
