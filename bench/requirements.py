"""Check, display and record the requirements of benchmarks and drills."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

HERE = Path(__file__).resolve().parent


class Check(NamedTuple):
    """A measured value with its limits. Without a limit, the value is only displayed."""

    name: str
    value: float
    most: float | None = None
    least: float | None = None
    aim: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the value is within its limits."""
        return (self.most is None or self.value <= self.most) and (self.least is None or self.value >= self.least)


def show(console: Console, checks: Sequence[Check], title: str = "requirements") -> None:
    """Print a table of all checks."""
    table = Table(title=title)
    for heading in ("requirement", "measured", "at least", "at most", "target", ""):
        table.add_column(heading, justify="left" if heading == "requirement" else "right")
    for check in checks:
        bounds = ["" if bound is None else f"{bound:g}" for bound in (check.least, check.most, check.aim)]
        table.add_row(check.name, f"{check.value:.4g}", *bounds, "[green]met" if check.kept else "[red]NOT MET")
    console.print(table)


def record(bench: str, **figures: Any) -> None:
    """Append one line of figures to results.jsonl."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
    )
    line = {
        "bench": bench,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[1], 2),
        **figures,
    }
    with (HERE / "results.jsonl").open("a") as out:
        out.write(json.dumps(line) + "\n")
