"""Access a table column by column. A large file is first copied to a temporary columnar file, in constant memory."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import polars as pl

from rowcast.errors import TableError
from rowcast.tables.read import read_table
from rowcast.tables.stream import Chunk, Rows, read_chunks
from rowcast.tables.table import Finding, Table
from rowcast.tables.write import open_writer

IN_MEMORY_BYTES: Final = 16 * 1024 * 1024
"""The maximum size of a file that is read into memory as a whole."""
SAMPLE_ROWS: Final = 5000
"""The minimum number of rows in the sample of a file that is not in memory. The sample has at most twice as many
rows.
"""
THREADS: Final = 2
"""The number of threads that parse a file."""


class ColumnStore(Protocol):
    """The columns of a table."""

    @property
    def names(self) -> Sequence[str]:
        """The names of the columns."""
        ...

    @property
    def rows(self) -> int:
        """The number of rows."""
        ...

    @property
    def copies(self) -> int:
        """The number of rows that are copies of other rows."""
        ...

    @property
    def sample(self) -> Table:
        """All rows, or evenly spaced rows of a large table, with the findings from reading."""
        ...

    def read(self, name: str) -> pl.Series:
        """Return one column. Several threads may call this method at the same time."""
        ...


@dataclass(frozen=True)
class MemoryColumns:
    """The columns of a table in memory."""

    sample: Table

    @property
    def names(self) -> Sequence[str]:
        return self.sample.frame.columns

    @property
    def rows(self) -> int:
        return self.sample.frame.height

    @property
    def copies(self) -> int:
        return self.rows - self.sample.frame.n_unique()

    def read(self, name: str) -> pl.Series:
        return self.sample.frame[name]


@dataclass(frozen=True)
class SpooledColumns:
    """The columns of a table in a temporary file."""

    path: Path
    names: Sequence[str]
    rows: int
    copies: int
    sample: Table

    def read(self, name: str) -> pl.Series:
        return pl.scan_parquet(self.path).select(name).collect().to_series()


@contextmanager
def open_columns(source: Path | Table) -> Iterator[ColumnStore]:
    """Open a file or a table in memory; raise TableError if it cannot be read."""
    if isinstance(source, Table):
        yield MemoryColumns(source)
        return
    if not source.is_file() or source.stat().st_size <= IN_MEMORY_BYTES:
        yield MemoryColumns(read_table(source))
        return
    with tempfile.TemporaryDirectory(prefix="rowcast-") as folder:
        yield _spool(source, Path(folder) / "rows.parquet")


class _Sample:
    """Evenly spaced rows of a table of unknown length: at first every row, then every second, every fourth, etc."""

    def __init__(self) -> None:
        self._parts: list[pl.DataFrame] = []
        self._step = 1
        self._seen = 0

    def add(self, frame: pl.DataFrame) -> None:
        offset = -self._seen % self._step
        self._seen += frame.height
        if offset < frame.height:
            self._parts.append(frame.gather_every(self._step, offset))
        while sum(part.height for part in self._parts) > 2 * SAMPLE_ROWS:
            self._parts = [pl.concat(self._parts).gather_every(2)]
            self._step *= 2

    def rows(self) -> pl.DataFrame:
        return pl.concat(self._parts)


def _spool(source: Path, path: Path) -> SpooledColumns:
    """Copy the rows of a file to a columnar file."""
    sample = _Sample()
    hashes: list[Any] = []
    excluded = 0
    with open_writer(path) as writer:
        for index, rows in enumerate(_load_ahead(read_chunks(source))):
            frame = rows.frame
            writer.append(writer.prepare(frame, first=index == 0))
            hashes.append(frame.hash_rows(0).to_numpy())
            sample.add(frame)
            excluded += len(rows.excluded)
    count = sum(map(len, hashes))
    if not count:
        raise TableError(f"{source.name} has no rows", slug="empty-table")
    copies = count - pl.Series(np.concatenate(hashes)).n_unique()
    findings = (Finding("blank-rows", "", f"{excluded} lines contain no values", "excluded"),) if excluded else ()
    table = Table(sample.rows(), source.name, "", findings)
    return SpooledColumns(path, table.frame.columns, count, copies, table)


def _load_ahead(chunks: Iterable[Chunk]) -> Iterator[Rows]:
    """Parse the chunks in threads, and yield their rows in order. At most `THREADS + 2` chunks are in memory."""
    with ThreadPoolExecutor(THREADS, "rowcast-spool") as pool:
        waiting: deque[Future[Rows]] = deque()
        for chunk in chunks:
            waiting.append(pool.submit(chunk.load))
            if len(waiting) > THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
