"""Read a table from a file or from memory.

CSV cells remain strings, which `schema/values.py` interprets.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import polars as pl

from rowcast.errors import TableError
from rowcast.schema.values import BLANKS, canonical_text
from rowcast.tables.column_checks import second_header
from rowcast.tables.packed import refuse_workbook, unpack, unpacked_name
from rowcast.tables.table import Finding, Table

DELIMITERS: Final = ",;\t|"
SNIFFED_BYTES: Final = 256 * 1024
SNIFFED_LINES: Final = 50
HEAD_BYTES: Final = 16 * 1024


def read_table(path: str | Path) -> Table:
    """Read a CSV, Parquet, JSON Lines or Arrow file; the format is detected from the content and the file name."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise read_error(path, error) from None
    digest = hashlib.sha256(content).hexdigest()
    refuse_workbook(path, content[:HEAD_BYTES])
    content = unpack(path, content)
    frame, findings = _reader(path, content)(path, content)
    return _table(frame, path.name, sha256=digest, findings=findings)


def read_error(path: Path, error: OSError) -> TableError:
    """Return the error for a file that the operating system cannot read."""
    if isinstance(error, FileNotFoundError):
        return TableError(f"{path} does not exist", slug="file-not-found")
    if isinstance(error, IsADirectoryError):
        return TableError(f"{path} is a folder; specify a file", slug="not-a-file")
    return TableError(f"{path} cannot be read: {error.strerror or error}", slug="unreadable")


def table_from_memory(data: Any, name: str = "table") -> Table:
    """Convert a polars or pandas frame, a mapping of columns, or a sequence of rows into a table."""
    if isinstance(data, Table):
        return data
    table = _table(frame_from_memory(data, name), name)
    return Table(table.frame, name, hashlib.sha256(table.frame.write_csv().encode()).hexdigest())


def frame_from_memory(data: Any, name: str = "table") -> pl.DataFrame:
    """Convert a polars or pandas frame, a mapping of columns, or a sequence of rows into a polars frame."""
    if isinstance(data, pl.DataFrame):
        return data
    if is_pandas_frame(data):
        names = _unique(name, [str(column) for column in data.columns])  # `to_dict` would drop repeated columns
        return _from_columns(dict(zip(names, data.to_dict(orient="list").values(), strict=True)))
    if isinstance(data, Mapping):
        return _from_columns({str(key): list(cells) for key, cells in data.items()})
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        return _from_rows(data, name)
    raise TableError(
        f"cannot read a table from {type(data).__name__}; expected a path, a data frame, columns or rows",
        slug="not-a-table",
    )


def is_pandas_frame(data: Any) -> bool:
    """Return whether the value is a pandas data frame, without importing pandas."""
    return hasattr(data, "to_dict") and hasattr(data, "columns")


class CsvFormat(NamedTuple):
    """The column names, the delimiter and the quote character of a CSV file."""

    names: list[str]
    delimiter: str
    quote: str


Findings = tuple[Finding, ...]
Reader = Callable[[Path, bytes], tuple[pl.DataFrame, Findings]]


def _reader(path: Path, content: bytes) -> Reader:
    if not content.strip():
        raise TableError(f"{path} is empty", slug="empty-table")
    if content[:4] == b"PAR1":
        return _read_parquet
    if content[:6] == b"ARROW1":
        return _read_arrow
    if unpacked_name(path).suffix.lower() in (".jsonl", ".ndjson", ".json"):
        return _read_json_lines
    return _read_csv


def _read_parquet(path: Path, content: bytes) -> tuple[pl.DataFrame, Findings]:
    try:
        return pl.read_parquet(io.BytesIO(content)), ()
    except pl.exceptions.PolarsError as error:
        raise malformed(path, "Parquet", _first_line(error)) from None


def _read_arrow(path: Path, content: bytes) -> tuple[pl.DataFrame, Findings]:
    try:
        return pl.read_ipc(io.BytesIO(content)), ()
    except pl.exceptions.PolarsError as error:
        raise malformed(path, "Arrow", _first_line(error)) from None


def _read_json_lines(path: Path, content: bytes) -> tuple[pl.DataFrame, Findings]:
    try:
        if content.lstrip()[:1] == b"[":
            return _from_rows(msgspec.json.decode(content), path.name), ()
        rows = [msgspec.json.decode(line) for line in content.splitlines() if line.strip()]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(path, "JSON Lines", str(error)) from None
    return _from_rows(rows, path.name), ()


def _read_csv(path: Path, content: bytes) -> tuple[pl.DataFrame, Findings]:
    text, findings = _decoded(path, content)
    csv_format, content = sniff(path, text), text.encode()
    frame = parse_csv(path, content, csv_format)
    if _may_have_short_rows(frame, content, csv_format) and (reason := _ragged(content, csv_format, 0)):
        findings = (*findings, Finding("short-rows", "", reason, "the missing cells are treated as missing values"))
    if second_header(frame):
        shown = ", ".join(repr(cell) for cell in frame.row(0)[:4])
        message = f"the second line is also a header ({shown})"
        findings = (*findings, Finding("two-line-header", "", message, "excluded"))
        frame = frame[1:]
    rows = frame.filter(has_values(frame))
    if rows.height < frame.height:
        message = f"{frame.height - rows.height} lines contain no values"
        findings = (*findings, Finding("blank-rows", "", message, "excluded"))
    return rows, findings


def parse_csv(path: Path, content: bytes, csv_format: CsvFormat, skipped_lines: int = 0) -> pl.DataFrame:
    """Parse UTF-8 text that starts with the header line; all cells remain strings.

    `skipped_lines` is the number of lines of the file between the header and the rest of the text.
    """
    names = csv_format.names
    try:
        frame = pl.read_csv(
            io.BytesIO(content),
            separator=csv_format.delimiter,
            quote_char=csv_format.quote,
            infer_schema=False,
            new_columns=[f"c{index}" for index in range(len(names))],
        )
    except pl.exceptions.PolarsError as error:
        reason = _ragged(content, csv_format, skipped_lines) or _csv_reason(error)
        raise malformed(path, "CSV", reason) from None
    if frame.width != len(names):
        raise malformed(path, "CSV", f"the header has {len(names)} names, but the rows have {frame.width} cells")
    frame.columns = _unique(path.name, names)
    return frame


def _may_have_short_rows(frame: pl.DataFrame, content: bytes, csv_format: CsvFormat) -> bool:
    """Return whether there may be short rows, which lack their last cell and have too few delimiters. If so, the cells
    of every row must be counted.
    """
    if frame.width < 2 or not frame.to_series(-1).has_nulls():
        return False
    if csv_format.quote.encode() in content:
        return True
    lines = sum(not line.isspace() for line in content.splitlines() if line)
    return content.count(csv_format.delimiter.encode()) != lines * (frame.width - 1)


def _ragged(content: bytes, csv_format: CsvFormat, skipped_lines: int) -> str:
    """Describe the first row whose number of cells differs from the header's; return "" if there is none."""
    width = len(csv_format.names)
    text = io.StringIO(content.decode("utf-8", "replace"), newline="")
    rows = csv.reader(text, delimiter=csv_format.delimiter, quotechar=csv_format.quote)
    header_lines, end = 0, 0
    try:
        for cells in rows:
            start, end = end + 1, rows.line_num
            if not header_lines:
                header_lines = end
            elif len(cells) != width and any(cell.strip() for cell in cells):
                return f"line {start + skipped_lines} has {len(cells)} cells, but the header has {width} names"
    except csv.Error:
        return ""
    return ""


def has_values(frame: pl.DataFrame) -> pl.Series:
    """Return which lines contain values. In a frame with a single column, an empty line is a missing value."""
    every = pl.repeat(True, frame.height, dtype=pl.Boolean)
    return frame.select(~pl.all_horizontal(pl.all().is_null()) if frame.width > 1 else every).to_series()


def _csv_reason(error: Exception) -> str:
    reason = _first_line(error)
    if "more fields" in reason:
        return "a row has more cells than the header has names"
    return "a quoted cell is never closed" if "could not parse" in reason else reason


def _decoded(path: Path, content: bytes) -> tuple[str, Findings]:
    """Decode a file as UTF-16 if it has a UTF-16 byte order mark, otherwise as UTF-8, Windows-1252 or Latin-1."""
    findings: Findings = ()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        text = content.decode("utf-16", "replace")
    elif b"\0" in content[:SNIFFED_BYTES]:
        raise not_a_table(path)
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError:
            encoding = single_byte(path, content)
            text = content.decode(encoding)
            findings = (Finding("encoding", "", "the file is not UTF-8", f"read as {encoding}"),)
    if "\r" in text and "\n" not in text:
        text = text.replace("\r", "\n")
    return text.lstrip("\n\r"), findings


def single_byte(path: Path, content: bytes) -> str:
    """Return `cp1252` or `latin-1` for text that is not UTF-8; raise TableError if the content is not text."""
    controls = sum(byte < 32 and byte not in b"\t\n\r\x0b\x0c" for byte in content[:SNIFFED_BYTES])
    # Text contains almost no control characters; in images and archives, about 10% of the bytes are control characters.
    if controls * 100 > min(len(content), SNIFFED_BYTES):
        raise not_a_table(path)
    try:
        content.decode("cp1252")
    except UnicodeDecodeError:
        return "latin-1"
    return "cp1252"


def sniff(path: Path, text: str) -> CsvFormat:
    """Detect the format of CSV text.

    The delimiter is chosen for which the largest share of lines has as many cells as the first line. In a tie, the
    delimiter that yields the most cells is used.
    """
    sample = text[:SNIFFED_BYTES]
    quote = "'" if sample[:1] == "'" and sample.count("'") > sample.count('"') else '"'
    best: tuple[tuple[float, int], str, list[str]] | None = None
    for delimiter in DELIMITERS:
        try:
            lines = _cells(sample, delimiter, quote)
        except csv.Error:
            continue
        if not lines:
            break
        width = len(lines[0])
        consistency = sum(len(line) == width for line in lines) / len(lines)
        fit = (consistency if width > 1 else 0.0, width)
        if best is None or fit > best[0]:
            best = fit, delimiter, lines[0]
    if best is None:
        raise malformed(path, "CSV", "no header line found")
    return CsvFormat(best[2], best[1], quote)


def _cells(sample: str, delimiter: str, quote: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(sample), delimiter=delimiter, quotechar=quote)
    lines = []
    for line in reader:
        if line:
            lines.append(line)
        if len(lines) == SNIFFED_LINES:
            break
    return lines


def _unique(name: str, headers: Sequence[str]) -> list[str]:
    names = [header.strip(BLANKS) for header in headers]
    repeated = [header for header, count in Counter(names).items() if count > 1 and header]
    if repeated:
        raise TableError(
            f"{name} has several columns with the same name: {', '.join(map(repr, repeated))}; rename them",
            slug="duplicate-column",
        )
    empty = [index for index, header in enumerate(names) if not header]
    if len(empty) == 1 and f"column_{empty[0] + 1}" not in names:  # pandas writes its index without a name
        names[empty[0]] = f"column_{empty[0] + 1}"
    elif empty:
        raise TableError(
            f"{name} has {len(empty)} columns without a name; name them in the first line", slug="unnamed-column"
        )
    return names


def _from_rows(rows: Sequence[Any], name: str) -> pl.DataFrame:
    if not all(isinstance(row, Mapping) for row in rows):
        raise not_objects(name)
    keys = dict.fromkeys(key for row in rows for key in row)
    return _from_columns({str(key): [row.get(key) for row in rows] for key in keys})


Types = Mapping[str, set[type]]
"""The types of the values in each column, across all rows of a table."""


def from_objects(rows: Sequence[Any], types: Types) -> pl.DataFrame:
    """Convert some rows of a table into a frame whose column types fit the whole table."""
    return pl.DataFrame([column_of(name, [row.get(name) for row in rows], types[name]) for name in types])


def _from_columns(columns: Mapping[str, list[Any]]) -> pl.DataFrame:
    if len({len(cells) for cells in columns.values()}) > 1:
        raise TableError("the columns differ in length", slug="row-count")
    return pl.DataFrame([_series(name, cells) for name, cells in columns.items()])


def _series(name: str, cells: list[Any]) -> pl.Series:
    values = [None if _is_missing(cell) else cell.item() if hasattr(cell, "item") else cell for cell in cells]
    return column_of(name, values, types_of(values))


def types_of(values: Iterable[Any]) -> set[type]:
    """Return the types of the values, plus float if an integer does not fit in 64 bits."""
    types = {type(value) for value in values} - {type(None)}
    if int in types and not all(type(value) is not int or -(1 << 63) <= value < 1 << 63 for value in values):
        types.add(float)
    return types


def column_of(name: str, values: list[Any], types: set[type]) -> pl.Series:
    """Return a series of the narrowest type that fits all `types`; values of mixed types become canonical text."""
    if any(issubclass(kind, list | tuple | dict | set) for kind in types):
        raise TableError(
            f"column {name!r} contains lists or objects; each cell must contain a single value", slug="nested-value"
        )
    if types <= {bool}:
        return pl.Series(name, values, pl.Boolean if types else pl.String)
    if types <= {int}:
        return pl.Series(name, values, pl.Int64)
    if types <= {int, float}:
        return pl.Series(name, [None if value is None else float(value) for value in values], pl.Float64)
    if all(issubclass(kind, date) for kind in types):
        return _moments(name, values)
    texts = [None if value is None else _text(value) for value in values]
    return pl.Series(name, texts, pl.String)


def _is_missing(cell: Any) -> bool:
    return cell is None or type(cell).__name__ in ("NAType", "NaTType") or (isinstance(cell, float) and cell != cell)


def _text(value: Any) -> str:
    if isinstance(value, str | bool | int | float):
        return value if isinstance(value, str) else canonical_text(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def _moments(name: str, values: list[Any]) -> pl.Series:
    moments = [value if value is None or isinstance(value, datetime) else _midnight(value) for value in values]
    zoned = {moment.tzinfo is not None for moment in moments if moment is not None}
    if len(zoned) > 1:
        return pl.Series(name, [None if moment is None else moment.isoformat() for moment in moments], pl.String)
    return pl.Series(name, moments, pl.Datetime("us", "UTC" if zoned == {True} else None))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day)  # noqa: DTZ001 - naive, so that the column's zone applies


def _table(frame: pl.DataFrame, name: str, *, sha256: str = "", findings: Findings = ()) -> Table:
    """Convert a frame into a table; raise TableError if the frame has no rows."""
    frame = plain(frame, name)
    if not frame.height:
        raise TableError(f"{name} has no rows", slug="empty-table")
    return Table(frame, name, sha256, findings)


def plain(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Trim the column names, and cast each column to strings, integers, floats, booleans or datetimes."""
    if not frame.width:
        raise TableError(f"{name} has no columns", slug="empty-table")
    frame = frame.rename(dict(zip(frame.columns, _unique(name, frame.columns), strict=True)))
    return frame.select(_plain(name, series) for series in frame.get_columns())


def _plain(table: str, series: pl.Series) -> pl.Series:
    kind = series.dtype
    if kind in (pl.String, pl.Boolean) or kind.is_integer():
        return series
    if kind.is_float() or kind.is_decimal():
        return series.cast(pl.Float64).fill_nan(None)
    if kind in (pl.Categorical, pl.Enum, pl.Time, pl.Null):
        return series.cast(pl.String)
    if kind == pl.Date:
        return series.cast(pl.Datetime("us"))
    if isinstance(kind, pl.Datetime):
        return (series.dt.convert_time_zone("UTC") if kind.time_zone else series).dt.cast_time_unit("us")
    raise TableError(
        f"{table}: column {series.name!r} has the type {kind}; each cell must contain a single value",
        slug="nested-value",
    )


def malformed(path: Path, kind: str, reason: str) -> TableError:
    """Return the error for a malformed file."""
    return TableError(f"{path} is not valid {kind}: {reason}", slug="malformed-file")


def not_a_table(path: Path) -> TableError:
    """Return the error for a file that is not in any of the supported formats."""
    return TableError(f"{path} is not a table; expected text, Parquet or Arrow", slug="not-a-table")


def not_objects(name: str) -> TableError:
    """Return the error for JSON whose rows are not objects."""
    return TableError(f"{name}: every row must be an object that maps column names to values", slug="malformed-file")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
