"""Each row is identified by the line on which it begins."""

from __future__ import annotations

import gzip
from pathlib import Path

import polars as pl
import pytest

from rowcast.tables.line_numbers import find_lines
from rowcast.tables.stream import read_chunks


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"a,b\n1,x\n2,y\n3,z\n", [2, 3, 4]),
        (b"a,b\r\n1,x\r\n2,y\r\n3,z", [2, 3, 4]),
        (b"a,b\r1,x\r2,y\r3,z\r", [2, 3, 4]),
        (b"\n\na,b\n1,x\n2,y\n3,z\n", [4, 5, 6]),
        (b"\xef\xbb\xbfa,b\n1,x\n2,y\n3,z\n", [2, 3, 4]),
        (b'a,"b\nc"\n1,"x\n\n"\n2,"y ""q"""\n3,z\n', [3, 6, 7]),
        ("a,b\n1,ü\n2,y\n3,z\n".encode("utf-16"), [2, 3, 4]),
        (b"a,b\n1,\xfc\n2,y\n3,z\n", [2, 3, 4]),
        (b"a;b\n1;x\n2;y\n3;z\n", [2, 3, 4]),
        (b"a,b\n1,x\n,\n3,z\n", [2, 3, 4]),
        (b"a,b\n1,x\n\n3,z\n", [2, 3, 4]),
    ],
)
def test_a_row_of_a_csv_file_is_found_on_its_first_line(tmp_path: Path, content: bytes, lines: list[int]) -> None:
    path, packed = tmp_path / "t.csv", tmp_path / "t.csv.gz"
    path.write_bytes(content)
    packed.write_bytes(gzip.compress(content))

    assert sum(chunk.load().height for chunk in read_chunks(path)) == 3
    for source in (path, packed):
        assert [find_lines(source, {row})[row] for row in range(3)] == lines


def test_blank_lines_of_a_json_lines_file_are_not_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a":1}\n\n{"a":2}\n')

    assert find_lines(path, {0, 1}) == {0: 1, 1: 3}


def test_a_file_without_lines_has_no_line_numbers(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1, 2]}).write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({"a": [1, 2]}).write_ipc(tmp_path / "t.arrow")
    (tmp_path / "t.json").write_text('[{"a":1},{"a":2}]')

    assert [find_lines(tmp_path / name, {1}) for name in ("t.parquet", "t.arrow", "t.json")] == [{}, {}, {}]
