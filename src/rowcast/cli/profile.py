"""`rowcast check` without a target: print the profile of a table."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rowcast.app import profiles
from rowcast.cli import output
from rowcast.cli.streams import STREAM, input_table
from rowcast.cli.training import FINDING_HEADINGS, finding_document, finding_rows
from rowcast.errors import SettingsError

if TYPE_CHECKING:
    from rowcast.schema.schema import Value
    from rowcast.tables.profile import ColumnProfile, TableProfile

WITHOUT_TARGET: Final = ("exclude", "keep", "sensitive")
"""The options that do not need a target."""
BLOCKS: Final = "▁▂▃▄▅▆▇█"
MAX_CELL: Final = 24
"""The maximum length of a value in a table."""
HEADINGS: Final = ("column", "kind", "missing", "distinct", "range or frequent values", "examples", "histogram")


def run(table: Path, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Profile the table and print the result."""
    for option in options:
        if option not in WITHOUT_TARGET:
            raise SettingsError(
                f"missing option: --{option.replace('_', '-')} requires --target, which names the column to predict, "
                "or --target-file"
            )
    with input_table(table) as source:
        profile = profiles.profile_table(source, **options)
    if as_json:
        findings = list(map(finding_document, profile.findings))
        output.print_json(msgspec.to_builtins(profile) | {"findings": findings})
        return
    print_profile(profile)
    output.suggest(_next_steps(table))


def print_profile(profile: TableProfile) -> None:
    """Print one row per column, followed by the findings."""
    copies = f", {output.counted(profile.duplicates, 'copy', 'copies')}" if profile.duplicates else ""
    title = f"{profile.table}: {profile.rows} rows{copies}, {len(profile.columns)} columns"
    rows = [_cells(column) for column in profile.columns]
    output.print_table(HEADINGS, rows, title, whole=["histogram"], wide=["range or frequent values"])
    if profile.findings:
        sampled = profile.findings_rows < profile.rows
        where = f"Findings in a sample of {profile.findings_rows} rows" if sampled else "Findings"
        findings = [[", ".join(columns), *cells] for columns, *cells in finding_rows(profile.findings)]
        output.print_table(["column", *FINDING_HEADINGS], findings, where, whole=["override"], wide=["finding"])


def _cells(column: ColumnProfile) -> list[Any]:
    missing = f"{column.missing} ({column.missing_share:.1%})" if column.missing else 0
    values = "sensitive" if column.sensitive else _values(column)
    examples = ", ".join(map(_text, column.examples))
    return [column.name, column.kind or "empty", missing, column.distinct, values, examples, _histogram(column)]


def _values(column: ColumnProfile) -> str:
    if column.low is not None:
        return f"{_text(column.low)} to {_text(column.high)}, median {_text(column.median)}"
    return ", ".join(f"{_text(each.value)} ({each.rows})" for each in column.frequent)


def _text(value: Value) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def _histogram(column: ColumnProfile) -> str:
    """Return the row counts as blocks of different heights in a terminal, and as numbers otherwise."""
    counts = [each.rows for each in column.frequent] if column.histogram is None else column.histogram.rows
    return blocks(counts) if sys.stdout.isatty() else " ".join(map(str, counts))


def blocks(counts: Sequence[int]) -> str:
    """Return one block per count, with a height proportional to the count. A count of 0 becomes a space."""
    highest = max(counts, default=0)
    return "".join(BLOCKS[-(-count * len(BLOCKS) // highest) - 1] if count else " " for count in counts)


def _next_steps(table: Path) -> dict[str, str]:
    rows = "TABLE" if table == STREAM else shlex.quote(str(table))
    return {
        "check the columns against a target": f"rowcast check {rows} --target COLUMN",
        "print every number": f"rowcast check {rows} --json",
        "train a model": f"rowcast train {rows} --target COLUMN",
    }
