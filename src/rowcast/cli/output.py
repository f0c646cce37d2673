"""What commands print: JSON for machines, tables for people, plain text when piped."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from rowcast.errors import RowcastError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

WIDE, NARROW = 30, 12
"""Characters that a column of sentences gets at least, and any other that may be folded."""


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
    """A table: drawn on a terminal, tab-separated when piped. Columns in `whole` are never folded, `wide` ones less. A
    terminal that is too narrow for that gets a paragraph a row: nothing is ever cut off."""
    if not sys.stdout.isatty():
        print_lines("\t".join(str(cell) for cell in row) for row in [headings, *rows])
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    cells = [[Text(str(cell)) for cell in row] for row in rows]  # a cell is data: what looks like markup is shown
    columns = zip(map(Text, headings), *cells, strict=True)
    longest = [max(cell.cell_len for cell in column) for column in columns]
    least = [
        width if name in whole else min(width, WIDE if name in wide else NARROW)
        for name, width in zip(headings, longest, strict=True)
    ]
    widths = _fitted(longest, least, console.width - 3 * len(headings) - 1)
    if widths is None:
        _print_paragraphs(console, title, headings, cells)
        return
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _fitted(longest: Sequence[int], least: Sequence[int], room: int) -> list[int] | None:
    """Widths of columns, the widest narrowed first; None when there is no room for the least of them."""
    widths = list(longest)
    for _ in range(sum(longest) - room):
        place = max(range(len(widths)), key=lambda each: (widths[each] > least[each], widths[each]))
        if widths[place] <= least[place]:
            return None
        widths[place] -= 1
    return widths


def _print_paragraphs(console: Console, title: str, headings: Sequence[str], cells: Sequence[Sequence[Text]]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    if title:
        console.print(Text(title, "italic"))
    for first, *others in cells:
        console.print(first, style="bold")
        for heading, cell in zip(headings[1:], others, strict=True):
            if cell:
                console.print(Padding(Text.assemble((f"{heading}: " if heading else "", "dim"), cell), (0, 0, 0, 2)))


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def say(text: str) -> None:
    """A sentence for a person, on standard error, out of the way of what is piped."""
    sys.stderr.write(text + "\n")


def moment(microseconds: int) -> str:
    """A moment as RFC 3339 in UTC."""
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
