"""Find the lines on which rows of a text file begin, for error messages."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

from rowcast.tables.packed import open_unpacked, unpacked_name
from rowcast.tables.read import SNIFFED_BYTES, sniff
from rowcast.tables.stream import BLOCK, detect_encoding

COLUMNAR = (b"PAR1", b"ARRO")


def find_lines(path: Path, rows: Collection[int]) -> Mapping[int, int]:
    """Return the line on which each row begins, counted from 1; return nothing for a file that has no lines.

    Rows are counted as in `read_chunks`. A CSV file has one row per line below the header, except that a line break in
    quotes does not begin a row. A JSON Lines file has one row per nonblank line.
    """
    wanted = frozenset(rows)
    with open_unpacked(path) as file:
        head = file.read(BLOCK)
        is_json = unpacked_name(path).suffix.lower() in (".jsonl", ".ndjson", ".json")
        if head[:4] in COLUMNAR or (is_json and head.lstrip()[:1] == b"["):
            return {}
        if is_json:
            file.seek(0)
            return _select(_json_rows(file), wanted)
        encoding = detect_encoding(path, file, head)
    name = "utf-8-sig" if encoding.name == "utf-8" else encoding.name
    sample = head.decode(name, "replace").lstrip("\r\n").replace("\r\n", "\n").replace("\r", "\n")
    quote = sniff(path, sample[:SNIFFED_BYTES]).quote
    end = "\r" if encoding.has_cr_lines else "\n"
    with io.TextIOWrapper(open_unpacked(path), encoding=name, errors="replace", newline=end) as text:
        return _select(_csv_rows(text, quote), wanted)


def _select(starts: Iterable[int], wanted: Collection[int]) -> Mapping[int, int]:
    lines: dict[int, int] = {}
    for row, line in enumerate(starts):
        if row in wanted:
            lines[row] = line
        if len(lines) == len(wanted):
            break
    return lines


def _json_rows(lines: Iterable[bytes]) -> Iterator[int]:
    return (number for number, line in enumerate(lines, 1) if not line.isspace())


def _csv_rows(lines: Iterable[str], quote: str) -> Iterator[int]:
    """Yield the line on which each row begins. A line break ends a row if the number of quotes before it is even."""
    has_text = has_header = is_inside = False
    start = 1
    for number, line in enumerate(lines, 1):
        has_text = has_text or bool(line.strip("\r\n"))
        if not has_text:  # empty lines before the header are not counted
            start = number + 1
            continue
        is_inside ^= line.count(quote) % 2 == 1
        if not is_inside:
            if has_header:
                yield start
            has_header, start = True, number + 1
