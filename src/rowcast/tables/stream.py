"""Read a table in pieces, in constant memory: the rows, their types and the errors are those of `tables.read`.

What only the whole file can tell (its encoding, the type of a JSON column) is found by a first pass over it.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

import msgspec
import polars as pl

from rowcast.errors import TableError
from rowcast.tables.column_checks import second_header
from rowcast.tables.read import (
    SNIFFED_BYTES,
    Form,
    from_objects,
    parse_csv,
    plain,
    read,
    single_byte,
    sniff,
    types_of,
    unreadable,
    without_blank,
)

BLOCK: Final = 2 * 1024 * 1024
"""Bytes of text in a piece: some 30,000 rows. Larger pieces are not faster and each waiting one costs memory."""
ROWS: Final = 32_768
CELLS: Final = 16 * ROWS
"""Of a wide table a piece has fewer rows."""
AHEAD: Final = 4
"""Pieces that are read from a columnar file at once."""
LONGEST_ROW: Final = 8 * 1024 * 1024
LARGEST_LIST: Final = 32 * 1024 * 1024
"""Bytes of a JSON list, which is read whole: as Python objects it takes some ten times as much."""
UNDEFINED_IN_CP1252: Final = b"\x81\x8d\x8f\x90\x9d"


class Piece(NamedTuple):
    """Some rows, in the order of the file."""

    load: Callable[[], pl.DataFrame]
    """Parses them, on any thread."""
    share: float
    """How much of the file is read with this piece, up to 1."""


def pieces(path: Path) -> Iterator[Piece]:
    """The table in a CSV, Parquet, JSON Lines or Arrow file, piece by piece; TableError when it cannot be read."""
    try:
        with path.open("rb") as file:
            yield from _reader(path, file)
    except OSError as error:
        raise unreadable(path, error) from None


def _reader(path: Path, file: IO[bytes]) -> Iterator[Piece]:
    head = file.read(BLOCK)
    if head[:4] == b"PAR1":
        return _scanned(path, pl.scan_parquet, "Parquet")
    if head[:6] == b"ARROW1":
        return _scanned(path, pl.scan_ipc, "Arrow")
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json"):
        if head.lstrip()[:1] in (b"[", b""):  # one JSON document has no lines to cut at
            _refuse_large_list(path)
            table = read(path)
            return iter([Piece(lambda: table.frame, 1.0)])
        return _json_lines(path, file)
    return _csv(path, file, head)


def _refuse_large_list(path: Path) -> None:
    size = path.stat().st_size
    if size > LARGEST_LIST:
        most = LARGEST_LIST // 1_000_000
        raise TableError(
            f"{path.name} is one JSON list of {size // 1_000_000} MB; one of more than {most} MB cannot be read in "
            "constant memory: write it as JSON Lines, one object a line (jq -c '.[]' does that)"
        )


def _scanned(path: Path, scan: Callable[[Path], pl.LazyFrame], kind: str) -> Iterator[Piece]:
    """A slice at a time: polars' own batches run ahead of whoever takes them by as much of the file as they can."""
    try:
        frames = scan(path)
        total = frames.select(pl.len()).collect().item()
        if not total:
            read(path)
        rows = min(ROWS, max(1024, CELLS // len(frames.collect_schema())))
        done = 0
        while done < total:
            for frame in frames.slice(done, AHEAD * rows).collect().iter_slices(rows):
                done += frame.height
                yield Piece(partial(plain, frame, path.name), done / total)
    except pl.exceptions.PolarsError as error:
        raise TableError(f"{path} is not a whole {kind} file: {str(error).strip().splitlines()[0]}") from None


def _json_lines(path: Path, file: IO[bytes]) -> Iterator[Piece]:
    types: dict[str, set[type]] = {}
    total = 0
    for rows in _objects(path, file):
        total += len(rows)
        for name in dict.fromkeys(key for row in rows for key in row):
            types.setdefault(name, set()).update(types_of([row.get(name) for row in rows]))
    done = 0
    for rows in _objects(path, file):
        done += len(rows)
        yield Piece(lambda rows=rows: plain(from_objects(rows, types), path.name), done / total)  # type: ignore[misc]


def _objects(path: Path, file: IO[bytes]) -> Iterator[list[dict[str, Any]]]:
    file.seek(0)
    decode = msgspec.json.Decoder().decode
    while lines := file.readlines(BLOCK):
        try:
            rows = [decode(line) for line in lines if not line.isspace()]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise TableError(f"{path} is not JSON Lines (one object a line): {error}") from None
        if not all(isinstance(row, dict) for row in rows):
            raise TableError(f"{path.name}: every row must be an object, column name to value")
        if rows:
            yield rows


def _csv(path: Path, file: IO[bytes], head: bytes) -> Iterator[Piece]:
    text = _survey(path, file, head)
    file.seek(0)
    size = path.stat().st_size
    blocks = _blocks(file, text)
    first = next(blocks)
    form = sniff(path, first[: 4 * SNIFFED_BYTES].decode("utf-8", "ignore"))
    quote = form.quote.encode()
    header, rest, line = b"", first, 1
    for block in blocks:
        cut = _last_line_end(rest, quote)
        line += rest.count(b"\n", 0, cut)
        if len(rest) - cut > LONGEST_ROW:
            raise TableError(
                f"{path} cannot be read as CSV: a quote that is opened in line {line} is not closed within "
                f"{LONGEST_ROW // 1_000_000} MB; close it, or write it twice inside a quoted cell"
            )
        if cut:
            begins = not header
            header, content = _with_header(header, rest[:cut], quote)
            yield Piece(partial(_parsed, path, content, form, begins=begins), min(1.0, file.tell() / size))
        rest = rest[cut:] + block
    begins = not header
    header, content = _with_header(header, rest, quote)
    yield Piece(partial(_parsed, path, content, form, begins=begins), 1.0)


def _parsed(path: Path, content: bytes, form: Form, *, begins: bool) -> pl.DataFrame:
    frame = parse_csv(path, content, form)
    if begins and second_header(frame):
        frame = frame[1:]
    return plain(without_blank(frame), path.name)


def _with_header(header: bytes, content: bytes, quote: bytes) -> tuple[bytes, bytes]:
    """Every piece is parsed with the file's header line in front: one way of reading, whatever the piece."""
    if header:
        return header, header + content
    end = content.find(b"\n")
    while end >= 0 and content.count(quote, 0, end) % 2:
        end = content.find(b"\n", end + 1)
    return (content[: end + 1] if end >= 0 else content), content


def _last_line_end(content: bytes, quote: bytes) -> int:
    """Where the last whole row ends: after a line break with an even number of quotes before it; 0 when none is."""
    end = content.rfind(b"\n")
    quotes = content.count(quote, 0, end) if end >= 0 else 0
    while end >= 0 and quotes % 2:
        before = content.rfind(b"\n", 0, end)
        quotes -= content.count(quote, max(before, 0), end)
        end = before
    return end + 1


class _Text(NamedTuple):
    """How to read the bytes of a text file."""

    encoding: str
    old_lines: bool
    """Lines end with a carriage return alone."""


def _survey(path: Path, file: IO[bytes], head: bytes) -> _Text:
    """The encoding of the whole file, by the rules of `tables.read`."""
    utf16 = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not utf16 and b"\0" in head[:SNIFFED_BYTES]:
        raise TableError(f"{path} is not a table: it is neither text nor Parquet nor Arrow")
    decoder = codecs.getincrementaldecoder("utf-16" if utf16 else "utf-8")("replace" if utf16 else "strict")
    utf8 = not utf16
    returns = feeds = undefined = False
    blank = True
    file.seek(0)
    while block := file.read(BLOCK):
        blank = blank and not block.strip()
        returns = returns or b"\r" in block
        feeds = feeds or b"\n" in block
        if block.isascii() and not utf16 and not decoder.getstate()[0]:
            continue
        undefined = undefined or len(block.translate(None, UNDEFINED_IN_CP1252)) < len(block)
        utf8 = utf8 and _continues(decoder, block)
    if blank:
        raise TableError(f"{path} is empty")
    if utf8 and not _continues(decoder, b"", final=True):
        utf8 = False
    if utf16 or utf8:
        encoding = "utf-16" if utf16 else "utf-8"
    else:
        encoding = "latin-1" if single_byte(path, head) == "latin-1" or undefined else "cp1252"
    return _Text(encoding, returns and not feeds)


def _continues(decoder: codecs.IncrementalDecoder, block: bytes, *, final: bool = False) -> bool:
    try:
        decoder.decode(block, final)
    except UnicodeDecodeError:
        return False
    return True


def _blocks(file: IO[bytes], text: _Text) -> Iterator[bytes]:
    """The file in blocks of UTF-8 without mark and without empty lines in front; at least one."""
    as_is = text.encoding == "utf-8" and not text.old_lines
    decoder = codecs.getincrementaldecoder(text.encoding)("replace")
    begun = False
    while block := file.read(BLOCK):
        if not as_is:
            decoded = decoder.decode(block)
            block = (decoded.replace("\r", "\n") if text.old_lines else decoded).encode()
        if not begun:
            block = block.removeprefix(codecs.BOM_UTF8).lstrip(b"\n\r")
            begun = bool(block)
        if begun:
            yield block
    if not as_is:
        yield decoder.decode(b"", True).encode()
    if not begun:
        yield b""
