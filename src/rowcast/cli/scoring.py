"""`rowcast predict`: a progress bar while it runs, then one line or one document."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rowcast.app import models as app_models
from rowcast.cli import output
from rowcast.errors import SettingsError
from rowcast.jobs.table_scoring import Job, Progress, Summary
from rowcast.settings import Settings


def run(
    settings: Settings,
    model: str,
    table: Path,
    out: Path,
    rejects: Path | None,
    columns: tuple[str, ...] | None,
    *,
    strict: bool,
    jobs: int | None,
    as_json: bool,
) -> None:
    """Score and say what came of it."""
    if strict and rejects is not None:
        raise SettingsError("--strict ends at the first row that does not fit; --rejects goes on: give one of them")
    with _progress() as show:
        job = Job(table, out, rejects, columns, jobs or _cores(), show)
        summary = app_models.score_table(settings, model, job)
    if as_json:
        output.print_json(summary)
    else:
        output.say(_sentence(summary))


def _sentence(summary: Summary) -> str:
    rejected = "" if summary.rejects is None else f", {summary.rejected} rejected into {summary.rejects}"
    speed = f"{summary.seconds:.1f} s, {summary.rows_per_second:,.0f} rows/s"
    return f"{summary.rows} rows scored by {summary.model}@{summary.version} into {summary.out}{rejected} ({speed})"


def _cores() -> int:
    allowed = getattr(os, "sched_getaffinity", None)
    return len(allowed(0)) if allowed else os.cpu_count() or 1


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar with rows and rows/s on a terminal, nothing when standard error is piped."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich import progress as bars
    from rich.console import Console

    parts = (
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.description}"),
        bars.TimeRemainingColumn(),
    )
    started = time.monotonic()
    with bars.Progress(*parts, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def show(progress: Progress) -> None:
            speed = progress.rows / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=progress.share, description=f"{progress.rows:,} rows, {speed:,.0f} rows/s")

        yield show
