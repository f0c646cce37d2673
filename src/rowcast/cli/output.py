"""Print results as JSON or as tables; if standard output is not a terminal, tables become tab-separated text."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from rowcast.errors import RowcastError
from rowcast.printable import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

HEADING, GOOD, BAD = "bold cyan", "green", "bold red"
"""The styles of headings, successes and errors in a terminal."""
STATUS_STYLES = {"ok": GOOD, "PROBLEM": BAD}
"""The styles of table cells that show the result of a check."""
WIDE, NARROW = 30, 12
"""Minimum column widths, in characters: the first for columns in `wide`, the second for other columns that can wrap."""


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print_lines([msgspec.json.format(msgspec.json.encode(value), indent=2).decode()])


def print_lines(lines: Iterable[str]) -> None:
    """Print plain lines; raise RowcastError if writing to standard output fails."""
    try:
        for line in lines:
            sys.stdout.write(printable(line) + "\n")
        sys.stdout.flush()
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):  # the reader has exited, as in `rowcast history list | head`
            sys.exit(0)
        raise RowcastError(f"cannot write to standard output: {error.strerror}") from None


def discard(stream: TextIO) -> None:
    """Discard the buffered output of a stream, because the interpreter's flush at exit must not fail."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def print_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[Any]],
    title: str = "",
    whole: Sequence[str] = (),
    wide: Sequence[str] = (),
) -> None:
    """Print a table if standard output is a terminal, and tab-separated text otherwise.

    Columns in `whole` never wrap, and columns in `wide` have a larger minimum width. If the terminal is too narrow for
    the table, each row becomes a paragraph, so that no text is truncated.
    """
    if not sys.stdout.isatty():
        print_lines("\t".join(str(cell) for cell in row) for row in [headings, *rows])
        return
    from rich.table import Table
    from rich.text import Text

    terminal = console()
    # `Text` prevents rich from interpreting a cell as markup.
    cells = [[Text(printable(str(cell)), STATUS_STYLES.get(str(cell), "")) for cell in row] for row in rows]
    columns = zip(map(Text, headings), *cells, strict=True)
    longest = [max(cell.cell_len for cell in column) for column in columns]
    minimum = [
        width if name in whole else min(width, WIDE if name in wide else NARROW)
        for name, width in zip(headings, longest, strict=True)
    ]
    widths = _fit(longest, minimum, terminal.width - 3 * len(headings) - 1)
    if widths is None:
        _print_paragraphs(terminal, title, headings, cells)
        return
    table = Table(title=title or None, title_justify="left", title_style=HEADING, header_style=HEADING)
    for heading, width in zip(headings, widths, strict=True):
        table.add_column(heading, overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    terminal.print(table)


def _fit(longest: Sequence[int], minimum: Sequence[int], available: int) -> list[int] | None:
    """Shrink the widest columns until the table fits; return None if the minimum widths do not fit."""
    widths = list(longest)
    for _ in range(sum(longest) - available):
        widest = max(range(len(widths)), key=lambda index: (widths[index] > minimum[index], widths[index]))
        if widths[widest] <= minimum[widest]:
            return None
        widths[widest] -= 1
    return widths


def _print_paragraphs(terminal: Console, title: str, headings: Sequence[str], cells: Sequence[Sequence[Text]]) -> None:
    from rich.padding import Padding
    from rich.text import Text

    if title:
        terminal.print(Text(title, HEADING))
    for first, *others in cells:
        terminal.print(first, style="bold")
        for heading, cell in zip(headings[1:], others, strict=True):
            if cell:
                terminal.print(Padding(Text.assemble((f"{heading}: " if heading else "", "dim"), cell), (0, 0, 0, 2)))


def counted(number: int, singular: str, plural: str = "") -> str:
    """Return the number followed by the singular or plural noun."""
    return f"{number} {singular if number == 1 else plural or singular + 's'}"


def say(text: str, *, label: str = "", style: str = "") -> None:
    """Print a message to standard error, so that piped output contains only results.

    In a terminal, the label before the message is printed in `style`. A message that cannot be written, for example
    because the terminal is closed, is discarded.
    """
    text = printable(text)
    with contextlib.suppress(OSError):
        if not label or not sys.stderr.isatty():
            sys.stderr.write(f"{label}{text}\n")
            return
        from rich.text import Text

        console(stderr=True).print(Text.assemble((label, style), text), soft_wrap=True)


def suggest(commands: Mapping[str, str]) -> None:
    """Print commands for the next steps to standard error if it is a terminal. The lines are not wrapped."""
    if sys.stderr.isatty():
        width = max(map(len, commands))
        for purpose, command in commands.items():
            say(f"{purpose:<{width}}  {command}")


def print_status(line: str, style: str) -> None:
    """Print one line to standard output; in a terminal, the whole line is printed in `style`."""
    if not sys.stdout.isatty():
        print_lines([line])
        return
    from rich.text import Text

    console().print(Text(printable(line), style), soft_wrap=True)


def console(*, stderr: bool = False) -> Console:
    """Return a terminal without syntax highlighting. If NO_COLOR is set, its output is plain text."""
    from rich.console import Console

    from rowcast.settings import is_color_allowed

    return Console(stderr=stderr, highlight=False, color_system="auto" if is_color_allowed() else None)


def moment(time: datetime) -> str:
    """Format a time in UTC as an RFC 3339 timestamp."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
