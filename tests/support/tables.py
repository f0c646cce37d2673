"""Write tables to files."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from rowcast.tables.write import open_writer


def write_table(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame in the format that the file extension indicates."""
    with open_writer(path) as writer:
        writer.append(writer.prepare(frame, first=True))
