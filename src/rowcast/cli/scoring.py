"""`rowcast predict`: score a table, show a progress bar and print a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from rowcast.app import bundles
from rowcast.cli import output
from rowcast.cli.streams import STREAM, input_table, output_table
from rowcast.errors import InvalidRows, RowcastError, SettingsError
from rowcast.jobs.chunk_scoring import Progress
from rowcast.jobs.table_scoring import ScoringOptions, Summary
from rowcast.schema.encoding import OUT_OF_RANGE, UNSEEN_CATEGORY
from rowcast.settings import Settings


def run(
    settings: Settings,
    model: str,
    *,
    table: Path,
    out: Path,
    rejects: Path | None,
    columns: tuple[str, ...] | None,
    strict: bool,
    jobs: int | None,
    engine: str,
    as_json: bool,
) -> None:
    """Score the table and print a summary."""
    if strict and rejects is not None:
        raise SettingsError(
            "--strict and --rejects are mutually exclusive, because --strict stops at the first invalid row"
        )
    if out == STREAM and as_json:
        raise SettingsError("--json and --out - are mutually exclusive, because both write to standard output")
    with input_table(table) as source, output_table(out) as target, scoring_progress() as report:
        options = ScoringOptions(source, target, rejects, columns, report)
        hint = "" if strict else "to score the valid rows, add --rejects FILE, which writes the others to a file"
        with rejects_hint(hint):
            summary = bundles.score_table(settings, model, options, engine=engine, slots=jobs)
    if out == STREAM:
        summary = msgspec.structs.replace(summary, out="standard output")
    if as_json:
        output.print_json(summary)
    else:
        output.say(describe(summary))


@contextmanager
def rejects_hint(hint: str) -> Iterator[None]:
    """Add a hint to the error for invalid rows."""
    try:
        yield
    except InvalidRows as error:
        message = f"{error.message}; {hint}" if hint else error.message
        raise RowcastError(message, slug=error.slug) from None


def describe(summary: Summary) -> str:
    rejected = "" if summary.rejects is None else f"; wrote {summary.rejected} rejected rows to {summary.rejects}"
    model = summary.model if summary.version is None else f"{summary.model}@{summary.version}"
    scored = f"scored {summary.rows} rows with {model}"
    speed = f"{summary.seconds:.1f} s ({summary.rows_per_second:,.0f} rows/s)"
    lines = "line" if summary.excluded == 1 else "lines"
    excluded = f"; excluded {summary.excluded} {lines} (second header or no values)" if summary.excluded else ""
    return f"{scored} in {speed}; wrote {summary.out}{rejected}{excluded}{_unusual(summary)}"


def _unusual(summary: Summary) -> str:
    """Describe the columns with values that did not occur in training, and how many rows are affected in each."""
    described = {OUT_OF_RANGE: "outside the range", UNSEEN_CATEGORY: "unseen"}
    counts = [f"{each.column} ({each.rows} {described[each.code]})" for each in summary.warnings]
    return f"; values that did not occur in training: {', '.join(counts)}" if counts else ""


@contextmanager
def scoring_progress() -> Iterator[Callable[[Progress], None]]:
    """Show a progress bar if standard error is a terminal."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from rich import progress as bars

    parts = (
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TextColumn("{task.description}"),
        bars.TimeRemainingColumn(),
    )
    started = time.monotonic()
    with bars.Progress(*parts, console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def report(progress: Progress) -> None:
            speed = progress.rows / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=progress.share, description=f"{progress.rows:,} rows, {speed:,.0f} rows/s")

        yield report
