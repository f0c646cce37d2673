"""What a bench or a drill promises, and where its figures are kept."""

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
    """One promise: what was found, and what it must be at least or at most. Without a bound it is only shown."""

    name: str
    found: float
    most: float | None = None
    least: float | None = None
    aim: float | None = None

    @property
    def kept(self) -> bool:
        """Whether it holds."""
        return (self.most is None or self.found <= self.most) and (self.least is None or self.found >= self.least)


def show(console: Console, checks: Sequence[Check], title: str = "promises") -> None:
    """Every promise on screen."""
    table = Table(title=title)
    for heading in ("promise", "found", "at least", "at most", "aim", ""):
        table.add_column(heading, justify="left" if heading == "promise" else "right")
    for check in checks:
        bounds = ["" if bound is None else f"{bound:g}" for bound in (check.least, check.most, check.aim)]
        table.add_row(check.name, f"{check.found:.4g}", *bounds, "[green]kept" if check.kept else "[red]BROKEN")
    console.print(table)


def record(bench: str, **figures: Any) -> None:
    """Append one line to results.jsonl."""
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
