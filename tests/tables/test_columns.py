"""Reading a few columns of a large table, with the line number of each row."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.tables import columns, stream
from rowcast.tables.columns import read_columns


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each chunk to a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 40)
    monkeypatch.setattr(columns, "FRAME_ROWS", 3)


def test_excluded_lines_are_counted_and_do_not_shift_the_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\nkm/h,kg\n" + "1,2\n,\n" * 30)

    read = read_columns(path, "rows.csv", ["y"])

    assert read.frame["y"].to_list() == ["2"] * 30
    assert read.lines.tolist() == list(range(1, 61, 2))
    assert (read.rows, read.excluded, len(read.starts) > 3) == (30, 31, True)


def test_a_frame_is_read_in_slices() -> None:
    read = read_columns(pl.DataFrame({"x": range(8), "y": range(8)}), "rows", ["x"], ["z", "y", "x"])

    assert read.frame.columns == ["x", "y"]
    assert read.lines.tolist() == list(range(8))
    assert read.starts == (0, 3, 6, 8)


def test_rows_are_counted_even_if_no_column_is_read() -> None:
    assert read_columns(pl.DataFrame({"x": range(8)}), "rows", []).rows == 8


def test_an_absent_column_is_an_error_with_a_suggestion() -> None:
    with pytest.raises(TableError) as caught:
        read_columns(pl.DataFrame({"price": [1]}), "rows", ["prices"])

    assert (caught.value.slug, "did you mean 'price'?" in caught.value.message) == ("unknown-column", True)


def test_a_table_without_rows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("x,y\n")

    with pytest.raises(TableError) as caught:
        read_columns(path, "rows.csv", ["x"])

    assert caught.value.slug == "empty-table"
