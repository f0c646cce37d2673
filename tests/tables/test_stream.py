"""Pieces of a table: the same rows, types and complaints as the whole table, wherever it is cut."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from rowcast import tables
from rowcast.errors import TableError
from rowcast.tables import stream

LINES = "".join(f"{n},text {n}\n" for n in range(60))
FILES: dict[str, tuple[str, bytes]] = {
    "plain": ("t.csv", f"n,t\n{LINES}".encode()),
    "no line break at the end": ("t.csv", f"n,t\n{LINES}7,end".encode()),
    "windows lines": ("t.csv", f"n,t\n{LINES}".replace("\n", "\r\n").encode()),
    "old lines": ("t.csv", f"n,t\n{LINES}".replace("\n", "\r").encode()),
    "a mark in front": ("t.csv", f"\ufeffn,t\n{LINES}".encode()),
    "empty lines in front": ("t.csv", f"\n\n\nn,t\n{LINES}".encode()),
    "semicolons": ("t.csv", f"n,t\n{LINES}".replace(",", ";").encode()),
    "windows-1252": ("t.csv", f"n,t\n{LINES}7,Zürich €\n".encode("cp1252")),
    "latin-1": ("t.csv", f"n,t\n{LINES}7,Z\x81rich\n".encode("latin-1")),
    "utf-16": ("t.csv", f"n,t\n{LINES}7,Zürich\n".encode("utf-16")),
    "many bytes a letter": ("t.csv", ("n,t\n" + "1,𝒳é漢\n" * 60).encode()),
    "line breaks in quotes": ("t.csv", ("n,t\n" + '1,"a ""b""\nc, d"\n\n' * 40).encode()),
    "line breaks in the header": ("t.csv", ('n,"t\nu"\n' + LINES).encode()),
    "single quotes": ("t.csv", ("'n','t'\n" + "'1','a\nb'\n" * 40).encode()),
    "blank lines": ("t.csv", f"n,t\n{LINES}\n,\n\n{LINES}".encode()),
    "one column with gaps": ("t.csv", ("n\n" + "1\n\n2\n" * 60).encode()),
    "short rows": ("t.csv", f"n,t,u\n{LINES}".replace("t,u", "t,u").encode()),
    "json lines": ("t.jsonl", b'{"n":1,"t":"a"}\n\n' * 60),
    "json that is mixed later on": ("t.jsonl", b'{"n":1}\n' * 60 + b'{"n":1.5,"t":true}\n{"t":"x"}\n{"n":null}\n'),
    "json with huge numbers later on": ("t.jsonl", b'{"n":1}\n' * 60 + b'{"n":9223372036854775808}\n'),
    "a json list": ("t.json", json.dumps([{"n": 1, "t": "x"}] * 60).encode()),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces of a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 101)
    monkeypatch.setattr(stream, "ROWS", 7)


def together(path: Path) -> tuple[int, pl.DataFrame]:
    found = list(tables.pieces(path))
    assert [piece.share for piece in found] == sorted(piece.share for piece in found)
    assert found[-1].share == 1.0
    return len(found), pl.concat([piece.load() for piece in found])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "content"), FILES.values(), ids=FILES)
def test_pieces_together_are_the_table(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    count, frame = together(path)

    assert count > 1 or path.suffix == ".json"
    assert frame.equals(tables.read(path).frame)
    assert frame.schema == tables.read(path).frame.schema


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_columnar_files_come_in_pieces(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    tables.write(pl.DataFrame({" n": range(100), "x": [0.5, float("nan")] * 50}), path)

    count, frame = together(path)

    assert count > 1
    assert frame.equals(tables.read(path).frame)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b""),
        ("t.csv", b"\n \n"),
        ("t.csv", b"\0\1\2"),
        ("t.csv", f"n,t\n{LINES}1,2,3\n".encode()),
        ("t.csv", b"n,n\n1,2\n"),
        ("t.parquet", b"PAR1 and no more"),
        ("t.arrow", b"ARROW1 and no more"),
        ("t.jsonl", b""),
        ("t.jsonl", b'{"n":1}\n' * 60 + b"{"),
        ("t.jsonl", b'{"n":1}\n' * 60 + b"[]\n"),
        ("t.jsonl", b'{"n":{}}\n'),
        ("none.csv", None),
    ],
)
def test_complaints_are_those_of_the_whole_table(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(TableError) as whole:
        tables.read(path)
    with pytest.raises(TableError) as cut:
        together(path)

    assert cut.value.message == whole.value.message


@pytest.mark.usefixtures("small")
def test_a_quote_that_is_never_closed_is_found_without_reading_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LONGEST_ROW", 500)
    path = tmp_path / "t.csv"
    path.write_text(f'n,t\n{LINES}7,"never closed\n' + LINES * 100)
    seen: list[tables.Piece] = []

    with pytest.raises(TableError, match=r"opened in line 62 is not closed .*; close it"):
        seen.extend(tables.pieces(path))

    assert max(piece.share for piece in seen) < 0.1


def test_a_json_list_that_would_not_fit_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "LARGEST_LIST", 1000)
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"n": 1, "t": "x"}] * 60))

    with pytest.raises(TableError, match="write it as JSON Lines"):
        list(tables.pieces(path))


def test_pieces_of_a_wide_table_have_fewer_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    tables.write(pl.DataFrame({f"c{index}": range(9000) for index in range(300)}), path)

    heights = [piece.load().height for piece in tables.pieces(path)]

    assert max(heights) * 300 <= stream.CELLS
    assert sum(heights) == 9000
