"""What commands print on a terminal."""

from __future__ import annotations

import io

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
