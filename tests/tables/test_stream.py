"""Chunks of a table yield the same rows, types and errors as the whole table, wherever the table is split."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.tables import stream
from rowcast.tables.read import read_table
from rowcast.tables.stream import Chunk, read_chunks
from support.tables import write_table

LINES = "".join(f"{n},text {n}\n" for n in range(60))
FILES: dict[str, tuple[str, bytes]] = {
    "plain": ("t.csv", f"n,t\n{LINES}".encode()),
    "no line break at the end": ("t.csv", f"n,t\n{LINES}7,end".encode()),
    "windows lines": ("t.csv", f"n,t\n{LINES}".replace("\n", "\r\n").encode()),
    "carriage returns": ("t.csv", f"n,t\n{LINES}".replace("\n", "\r").encode()),
    "a byte order mark": ("t.csv", f"\ufeffn,t\n{LINES}".encode()),
    "empty lines in front": ("t.csv", f"\n\n\nn,t\n{LINES}".encode()),
    "semicolons": ("t.csv", f"n,t\n{LINES}".replace(",", ";").encode()),
    "windows-1252": ("t.csv", f"n,t\n{LINES}7,Zürich €\n".encode("cp1252")),
    "latin-1": ("t.csv", f"n,t\n{LINES}7,Z\x81rich\n".encode("latin-1")),
    "utf-16": ("t.csv", f"n,t\n{LINES}7,Zürich\n".encode("utf-16")),
    "several bytes per character": ("t.csv", ("n,t\n" + "1,𝒳é漢\n" * 60).encode()),
    "line breaks in quotes": ("t.csv", ("n,t\n" + '1,"a ""b""\nc, d"\n\n' * 40).encode()),
    "line breaks in the header": ("t.csv", ('n,"t\nu"\n' + LINES).encode()),
    "single quotes": ("t.csv", ("'n','t'\n" + "'1','a\nb'\n" * 40).encode()),
    "blank lines": ("t.csv", f"n,t\n{LINES}\n,\n\n{LINES}".encode()),
    "one column with gaps": ("t.csv", ("n\n" + "1\n\n2\n" * 60).encode()),
    "short rows": ("t.csv", f"n,t,u\n{LINES}".replace("t,u", "t,u").encode()),
    "json lines": ("t.jsonl", b'{"n":1,"t":"a"}\n\n' * 60),
    "json with mixed types at the end": ("t.jsonl", b'{"n":1}\n' * 60 + b'{"n":1.5,"t":true}\n{"t":"x"}\n{"n":null}\n'),
    "json with huge numbers at the end": ("t.jsonl", b'{"n":1}\n' * 60 + b'{"n":9223372036854775808}\n'),
    "a json list": ("t.json", json.dumps([{"n": 1, "t": "x"}] * 60).encode()),
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limit each chunk to a few lines."""
    monkeypatch.setattr(stream, "BLOCK", 101)
    monkeypatch.setattr(stream, "ROWS", 7)


def concatenated(path: Path) -> tuple[int, pl.DataFrame]:
    """Return the number of chunks and all of their rows."""
    chunks = list(read_chunks(path))
    assert [chunk.share for chunk in chunks] == sorted(chunk.share for chunk in chunks)
    assert chunks[-1].share == 1.0
    return len(chunks), pl.concat([chunk.load().frame for chunk in chunks])


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("name", "content"), FILES.values(), ids=FILES)
def test_concatenated_chunks_equal_the_whole_table(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    count, frame = concatenated(path)

    assert count > 1 or path.suffix == ".json"
    assert frame.equals(read_table(path).frame)
    assert frame.schema == read_table(path).frame.schema


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("ending", ["parquet", "arrow"])
def test_columnar_files_are_split_into_chunks(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"t.{ending}"
    write_table(pl.DataFrame({" n": range(100), "x": [0.5, float("nan")] * 50}), path)

    count, frame = concatenated(path)

    assert count > 1
    assert frame.equals(read_table(path).frame)


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
def test_reading_chunks_raises_the_same_errors_as_reading_the_whole_table(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(TableError) as whole:
        read_table(path)
    with pytest.raises(TableError) as in_chunks:
        concatenated(path)

    assert (in_chunks.value.slug, in_chunks.value.message) == (whole.value.slug, whole.value.message)


@pytest.mark.usefixtures("small")
def test_an_unclosed_quote_is_detected_without_reading_the_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_ROW_BYTES", 500)
    path = tmp_path / "t.csv"
    path.write_text(f'n,t\n{LINES}7,"never closed\n' + LINES * 100)
    seen: list[Chunk] = []

    with pytest.raises(TableError, match=r"opened on line 62 ") as caught:
        seen.extend(read_chunks(path))

    assert caught.value.slug == "malformed-file"
    assert max(chunk.share for chunk in seen) < 0.1


def test_a_json_list_above_the_size_limit_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MAX_LIST_BYTES", 1000)
    path = tmp_path / "t.json"
    path.write_text(json.dumps([{"n": 1, "t": "x"}] * 60))

    with pytest.raises(TableError) as caught:
        list(read_chunks(path))

    assert caught.value.slug == "too-large"


def test_the_number_of_cells_in_a_chunk_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(pl.DataFrame({f"c{index}": range(9000) for index in range(300)}), path)

    heights = [chunk.load().frame.height for chunk in read_chunks(path)]

    assert max(heights) * 300 <= stream.CELLS
    assert sum(heights) == 9000


def test_excluded_lines_keep_their_positions(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("speed,mass\nkm/h,kg\n1,2\n,\n3,4\n")

    (chunk,) = read_chunks(path)

    rows = chunk.load()
    assert rows.frame["speed"].to_list() == ["1", "3"]
    assert (rows.excluded, rows.height, rows.positions().tolist()) == ((0, 2), 4, [1, 3])


def test_the_error_for_a_row_with_too_many_cells_names_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "BLOCK", 50)
    path = tmp_path / "t.csv"
    for line in (3, 40, 99):
        lines = [f'"a\n{number}",2' for number in range(100)]
        lines[line] = "1,2,3"
        path.write_text("x,y\n" + "\n".join(lines) + "\n")

        with pytest.raises(TableError) as refused:
            _ = [chunk.load() for chunk in read_chunks(path)]

        assert f"line {2 + 2 * line} has 3 cells" in refused.value.message
