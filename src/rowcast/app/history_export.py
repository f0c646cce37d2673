"""Exports the history to a CSV, JSON Lines or Parquet file, in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rowcast.errors import TableError

if TYPE_CHECKING:
    import polars as pl

    from rowcast.history.records import Record


def export_records(records: Iterator[Record], out: Path) -> int:
    """Write the records in the format that the file's suffix specifies, and return the number of records.

    The file does not appear until it is complete. Only its owner can read it, because it can contain personal data.
    """
    from rowcast.history.export import FORMATS

    counter = _Counter(records)
    suffix = out.suffix.lower().lstrip(".")
    if suffix == "parquet":
        _write_parquet(out, counter)
    elif suffix in FORMATS:
        _write_text(out, FORMATS[suffix](counter))
    else:
        raise TableError(f"cannot write {out}: unknown format; the file name must end in .csv, .jsonl or .parquet")
    return counter.count


class _Counter:
    """Iterates over the records and counts them."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.count = 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.count += 1
            yield record


def _write_text(out: Path, chunks: Iterator[bytes]) -> None:
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:  # noqa: PTH123 - sets the mode
            file.writelines(chunks)
        part.replace(out)
    except OSError as error:
        raise TableError(f"cannot write {out}: {error.strerror or error}") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _write_parquet(out: Path, records: _Counter) -> None:
    import polars as pl

    from rowcast.history.export import COLUMNS, split_into_pieces, to_columns
    from rowcast.tables.write import open_writer

    kinds: dict[str, Any] = {
        "at": pl.Datetime("us", "UTC"),
        **dict.fromkeys(("version", "seq"), pl.Int64),
        **dict.fromkeys(("probability", "score"), pl.Float64),
    }
    schema: dict[str, Any] = {name: kinds.get(name, pl.String) for name in COLUMNS}

    def frame(piece: list[Record]) -> pl.DataFrame:
        return pl.DataFrame([to_columns(record) for record in piece], schema=schema)

    with open_writer(out) as writer:
        is_first = True
        for piece in split_into_pieces(records):
            writer.append(writer.prepare(frame(piece), first=is_first))
            is_first = False
        if is_first:
            writer.append(writer.prepare(frame([]), first=True))
