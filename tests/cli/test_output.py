"""Printing tables, counts and times."""

from __future__ import annotations

import io
import re

import pytest

from rowcast.cli import output
from rowcast.history.records import to_time


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_markup_in_a_cell_is_printed_literally(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)

    output.print_table(["label"], [["[/x]"], ["[red]7"]])

    assert "[/x]" in terminal.getvalue()
    assert "[red]7" in terminal.getvalue()


def print_everything() -> None:
    output.print_table(["", "part"], [["ok", "disk"], ["PROBLEM", "store"]], "Checks")
    output.print_status("all chains verified", output.GOOD)
    output.say("no such file", label="error: ", style=output.BAD)


def printed_in_a_terminal(monkeypatch: pytest.MonkeyPatch, **variables: str) -> tuple[str, str]:
    """Return standard output and standard error with these environment variables."""
    out, err = Terminal(), Terminal()
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    print_everything()
    return out.getvalue(), err.getvalue()


def test_errors_results_and_headings_are_colored_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = printed_in_a_terminal(monkeypatch)

    assert err == "\x1b[1;31merror: \x1b[0mno such file\n"
    assert re.search(r"\x1b\[1;36m *part", out)
    assert "\x1b[32mok" in out
    assert "\x1b[1;31mPROBLEM" in out
    assert "\x1b[32mall chains verified\x1b[0m" in out


def test_the_no_color_variable_disables_escape_codes(monkeypatch: pytest.MonkeyPatch) -> None:
    out, err = printed_in_a_terminal(monkeypatch, NO_COLOR="1")

    assert "\x1b" not in out + err
    assert err == "error: no such file\n"


def test_output_that_is_not_a_terminal_has_no_escape_codes(capsys: pytest.CaptureFixture[str]) -> None:
    print_everything()

    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.err == "error: no such file\n"


HEADINGS = ["column", "kind", "finding", "action"]
ROWS = [
    ["residential_assets_of_the_household", "integer", "is 0 in 2577 rows and empty in 309", "used as a number"],
    ["purpose", "category", "", ""],
]


@pytest.mark.parametrize("width", [20, 40, 63, 64, 80, 100, 124, 200])
def test_no_text_is_truncated_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("TERM", "xterm")

    output.print_table(HEADINGS, ROWS, "Data check", whole=["kind"], wide=["finding"])

    lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    if any("\u2503" in line for line in lines):  # the output is drawn as a table
        columns = [[] for _ in HEADINGS]
        for line in lines:
            cells = [cell.strip() for cell in re.split("[\u2502\u2503]", line)[1:-1]]
            for column, cell in zip(columns, cells, strict=False):
                column.append(cell)
        shown = ["".join(column).replace(" ", "") for column in columns]
        for index, text in enumerate(shown):
            assert text == "".join([HEADINGS[index], *(row[index] for row in ROWS)]).replace(" ", "")
    else:
        shown_text = "".join(lines).replace(" ", "")
        assert all(cell.replace(" ", "") in shown_text for row in ROWS for cell in row)


def test_a_table_written_to_a_pipe_is_tab_separated(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(["model", "version"], [["loans", 1], ["sum", 2]])

    assert capsys.readouterr().out == "model\tversion\nloans\t1\nsum\t2\n"


def test_a_count_is_printed_with_a_singular_or_plural_noun() -> None:
    assert output.counted(1, "row") == "1 row"
    assert output.counted(2, "row") == "2 rows"
    assert output.counted(0, "entry", "entries") == "0 entries"


def test_a_time_is_printed_in_utc_with_milliseconds() -> None:
    assert output.moment(to_time(1_767_225_600_123_456)) == "2026-01-01T00:00:00.123Z"


def test_control_characters_in_data_are_shown_instead_of_sent_to_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    hostile = "a\x1b]0;title\x07b"

    output.print_lines([hostile])
    output.print_table(["x"], [[hostile]])
    output.print_status(hostile, output.GOOD)
    output.say(hostile)

    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert printed.out.count("a\\x1b]0;title\\x07b") == 3
