"""The section of docs/reference/quality.md about the tables that were not used in development; see unseen.py."""

from __future__ import annotations

import json
import subprocess
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import unseen_tables
from contest import PEERS

HERE = Path(__file__).resolve().parent
BETTER = "the better of AutoGluon and FLAML"
LEAST = {"best": 0.0, "balanced": -0.003}
"""The lowest acceptable mean difference from the better of AutoGluon and FLAML, for each preset."""
MOST_MICROSECONDS = {"fast": 20.0, "balanced": 100.0, "best": 1000.0}
SLACK, MOST_MEGABYTES, MOST_BUNDLE, MOST_APART = 1.1, 2000, 50, 1e-5
RESAMPLES = 10_000

Line = Mapping[str, Any]


@dataclass(frozen=True)
class Requirement:
    """One row of the page's first table."""

    text: str
    measured: str
    required: str = ""
    kept: bool = True


class Figures:
    """The latest line for each table, seed and system with its preset. A combination of table and seed is included only
    if every system has finished it."""

    def __init__(self, lines: Sequence[Line], tables: Sequence[str]) -> None:
        latest = {(line["table"], line["seed"], label(line)): line for line in lines if line["table"] in tables}
        self.systems = sorted({system for _, _, system in latest}, key=rank)
        seen = {(table, seed) for table, seed, _ in latest}
        complete = {pair for pair in seen if all((*pair, system) in latest for system in self.systems)}
        self.lines = {key: line for key, line in latest.items() if key[:2] in complete}
        self.tables = [table for table in tables if any(table == done for done, _ in complete)]
        self.seeds = sorted({seed for _, seed in complete})

    @property
    def presets(self) -> list[str]:
        return [system for system in self.systems if system not in PEERS]

    def of(self, system: str, table: str | None = None) -> list[Line]:
        """Return a system's lines, in the order of the seeds."""
        keys = sorted(key for key in self.lines if key[2] == system and table in (None, key[0]))
        return [self.lines[key] for key in keys]

    def score(self, system: str, table: str) -> float:
        """Return the mean score over the seeds. For `BETTER`, return the higher of the other systems' means."""
        if system == BETTER:
            return max(self.score(peer, table) for peer in PEERS)
        return fmean(line["score"] for line in self.of(system, table))

    def gaps(self, preset: str, other: str) -> dict[str, float]:
        """Return the difference from another system for each table."""
        return {table: self.score(preset, table) - self.score(other, table) for table in self.tables}


def section(results: Path) -> tuple[str, bool]:
    """Return the section, and whether every requirement is met."""
    listing = unseen_tables.read_list()
    drawn = listing.draw(listing.seed, listing.count)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    figures = Figures(lines, [table.name for table in drawn])
    if not figures.tables or not figures.presets or not set(PEERS) <= set(figures.systems):
        return "", True
    first = next(iter(figures.lines.values()))
    since, until = (select(line["at"] for line in figures.lines.values()) for select in (min, max))
    fixed, commit = fix_of_the_draw()
    early = datetime.fromisoformat(fixed) < datetime.fromisoformat(since)
    order = Requirement(
        "the draw was fixed before the first measurement", f"{fixed[:16]}, {since[:16]}", "earlier", early
    )
    requirements = [order, *quality(figures), *limits(figures)]
    missing = len(drawn) - len(figures.tables)
    text = TEXT.format(
        drawn=len(drawn),
        partial=f" {missing} tables have not been measured yet." if missing else "",
        seeds=plural(len(figures.seeds), "seed"),
        seconds=first["seconds"],
        jobs=plural(first["jobs"], "core"),
        eligible=len(listing.eligible),
        listed=len(listing.eligible) + len(listing.reasons),
        seed=listing.seed,
        packages=enumeration([f"`{package}`" for package in listing.packages if not package.startswith("pandas")]),
        commit=commit,
        fixed=f"{datetime.fromisoformat(fixed).astimezone(UTC):%Y-%m-%d %H:%M} UTC",
        since=since[:10],
        until=until[:10],
        last=figures.presets[-1],
        requirements="\n".join(f"| {item.text} | {item.measured} | {item.required} |" for item in requirements),
        heading=" | ".join(f"Rowcast {preset}" for preset in figures.presets),
        rule="---:|" * len(figures.presets),
        rows="\n".join(row(figures, table.name, table.target) for table in drawn if table.name in figures.tables),
    )
    return paragraphs(text), all(item.kept for item in requirements)


def label(line: Line) -> str:
    """Return the preset if the line is for Rowcast, otherwise the name of the system."""
    return line["preset"] if line["system"] == "rowcast" else line["system"]


def rank(system: str) -> tuple[int, str]:
    """Return the position of a system in the tables."""
    order = ("fast", "balanced", "best", "none", *PEERS)
    return order.index(system) if system in order else len(order), system


def quality(figures: Figures) -> Iterator[Requirement]:
    """Yield the differences from the other systems."""
    for preset in reversed(figures.presets):
        for other in (BETTER, *PEERS):
            gaps = figures.gaps(preset, other)
            mean, (low, high) = fmean(gaps.values()), interval(list(gaps.values()))
            worst = min(gaps, key=gaps.__getitem__)
            least = LEAST.get(preset) if other == BETTER else None
            yield Requirement(
                f"`{preset}`: mean difference from {PEERS.get(other, BETTER)}",
                f"{mean:+.4f} ({low:+.4f} to {high:+.4f}); worst {gaps[worst]:+.4f}, {worst}",
                "" if least is None else f"at least {least:+.3f}",
                least is None or mean >= least,
            )
    for system in (*reversed(figures.presets), *PEERS):
        failed = sorted({line["table"] for line in figures.of(system) if "error" in line})
        yield Requirement(
            f"{PEERS.get(system, f'`{system}`')}: tables on which it failed",
            ", ".join(failed) or "none",
            "" if system in PEERS else "none",
            not failed or system in PEERS,
        )


def limits(figures: Figures) -> Iterator[Requirement]:
    """Yield the requirements on the certificate, the time and the size."""
    for preset in reversed(figures.presets):
        lines = [line for line in figures.of(preset) if "error" not in line]
        flips = sum(line["flips"] for line in lines)
        apart = max((line["apart"] for line in lines if line["measure"] != "r2"), default=0.0)
        longest = max(line["wall"] / line["seconds"] for line in lines)
        memory = max(line["memory_mb"] for line in lines)
        bundle = max(line["bundle_mb"] for line in lines)
        yield Requirement(f"`{preset}`: label flips in the certificates", str(flips), "0", not flips)
        yield Requirement(
            f"`{preset}`: largest difference of a probability", f"{apart:.1e}", f"at most {MOST_APART:.0e}",
            apart <= MOST_APART,
        )  # fmt: skip
        yield Requirement(
            f"`{preset}`: longest training run / time limit", f"{longest:.2f}", f"at most {SLACK}", longest <= SLACK
        )
        yield Requirement(
            f"`{preset}`: peak memory, MB", f"{memory:.0f}", f"below {MOST_MEGABYTES}", memory < MOST_MEGABYTES
        )
        yield Requirement(
            f"`{preset}`: largest bundle, MB", f"{bundle:.1f}", f"below {MOST_BUNDLE}", bundle < MOST_BUNDLE
        )
        times = [line["row_us"] for line in lines if line["row_us"] is not None]
        if times and preset in MOST_MICROSECONDS:
            most = MOST_MICROSECONDS[preset]
            yield Requirement(
                f"`{preset}`: time per row, µs", f"{max(times):.0f}", f"at most {most:.0f}", max(times) <= most
            )


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95% bootstrap interval of the mean; tables are resampled."""
    sample = np.random.default_rng(0).choice(np.asarray(values), (RESAMPLES, len(values)))
    low, high = np.quantile(sample.mean(axis=1), (0.025, 0.975))
    return float(low), float(high)


def fix_of_the_draw() -> tuple[str, str]:
    """Return the time and the hash of the first commit that contained the list and the seed as they are now."""
    path = unseen_tables.LIST.relative_to(HERE.parent)
    log = git("log", "--reverse", "--diff-filter=AM", "--format=%aI %h", "--", path)
    now = git("hash-object", path)
    for line in log.splitlines():
        when, commit = line.split()
        if git("rev-parse", f"{commit}:{path}") == now:
            return when, commit
    raise SystemExit(f"commit {path} first")


def git(*arguments: object) -> str:
    """Return the output of a git command."""
    command = ["git", *map(str, arguments)]
    return subprocess.run(command, cwd=HERE.parent, capture_output=True, text=True, check=True).stdout.strip()


def row(figures: Figures, table: str, target: str) -> str:
    """Return the row for one table; a difference is shown with its range over the seeds."""
    line = figures.of(figures.systems[0], table)[0]
    preset = figures.presets[-1]
    better = max(PEERS, key=lambda peer: figures.score(peer, table))
    pairs = zip(figures.of(preset, table), figures.of(better, table), strict=True)
    gaps = [ours["score"] - theirs["score"] for ours, theirs in pairs]
    own = [entry for entry in figures.of(preset, table) if "error" not in entry]
    times = [entry["row_us"] for entry in own if entry["row_us"] is not None]
    cells = [
        table,
        f"`{target}`",
        str(line["rows"]),
        line["measure"],
        *(f"{figures.score(system, table):.4f}" for system in (*figures.presets, *PEERS)),
        f"{fmean(gaps):+.4f} ({min(gaps):+.4f} to {max(gaps):+.4f})",
        f"{fmean(entry['wall'] for entry in own):.0f}" if own else "failed",
        f"{max(times):.0f}" if times else "",
    ]
    return f"| {' | '.join(cells)} |"


def plural(count: int, noun: str) -> str:
    """Return the count followed by the noun; append an s to the noun unless the count is 1."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def enumeration(items: Sequence[str]) -> str:
    """Join at least two items with commas, and the last two with "and"."""
    return f"{', '.join(items[:-1])} and {items[-1]}"


def paragraphs(text: str) -> str:
    """Wrap the text at 120 characters; leave tables and headings as they are."""
    parts = text.split("\n\n")
    wrapped = [part if part.lstrip().startswith(("|", "#")) else textwrap.fill(part, 120) for part in parts]
    return "\n\n".join(wrapped)


TEXT = """
## Tables that were not used in development

{drawn} tables were drawn at random, with the seed {seed}, from the {eligible} eligible tables of {packages}. The file
`bench/unseen_tables.toml` contains the seed, the rules, and the list of all {listed} data sets with at least 500 rows.
This file has not changed since commit `{commit}` ({fixed}). No drawn table was left out.{partial}

At most 20,000 rows of each table are used. One third of the rows is held out for testing. Each seed gives a different
split; these figures use {seeds}. Each system receives the same training rows, the target, the task, {seconds} seconds
and {jobs}. AutoGluon runs with its medium preset, and FLAML with its default options. A system that
fails gets the score of a constant prediction. For each table, the better of AutoGluon and FLAML is the one with the
higher mean test score. The intervals are 95% bootstrap intervals over the tables. Memory use is overestimated if
processes share pages. `make bench-unseen` measured the figures from {since} to {until}.

| requirement | measured | required |
|---|---|---|
{requirements}

The next table shows the mean scores over the seeds. The difference is the score of the preset `{last}` minus the score
of the better of AutoGluon and FLAML, with its range over the seeds. The seconds and the time per row also refer to
this preset.

| table | target | rows | metric | {heading} | AutoGluon | FLAML | difference | seconds | µs per row |
|---|---|---:|---|{rule}---:|---:|---|---:|---:|
{rows}
"""
