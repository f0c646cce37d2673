"""Read a few columns of a large table, so that they can be checked before all columns are read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.tables.stream import Chunk, Rows, read_chunks
from rowcast.tables.table import closest

FRAME_ROWS: Final = 65_536
"""The number of rows per chunk of a frame in memory."""

Source = Path | pl.DataFrame
"""The path of a table file, or a frame in memory."""


@dataclass(frozen=True)
class SelectedColumns:
    """A subset of a table's columns, with all rows."""

    frame: pl.DataFrame
    lines: NDArray[np.int64]
    """The line of each row, counted from 0 below the header. Excluded lines are counted too."""
    starts: tuple[int, ...]
    """The index of each chunk's first row, followed by the total number of rows."""
    excluded: int
    """The number of lines that are not rows: a second header line, and lines without values."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.starts[-1]


def chunks_of(source: Source) -> Iterator[Chunk]:
    """Read a file or a frame in chunks; raise TableError if the file cannot be read."""
    return read_chunks(source) if isinstance(source, Path) else _slices(source)


def _slices(frame: pl.DataFrame) -> Iterator[Chunk]:
    done = 0
    for part in frame.iter_slices(FRAME_ROWS):
        done += part.height
        yield Chunk(partial(Rows, part), done / frame.height)


def read_columns(source: Source, table: str, names: Sequence[str], optional: Collection[str] = ()) -> SelectedColumns:
    """Return the columns listed in `names`, and those columns listed in `optional` that exist.

    Raise TableError if a column in `names` is absent or the table has no rows.
    """
    frames, lines, starts = [], [], [0]
    line = 0
    for chunk in chunks_of(source):
        rows = chunk.load()
        present = rows.frame.columns
        for name in names:
            if name not in present:
                raise TableError(f"{table} has no column {name!r}; {closest(name, present)}", slug="unknown-column")
        chosen = [*names, *(name for name in optional if name in present and name not in names)]
        frames.append(rows.frame.select(list(dict.fromkeys(chosen))))
        lines.append(line + rows.positions())
        line += rows.height
        starts.append(starts[-1] + rows.frame.height)
    if not starts[-1]:
        raise TableError(f"{table} has no rows", slug="empty-table")
    return SelectedColumns(pl.concat(frames), np.concatenate(lines), tuple(starts), line - starts[-1])
