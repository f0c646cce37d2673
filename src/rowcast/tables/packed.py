"""Read gzip-compressed tables, and reject spreadsheet workbooks."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import IO, Final

from rowcast.errors import TableError

GZIP: Final = b"\x1f\x8b"
MAX_UNPACKED: Final = 4 * 1024**3
"""The maximum size of an unpacked table. A compressed file can unpack to a thousand times its size."""
SPREADSHEETS: Final = (".xlsx", ".xlsm", ".xls", ".ods")
WORKBOOK_HEADS: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
GZIP_ERRORS: Final = (EOFError, gzip.BadGzipFile, zlib.error)


def unpacked_name(path: Path) -> Path:
    """Return the name of a table file without the extension `.gz`."""
    return path.with_suffix("") if path.suffix.lower() == ".gz" else path


def unpack(path: Path, content: bytes) -> bytes:
    """Return the content of a file after unpacking it if it is compressed; raise TableError if this fails."""
    if not content.startswith(GZIP):
        return content
    packer = zlib.decompressobj(wbits=31)
    pieces, size, rest = [], 0, content
    try:
        while rest:
            piece = packer.decompress(rest, MAX_UNPACKED - size + 1)
            pieces.append(piece)
            size += len(piece)
            if size > MAX_UNPACKED:
                raise TableError(f"{path} unpacks to more than {MAX_UNPACKED // 1024**3} GB", slug="too-large")
            if not packer.eof:
                raise EOFError("the compressed data ends too early")
            rest = packer.unused_data  # a file can consist of several compressed parts
            packer = zlib.decompressobj(wbits=31)
    except GZIP_ERRORS as error:
        raise damaged(path, error) from None
    return b"".join(pieces)


def damaged(path: Path, error: Exception) -> TableError:
    """Return the error for a file that cannot be unpacked."""
    return TableError(f"{path} cannot be unpacked: {error}", slug="malformed-file")


def open_unpacked(path: Path) -> IO[bytes]:
    """Open a table for reading; a compressed file is unpacked while it is read."""
    with path.open("rb") as file:
        is_packed = file.read(2) == GZIP
    return gzip.open(path, "rb") if is_packed else path.open("rb")  # type: ignore[return-value]


def refuse_workbook(path: Path, head: bytes) -> None:
    """Raise TableError if the file is a spreadsheet workbook."""
    if path.suffix.lower() in SPREADSHEETS or (head[:4] in WORKBOOK_HEADS and b"xl/" in head):
        raise TableError(
            f"{path} is a workbook from Excel or another spreadsheet program; save the sheet as a CSV file (in Excel: "
            "File, Save As, CSV UTF-8), and use that file",
            slug="not-a-table",
        )
