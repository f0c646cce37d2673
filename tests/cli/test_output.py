"""What commands print on a terminal."""

from __future__ import annotations

import io
import re

import pytest

from rowcast.cli import output


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_cell_that_looks_like_markup_is_shown_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)

    output.print_table(["label"], [["[/x]"], ["[red]7"]])

    assert "[/x]" in terminal.getvalue()
    assert "[red]7" in terminal.getvalue()


HEADINGS = ["column", "kind", "noticed", "so"]
ROWS = [
    ["residential_assets_of_the_household", "integer", "is 0 in 2577 rows and empty in 309", "used as a number"],
    ["purpose", "category", "", ""],
]


@pytest.mark.parametrize("width", [20, 40, 63, 64, 80, 100, 124, 200])
def test_nothing_of_a_table_is_cut_off_however_narrow_the_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")

    output.print_table(HEADINGS, ROWS, "Data check", whole=["kind"], wide=["noticed"])

    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    if any("\u2503" in line for line in lines):  # drawn
        columns = [[] for _ in HEADINGS]
        for line in lines:
            cells = [cell.strip() for cell in re.split("[\u2502\u2503]", line)[1:-1]]
            for column, cell in zip(columns, cells, strict=False):
                column.append(cell)
        shown = ["".join(column).replace(" ", "") for column in columns]
        for place, shown_column in enumerate(shown):
            assert shown_column == "".join([HEADINGS[place], *(row[place] for row in ROWS)]).replace(" ", "")
    else:
        shown_text = "".join(lines).replace(" ", "")
        assert all(cell.replace(" ", "") in shown_text for row in ROWS for cell in row)
