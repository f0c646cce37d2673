"""Compressed tables and spreadsheet workbooks."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.tables import packed
from rowcast.tables.read import read_table
from rowcast.tables.stream import read_chunks
from rowcast.tables.write import open_writer

TEXT = "a,b\n" + "".join(f"{number},é{number}\n" for number in range(2000))


def streamed(path: Path) -> pl.DataFrame:
    return pl.concat([chunk.load().frame for chunk in read_chunks(path)])


def test_a_compressed_csv_file_is_read_like_an_uncompressed_file(tmp_path: Path) -> None:
    plain, zipped = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    plain.write_text(TEXT)
    middle = len(TEXT.encode()) // 2
    zipped.write_bytes(gzip.compress(TEXT.encode()[:middle]) + gzip.compress(TEXT.encode()[middle:]))

    expected = read_table(plain).frame
    assert read_table(zipped).frame.equals(expected)
    assert streamed(zipped).equals(expected)
    *_, last = read_chunks(zipped)
    assert last.share == 1.0


def test_the_inner_extension_of_a_compressed_json_lines_file_determines_its_format(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n{"a": 2}\n'))

    assert read_table(path).frame.equals(streamed(path))
    assert read_table(path).frame["a"].to_list() == [1, 2]


@pytest.mark.parametrize("content", [gzip.compress(TEXT.encode())[:-9], b"\x1f\x8b" + b"x" * 50])
def test_a_damaged_compressed_file_is_reported(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "t.csv.gz"
    path.write_bytes(content)

    for read in (read_table, streamed):
        with pytest.raises(TableError) as refused:
            read(path)
        assert refused.value.slug == "malformed-file"
        assert "t.csv.gz cannot be unpacked" in refused.value.message


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "MAX_UNPACKED", 1024**2)
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"1,2\n" * 2**18))

    with pytest.raises(TableError) as refused:
        read_table(path)

    assert refused.value.slug == "too-large"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("book.xlsx", b"PK\x03\x04" + b"\0" * 100),
        ("book.xls", b"\xd0\xcf\x11\xe0" + b"\0" * 100),
        ("book.ods", b"PK\x03\x04" + b"\0" * 100),
        ("renamed.csv", b"PK\x03\x04" + b"\0" * 30 + b"xl/workbook.xml" + b"\0" * 100),
    ],
)
def test_the_error_for_a_workbook_says_what_to_do(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    for read in (read_table, streamed):
        with pytest.raises(TableError) as refused:
            read(path)
        assert "Excel" in refused.value.message
        assert "CSV UTF-8" in refused.value.message


def test_a_table_can_be_written_to_a_compressed_file(tmp_path: Path) -> None:
    path = tmp_path / "out.csv.gz"
    with open_writer(path) as writer:
        for number in range(3):
            frame = pl.DataFrame({"a": [number], "b": ["é"]})
            writer.append(writer.prepare(frame, first=number == 0))

    assert gzip.decompress(path.read_bytes()).decode() == "a,b\n0,é\n1,é\n2,é\n"
