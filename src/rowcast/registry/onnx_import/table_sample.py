"""Sample a table that the user supplies for an import: its columns, their ranges and levels, and rows to score."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from rowcast.registry.onnx_import.signature import ObservedColumn
from rowcast.schema.values import canonical_text
from rowcast.tables.read import read_table

SAMPLE_ROWS: Final = 64
MAX_LEVELS: Final = 1000


class TableSample(NamedTuple):
    """A sample of a table: rows with cells as text, column names, and the observed range or levels of each column."""

    rows: list[dict[str, Any]]
    columns: list[str]
    observed: dict[str, ObservedColumn]


def sample_table(path: Path) -> TableSample:
    """Read and sample a table. Repeated calls for the same table return the same sample."""
    frame = read_table(path).frame
    sample = frame.sample(min(SAMPLE_ROWS, frame.height), seed=0) if frame.height else frame
    return TableSample(
        rows=sample.select(pl.all().cast(pl.String)).to_dicts(),
        columns=frame.columns,
        observed={name: _observe(frame[name].cast(pl.String)) for name in frame.columns},
    )


def _observe(texts: pl.Series) -> ObservedColumn:
    """Return the range of a column if every value is a number, or else its most common levels."""
    numbers = texts.cast(pl.Float64, strict=False)
    if numbers.null_count() == texts.null_count() and numbers.len() > numbers.null_count():
        low, high = float(numbers.min()), float(numbers.max())  # type: ignore[arg-type]
        return ObservedColumn(low=low, high=high)
    common = texts.drop_nulls().value_counts(sort=True)[texts.name][:MAX_LEVELS].to_list()
    return ObservedColumn(levels=tuple(dict.fromkeys(canonical_text(text) for text in common)))
