"""Reading tables: formats, encodings and quoting; errors for files that are not tables."""
# ruff: noqa: DTZ001 - some tests use naive datetimes

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pandas as pd
import polars as pl
import pytest

from rowcast.errors import TableError
from rowcast.tables.read import read_table, table_from_memory


def written(folder: Path, content: bytes, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_common_delimiters_are_detected(tmp_path: Path, delimiter: str) -> None:
    lines = [["name", "note"], ["a", f'"x{delimiter} y"'], ["b", "z"]]
    content = "\n".join(delimiter.join(cells) for cells in lines).encode()

    table = read_table(written(tmp_path, content))

    assert table.frame.rows() == [("a", f"x{delimiter} y"), ("b", "z")]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"\xef\xbb\xbfa,b\r\n1,2\r\n", {"a": ["1"], "b": ["2"]}),
        ("caf\u00e9,b\n\u20ac,2\n".encode("cp1252"), {"caf\u00e9": ["\u20ac"], "b": ["2"]}),
        (b"caf\xe9,b\n\x81,2\n", {"caf\u00e9": ["\x81"], "b": ["2"]}),
        ("a,b\n\u00fc,2\n".encode("utf-16"), {"a": ["\u00fc"], "b": ["2"]}),
        (b"a,b\r1,2\r", {"a": ["1"], "b": ["2"]}),
        (b"'a';'b'\n'1;5';'2'\n", {"a": ["1;5"], "b": ["2"]}),
        (b'a,b\n"1 ""x""","two\nlines"\n', {"a": ['1 "x"'], "b": ["two\nlines"]}),
    ],
    ids=[
        "byte order mark and crlf",
        "windows-1252",
        "latin-1",
        "utf-16",
        "cr only",
        "single quotes",
        "quotes in quotes",
    ],
)
def test_common_encodings_and_quotes_are_detected(
    tmp_path: Path, content: bytes, expected: dict[str, list[str]]
) -> None:
    assert read_table(written(tmp_path, content)).frame.to_dict(as_series=False) == expected


def test_headers_are_trimmed_and_cells_are_unchanged(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, b"id , big\n007 , 123456789012345678\n"))

    assert table.frame.to_dict(as_series=False) == {"id": ["007 "], "big": [" 123456789012345678"]}


def test_blank_lines_are_excluded_and_reported_as_a_finding(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, b"a,b\n1,2\n\n,\n3,4\n"))

    assert table.frame["a"].to_list() == ["1", "3"]
    assert [(finding.code, finding.message) for finding in table.findings] == [
        ("blank-rows", "2 lines contain no values")
    ]


def test_an_unnamed_column_is_given_a_name(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, b",a\n0,x\n")).frame.columns == ["column_1", "a"]


def test_typed_files_keep_their_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"i": [1, None], "f": [0.5, float("nan")], "b": [True, False], "t": ["x", None], "d": [date(2026, 1, 31), None]}
    )
    frame.write_parquet(tmp_path / "t.parquet")
    frame.write_ipc(tmp_path / "t.arrow")
    expected = [(1, 0.5, True, "x", datetime(2026, 1, 31)), (None, None, False, None, None)]

    assert read_table(tmp_path / "t.parquet").frame.rows() == expected
    assert read_table(tmp_path / "t.arrow").frame.rows() == expected


def test_json_lines_keep_their_types_and_mixed_types_are_converted_to_text(tmp_path: Path) -> None:
    lines = b'{"n":1,"m":1,"b":true}\n\n{"n":2.5,"m":"x"}\n{"n":null,"m":2.0,"b":false}\n'

    frame = read_table(written(tmp_path, lines, "rows.jsonl")).frame

    assert frame.to_dict(as_series=False) == {
        "n": [1.0, 2.5, None],
        "m": ["1", "x", "2"],
        "b": [True, None, False],
    }


def test_a_json_array_of_rows_is_read_as_a_table(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, b'[{"a":1},{"a":2}]', "rows.json")).frame["a"].to_list() == [1, 2]


@pytest.mark.parametrize(
    "data",
    [
        {"a": [1.0, None], "when": [datetime(2026, 1, 1, tzinfo=UTC), None]},
        [{"a": 1.0, "when": datetime(2026, 1, 1, tzinfo=UTC)}, {}],
        pl.DataFrame({"a": [1.0, float("nan")], "when": [datetime(2026, 1, 1, tzinfo=UTC), None]}),
        pd.DataFrame({"a": [1.0, float("nan")], "when": [datetime(2026, 1, 1, tzinfo=UTC), None]}),
    ],
    ids=["columns", "rows", "polars", "pandas"],
)
def test_all_kinds_of_in_memory_tables_are_read_identically(data: object) -> None:
    frame = table_from_memory(data).frame

    assert frame.rows() == [(1.0, datetime(2026, 1, 1, tzinfo=UTC)), (None, None)]


def test_repeated_column_names_are_rejected_and_numeric_names_are_converted_to_strings() -> None:
    repeated = pd.DataFrame([[1, 2]], columns=["a", "a"])

    with pytest.raises(TableError, match="several columns with the same name: 'a'"):
        table_from_memory(repeated)
    assert table_from_memory(pd.DataFrame([[1, 2]])).frame.rows(named=True) == [{"0": 1, "1": 2}]
    assert table_from_memory([{0: 1, 1: 2}]).frame.rows(named=True) == [{"0": 1, "1": 2}]


def test_identical_tables_have_the_same_digest() -> None:
    first, same, other = (table_from_memory({"a": values}) for values in ([1, 2], [1, 2], [2, 1]))

    assert first.sha256 == same.sha256 != other.sha256


@pytest.mark.parametrize(
    ("content", "name", "slug"),
    [
        (b"", "t.csv", "empty-table"),
        (b" \n\n", "t.csv", "empty-table"),
        (b"a,b\n", "t.csv", "empty-table"),
        (b"a,a\n1,2\n", "t.csv", "duplicate-column"),
        (b"a, a\n1,2\n", "t.csv", "duplicate-column"),
        (b"a,,\n1,2,3\n", "t.csv", "unnamed-column"),
        (b"a,b\n1,2,3\n", "t.csv", "malformed-file"),
        (b'a,b\n1,"2\n', "t.csv", "malformed-file"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "t.csv", "not-a-table"),
        (bytes(range(1, 32)) * 40 + b"\xff\xfe\xfd", "t.csv", "not-a-table"),
        (b"PAR1 and no more", "t.parquet", "malformed-file"),
        (b"ARROW1 and no more", "t.arrow", "malformed-file"),
        (b'{"a":1}\n{"a":', "t.jsonl", "malformed-file"),
        (b'{"a":1}\n2\n', "t.jsonl", "malformed-file"),
        (b'{"a":[1]}\n', "t.jsonl", "nested-value"),
    ],
)
def test_a_file_that_is_not_a_table_raises_a_one_line_error(
    tmp_path: Path, content: bytes, name: str, slug: str
) -> None:
    with pytest.raises(TableError) as caught:
        read_table(written(tmp_path, content, name))

    assert caught.value.slug == slug
    assert "\n" not in caught.value.message
    assert name in caught.value.message or "column" in caught.value.message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"a,b\n1,2,3\n", "line 2 has 3 cells, but the header has 2 names"),
        (b'a,b\n1,"2\n', "a quoted cell is never closed"),
    ],
)
def test_the_error_for_an_invalid_csv_file_states_the_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(TableError, match=reason):
        read_table(written(tmp_path, content))


def test_a_folder_or_a_missing_file_is_rejected(tmp_path: Path) -> None:
    for path, slug in ((tmp_path / "none.csv", "file-not-found"), (tmp_path, "not-a-file")):
        with pytest.raises(TableError) as caught:
            read_table(path)
        assert caught.value.slug == slug


@pytest.mark.parametrize(
    ("data", "slug"), [(7, "not-a-table"), ({"a": [1], "b": [1, 2]}, "row-count"), ([1, 2], "malformed-file")]
)
def test_in_memory_data_that_is_not_a_table_is_rejected(data: object, slug: str) -> None:
    with pytest.raises(TableError) as caught:
        table_from_memory(data)

    assert caught.value.slug == slug


def test_a_second_header_line_is_excluded_and_reported_as_a_finding(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, b"speed,mass,name\nkm/h,kg,text\n1,2,a\n3,4,b\n"))

    assert table.frame["speed"].to_list() == ["1", "3"]
    assert [finding.code for finding in table.findings] == ["two-line-header"]


def test_a_first_row_with_a_single_text_cell_is_not_treated_as_a_second_header(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, b"a,b,c\nx,1,1\n1,2,2\n3,4,4\n"))

    assert table.frame.height == 3


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ("1,2\n3,4,5\n", 3),
        ('"a\n\nb",2\n3,4,5\n', 5),
        ("1,2\n\n\n3,4,5\n", 5),
    ],
)
def test_the_error_for_a_row_with_too_many_cells_names_its_line(tmp_path: Path, rows: str, line: int) -> None:
    path = tmp_path / "t.csv"
    path.write_text("x,y\n" + rows)

    with pytest.raises(TableError) as refused:
        read_table(path)

    assert f"line {line} has 3 cells, but the header has 2 names" in refused.value.message


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x,y,z\n1,2,3\n1,2\n1\n", "line 3 has 2 cells, but the header has 3 names"),
        ('x,y,z\n"a\nb",2,3\n1,2\n', "line 4 has 2 cells, but the header has 3 names"),
        ("x,y,z\n1,2,3\n1,2,\n\n", None),
        ('x,y,z\n"1",2,\n', None),
    ],
)
def test_short_rows_are_reported_with_the_line_of_the_first(tmp_path: Path, text: str, reason: str | None) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)

    found = [finding.message for finding in read_table(path).findings if finding.code == "short-rows"]

    assert found == ([reason] if reason else [])
