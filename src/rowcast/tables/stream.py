"""Read a table in chunks, using constant memory. The rows, types and errors are the same as with `read_table`.

The encoding of a CSV file and the types of JSON columns depend on the whole file, so a first pass determines them.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from functools import partial
from gzip import GzipFile
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.tables.column_checks import second_header
from rowcast.tables.packed import GZIP_ERRORS, damaged, open_unpacked, refuse_workbook, unpacked_name
from rowcast.tables.read import (
    HEAD_BYTES,
    SNIFFED_BYTES,
    CsvFormat,
    Types,
    from_objects,
    has_values,
    malformed,
    not_a_table,
    not_objects,
    parse_csv,
    plain,
    read_error,
    read_table,
    single_byte,
    sniff,
    types_of,
)

BLOCK: Final = 2 * 1024 * 1024
"""The number of bytes of text per chunk (about 30,000 rows). Larger chunks need more memory and do not save time."""
ROWS: Final = 32_768
"""The maximum number of rows per chunk of a columnar file."""
CELLS: Final = 16 * ROWS
"""The maximum number of cells per chunk of a columnar file. Chunks of wide tables therefore have fewer rows."""
CHUNKS_PER_READ: Final = 4
"""The number of chunks that are read from a columnar file in one step."""
MAX_ROW_BYTES: Final = 8 * 1024 * 1024
MAX_LIST_BYTES: Final = 32 * 1024 * 1024
"""The maximum number of bytes in a JSON list. In memory, a list takes up about ten times that size."""
UNDEFINED_IN_CP1252: Final = b"\x81\x8d\x8f\x90\x9d"


class Rows(NamedTuple):
    """The parsed rows of a chunk."""

    frame: pl.DataFrame
    excluded: tuple[int, ...] = ()
    """The positions of the lines that are not in `frame`: a second header line, and lines without values."""

    @property
    def height(self) -> int:
        """The number of lines, including excluded lines."""
        return self.frame.height + len(self.excluded)

    def positions(self) -> NDArray[np.int64]:
        """Return the position of each row among the lines of the chunk."""
        return np.delete(np.arange(self.height), self.excluded)


class Chunk(NamedTuple):
    """Consecutive rows of a file."""

    load: Callable[[], Rows]
    """A function that parses the rows. It may be called in any thread, and it is picklable."""
    share: float
    """The fraction of the file that has been read after this chunk, from 0 to 1."""


def read_chunks(path: Path) -> Iterator[Chunk]:
    """Read a CSV, Parquet, JSON Lines or Arrow file in chunks; raise TableError if the file cannot be read."""
    try:
        with open_unpacked(path) as file:
            yield from _reader(path, file)
    except GZIP_ERRORS as error:
        raise damaged(path, error) from None
    except OSError as error:
        raise read_error(path, error) from None


def _reader(path: Path, file: IO[bytes]) -> Iterator[Chunk]:
    head = file.read(BLOCK)
    refuse_workbook(path, head[:HEAD_BYTES])
    if _is_packed(file) and (head[:4] == b"PAR1" or head[:6] == b"ARROW1"):
        raise TableError(f"{path} is a compressed Parquet or Arrow file; unpack it first", slug="not-a-table")
    if head[:4] == b"PAR1":
        return _scanned(path, pl.scan_parquet, "Parquet")
    if head[:6] == b"ARROW1":
        return _scanned(path, pl.scan_ipc, "Arrow")
    if unpacked_name(path).suffix.lower() in (".jsonl", ".ndjson", ".json"):
        if head.lstrip()[:1] in (b"[", b""):  # a JSON list cannot be split at line breaks
            _refuse_large_list(path)
            table = read_table(path)
            return iter([Chunk(partial(Rows, table.frame), 1.0)])
        return _json_lines(path, file)
    return _csv(path, file, head)


def _refuse_large_list(path: Path) -> None:
    size = path.stat().st_size
    if size > MAX_LIST_BYTES:
        raise TableError(
            f"{path.name} is a JSON list of {size // 1_000_000} MB, which exceeds the limit of "
            f"{MAX_LIST_BYTES // 1_000_000} MB; convert it to JSON Lines, one object per line (jq -c '.[]')",
            slug="too-large",
        )


def _scanned(path: Path, scan: Callable[[Path], pl.LazyFrame], kind: str) -> Iterator[Chunk]:
    """Read a columnar file in slices, because the batch reader of polars reads ahead without a limit."""
    try:
        frames = scan(path)
        total = frames.select(pl.len()).collect().item()
        if not total:
            read_table(path)
        rows = min(ROWS, max(1024, CELLS // len(frames.collect_schema())))
        done = 0
        while done < total:
            for frame in frames.slice(done, CHUNKS_PER_READ * rows).collect().iter_slices(rows):
                done += frame.height
                yield Chunk(partial(_plain_rows, frame, path.name), done / total)
    except pl.exceptions.PolarsError as error:
        raise malformed(path, kind, str(error).strip().splitlines()[0]) from None


def _json_lines(path: Path, file: IO[bytes]) -> Iterator[Chunk]:
    types: dict[str, set[type]] = {}
    total = 0
    for rows in _objects(path, file):
        total += len(rows)
        for name in dict.fromkeys(key for row in rows for key in row):
            types.setdefault(name, set()).update(types_of([row.get(name) for row in rows]))
    done = 0
    for rows in _objects(path, file):
        done += len(rows)
        yield Chunk(partial(_parse_objects, rows, types, path.name), done / total)


def _parse_objects(rows: list[dict[str, Any]], types: Types, name: str) -> Rows:
    return _plain_rows(from_objects(rows, types), name)


def _plain_rows(frame: pl.DataFrame, name: str) -> Rows:
    return Rows(plain(frame, name))


def _objects(path: Path, file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    file.seek(0)
    decode = msgspec.json.Decoder().decode
    while lines := file.readlines(BLOCK):
        try:
            rows = [decode(line) for line in lines if not line.isspace()]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed(path, "JSON Lines", str(error)) from None
        if not all(isinstance(row, dict) for row in rows):
            raise not_objects(path.name)
        if rows:
            yield rows


def _csv(path: Path, file: IO[bytes], head: bytes) -> Iterator[Chunk]:
    encoding = detect_encoding(path, file, head)
    file.seek(0)
    share = _share_reader(path, file)
    blocks = _blocks(file, encoding)
    first = next(blocks)
    csv_format = sniff(path, first[: 4 * SNIFFED_BYTES].decode("utf-8", "ignore"))
    quote = csv_format.quote.encode()
    header, rest, line = b"", first, 1
    for block in blocks:
        cut, first_line = _last_line_end(rest, quote), line
        line += rest.count(b"\n", 0, cut)
        if len(rest) - cut > MAX_ROW_BYTES:
            limit = f"{MAX_ROW_BYTES // 1_000_000} MB"
            fix = "close the quote, or double it inside a quoted cell"
            raise malformed(path, "CSV", f"the quote opened on line {line} is not closed within {limit}; {fix}")
        if cut:
            is_first = not header
            header, content = _with_header(header, rest[:cut], quote)
            skipped = 0 if is_first else first_line - 1 - header.count(b"\n")
            yield Chunk(partial(_parse, path, content, csv_format, is_first=is_first, skipped=skipped), share())
        rest = rest[cut:] + block
    is_first = not header
    header, content = _with_header(header, rest, quote)
    skipped = 0 if is_first else line - 1 - header.count(b"\n")
    yield Chunk(partial(_parse, path, content, csv_format, is_first=is_first, skipped=skipped), 1.0)


def _is_packed(file: object) -> bool:
    return isinstance(file, GzipFile)


def _share_reader(path: Path, file: IO[bytes]) -> Callable[[], float]:
    """Return a function that returns the share of the file that has been read."""
    size = path.stat().st_size
    source: Any = file.fileobj if _is_packed(file) else file  # type: ignore[attr-defined]
    return lambda: min(1.0, source.tell() / size)


def _parse(path: Path, content: bytes, csv_format: CsvFormat, *, is_first: bool, skipped: int) -> Rows:
    frame = parse_csv(path, content, csv_format, skipped)
    kept = has_values(frame)
    if is_first and second_header(frame):
        kept[0] = False
    excluded = tuple((~kept).arg_true().to_list())
    return Rows(plain(frame.filter(kept) if excluded else frame, path.name), excluded)


def _with_header(header: bytes, content: bytes, quote: bytes) -> tuple[bytes, bytes]:
    """Return the header line, and the content with that line prepended, unless this is the first block, which already
    contains the header.
    """
    if header:
        return header, header + content
    end = content.find(b"\n")
    while end >= 0 and content.count(quote, 0, end) % 2:
        end = content.find(b"\n", end + 1)
    return (content[: end + 1] if end >= 0 else content), content


def _last_line_end(content: bytes, quote: bytes) -> int:
    """Return the end of the last complete row, or 0 if no row is complete.

    A line break ends a row if the number of quotes before it is even.
    """
    end = content.rfind(b"\n")
    quotes = content.count(quote, 0, end) if end >= 0 else 0
    while end >= 0 and quotes % 2:
        before = content.rfind(b"\n", 0, end)
        quotes -= content.count(quote, max(before, 0), end)
        end = before
    return end + 1


class _TextEncoding(NamedTuple):
    """The encoding and the line endings of a text file."""

    name: str
    has_cr_lines: bool
    """Whether lines end with a carriage return and no line feed."""


def detect_encoding(path: Path, file: IO[bytes], head: bytes) -> _TextEncoding:
    """Determine the encoding from the whole file, by the same rules as `read_table`."""
    is_utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not is_utf16 and b"\0" in head[:SNIFFED_BYTES]:
        raise not_a_table(path)
    decoder = codecs.getincrementaldecoder("utf-16" if is_utf16 else "utf-8")("replace" if is_utf16 else "strict")
    is_utf8 = not is_utf16
    has_cr = has_lf = has_undefined = False
    is_blank = True
    file.seek(0)
    while block := file.read(BLOCK):
        is_blank = is_blank and not block.strip()
        has_cr = has_cr or b"\r" in block
        has_lf = has_lf or b"\n" in block
        if block.isascii() and not is_utf16 and not decoder.getstate()[0]:
            continue
        has_undefined = has_undefined or len(block.translate(None, UNDEFINED_IN_CP1252)) < len(block)
        is_utf8 = is_utf8 and _is_valid(decoder, block)
    if is_blank:
        raise TableError(f"{path} is empty", slug="empty-table")
    if is_utf8 and not _is_valid(decoder, b"", final=True):
        is_utf8 = False
    if is_utf16 or is_utf8:
        name = "utf-16" if is_utf16 else "utf-8"
    else:
        name = "latin-1" if single_byte(path, head) == "latin-1" or has_undefined else "cp1252"
    return _TextEncoding(name, has_cr and not has_lf)


def _is_valid(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _blocks(file: IO[bytes], encoding: _TextEncoding) -> Iterator[bytes]:
    """Yield the file as one or more blocks of UTF-8, without a byte order mark or leading empty lines."""
    is_utf8 = encoding.name == "utf-8" and not encoding.has_cr_lines
    decoder = codecs.getincrementaldecoder(encoding.name)("replace")
    has_started = False
    while block := file.read(BLOCK):
        if not is_utf8:
            text = decoder.decode(block)
            block = (text.replace("\r", "\n") if encoding.has_cr_lines else text).encode()
        if not has_started:
            block = block.removeprefix(codecs.BOM_UTF8).lstrip(b"\n\r")
            has_started = bool(block)
        if has_started:
            yield block
    if not is_utf8:
        yield decoder.decode(b"", True).encode()
    if not has_started:
        yield b""
