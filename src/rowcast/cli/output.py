"""What commands print: JSON for machines, tables for people, plain text when piped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from rowcast.errors import RowcastError

WIDE = 30
"""Characters that sentences get on a terminal of 80."""


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print_lines([msgspec.json.format(msgspec.json.encode(value), indent=2).decode()])


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines on standard output; whoever reads them may stop reading. RowcastError when they cannot be written."""
    try:
        for line in lines:
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    except OSError as error:  # at the interpreter's end nothing must be left to write
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):  # `rowcast history list | head`: nobody is left to print to
            sys.exit(0)
        raise RowcastError(f"standard output cannot be written: {error.strerror}") from None


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    whole: Sequence[str] = (),
    wide: Sequence[str] = (),
) -> None:
    """A table: drawn on a terminal, tab-separated when piped. Columns in `whole` are never folded, `wide` ones less."""
    if not sys.stdout.isatty():
        print_lines("\t".join(str(cell) for cell in row) for row in [headings, *rows])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading in headings:
        table.add_column(
            heading, overflow="fold", no_wrap=heading in whole, min_width=WIDE if heading in wide else None
        )
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))  # a cell is data: what looks like markup is shown
    Console().print(table)


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def say(text: str) -> None:
    """A sentence for a person, on standard error, out of the way of what is piped."""
    sys.stderr.write(text + "\n")


def moment(microseconds: int) -> str:
    """A moment as RFC 3339 in UTC."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
