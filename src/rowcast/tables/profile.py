"""Profile the columns of a table: kind, missing cells, distinct values, range, frequent values and a histogram.

Every figure is exact: all cells are read. Only the kind is inferred from a sample of the cells, and then checked
against all of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import TableError
from rowcast.schema.encoding import own_plan
from rowcast.schema.schema import Column, Schema, Value, shortened
from rowcast.schema.values import BLANKS, MISSING_WORDS, Kind
from rowcast.tables.encode import ParsedColumn, encode_all
from rowcast.tables.infer import infer_column
from rowcast.tables.spool import ColumnStore
from rowcast.tables.table import Finding

KIND_CELLS: Final = 500
"""The kind of a column is inferred from up to twice this number of cells."""
MAX_SURPRISES: Final = 200
"""If cells do not fit the inferred kind, up to this number of them are added to the sample, and the kind is inferred
again.
"""
MAX_ROUNDS: Final = 4
"""If the kind does not fit all cells after this number of attempts, the column is treated as a category."""
BINS: Final = 12
FREQUENT: Final = 5
EXAMPLES: Final = 3
EXAMPLE_ROWS: Final = 1000
"""The number of rows that are searched for examples first. If they contain no values, all rows are searched."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class ValueCount(msgspec.Struct, frozen=True):
    """A value and the number of rows that contain it."""

    value: Value
    rows: int


class Histogram(msgspec.Struct, frozen=True):
    """The number of rows in each bin; the bins divide the range from `low` to `high` into equal parts."""

    low: Value
    high: Value
    rows: Sequence[int]


class ColumnProfile(msgspec.Struct, frozen=True, kw_only=True):
    """A summary of a column. No field contains values if the column is sensitive."""

    name: str
    kind: Kind | None
    """The kind of the column; None if the column has no values."""
    missing: int
    missing_share: float
    distinct: int
    """The number of distinct values. Cells with the same value in different notations count once."""
    low: Value = None
    median: Value = None
    high: Value = None
    """The range of a column of numbers or dates."""
    frequent: Sequence[ValueCount] = ()
    """The most frequent values, unless the column contains numbers or dates; empty if no value occurs twice."""
    examples: Sequence[Value] = ()
    """The first distinct cells, as written in the table."""
    histogram: Histogram | None = None
    """The distribution of the values in a column of numbers or dates; None for other columns."""
    sensitive: bool = False


class TableProfile(msgspec.Struct, frozen=True, kw_only=True):
    """The profile of a table, as `rowcast check --json` prints it."""

    table: str
    rows: int
    duplicates: int
    """The number of rows that are copies of other rows."""
    columns: Sequence[ColumnProfile]
    findings: Sequence[Finding]
    """The data-check findings that do not depend on a target."""
    findings_rows: int
    """The number of rows that were examined for findings; fewer than `rows` in a large table."""


def profile_columns(
    store: ColumnStore, names: Sequence[str], sensitive: Collection[str], *, threads: int
) -> list[ColumnProfile]:
    """Return the profiles of these columns, in order."""

    def profile(name: str) -> ColumnProfile:
        return profile_column(store.read(name), is_sensitive=name in sensitive)

    with ThreadPoolExecutor(threads, "rowcast-profile") as pool:
        return list(pool.map(profile, names))


def profile_column(series: pl.Series, *, is_sensitive: bool) -> ColumnProfile:
    """Return the profile of a column."""
    cells = _trimmed(series)
    missing = cells.null_count()
    column, parsed = _parse(series, cells) if missing < len(cells) else (None, None)
    if column is None:
        profile = ColumnProfile(name=series.name, kind=None, missing=missing, missing_share=1.0, distinct=0)
        return msgspec.structs.replace(profile, sensitive=is_sensitive)
    share = missing / len(cells)
    if parsed is None:
        profile = _describe_texts(cells, column, missing, share)
    else:
        profile = _describe_numbers(parsed, column, missing, share)
    if is_sensitive:
        return ColumnProfile(
            name=profile.name,
            kind=profile.kind,
            missing=missing,
            missing_share=share,
            distinct=profile.distinct,
            sensitive=True,
        )
    return msgspec.structs.replace(profile, examples=_examples(cells))


def _trimmed(series: pl.Series) -> pl.Series:
    """Return the trimmed cells, with null in place of every missing-value marker."""
    if series.dtype == pl.String:
        trimmed = series.str.strip_chars(BLANKS)
        return trimmed.set(trimmed.is_in(list(MISSING_WORDS)), None)
    return series.fill_nan(None) if series.dtype.is_float() else series


def _parse(series: pl.Series, cells: pl.Series) -> tuple[Column, ParsedColumn | None]:
    """Return the column and its parsed numbers or dates, which are None if the cells contain text or booleans."""
    evidence = _kind_cells(cells)
    for _ in range(MAX_ROUNDS):
        column = _infer(evidence)
        if column.kind == "category" or (column.kind == "boolean" and series.dtype == pl.Boolean):
            return column, None
        column = msgspec.structs.replace(column, missing=True)
        schema = Schema((column,))
        parsed = encode_all(cells.to_frame(), schema, own_plan(schema)).columns[column.name]
        if not parsed.bad:
            return column, None if column.kind == "boolean" else parsed
        surprises = cells.gather(list(parsed.bad)[:MAX_SURPRISES]).unique()
        evidence = pl.concat([surprises, evidence])
    return Column(name=series.name, kind="category"), None


def _kind_cells(cells: pl.Series) -> pl.Series:
    """Return distinct cells from the start of a column and from evenly spaced positions."""
    step = max(1, len(cells) // KIND_CELLS)
    picked = pl.concat([cells.head(KIND_CELLS), cells.gather_every(step)]).drop_nulls()
    return picked.unique(maintain_order=True) if len(picked) else cells.drop_nulls().head(KIND_CELLS)


def _infer(cells: pl.Series) -> Column:
    """Infer the kind of a column from some of its cells; treat numbers beyond the range of a model as a category."""
    try:
        return infer_column(cells)
    except TableError as error:
        if error.slug != "too-large":
            raise
        return Column(name=cells.name, kind="category")


def _describe_texts(cells: pl.Series, column: Column, missing: int, share: float) -> ColumnProfile:
    present = cells.drop_nulls()
    if column.kind == "boolean" and present.dtype == pl.String:
        present = present.str.to_lowercase()
    counts = present.alias("value").value_counts(name="rows")
    least = counts["rows"].top_k(FREQUENT).min()
    repeated = counts.filter(
        (pl.col("rows") > 1) & (pl.col("rows") >= least)
    )  # sorting unique strings would take seconds
    top = repeated.sort(["rows", "value"], descending=[True, False]).head(FREQUENT)
    return ColumnProfile(
        name=column.name,
        kind=column.kind,
        missing=missing,
        missing_share=share,
        distinct=counts.height,
        frequent=[ValueCount(shortened(value), rows) for value, rows in top.iter_rows()],
    )


def _describe_numbers(parsed: ParsedColumn, column: Column, missing: int, share: float) -> ColumnProfile:
    values = np.sort(parsed.values[~parsed.missing])
    low, middle, high = (_shown(value, column) for value in (values[0], values[(len(values) - 1) // 2], values[-1]))
    return ColumnProfile(
        name=column.name,
        kind=column.kind,
        missing=missing,
        missing_share=share,
        distinct=int(np.count_nonzero(np.diff(values))) + 1,
        low=low,
        median=middle,
        high=high,
        histogram=Histogram(low, high, _bin_counts(values, are_whole=column.kind == "integer")),
    )


def _bin_counts(ranked: NDArray[Any], *, are_whole: bool) -> list[int]:
    """Return the number of values in each bin. If whole numbers have a small range, each number has its own bin."""
    low, high = float(ranked[0]), float(ranked[-1])
    if low == high:
        return [len(ranked)]
    is_small = are_whole and high - low < BINS
    edges = np.arange(low + 1, high + 1) if is_small else np.linspace(low, high, BINS + 1)[1:-1]
    ends = [0, *np.searchsorted(ranked, edges, side="left").tolist(), len(ranked)]
    counts: list[int] = np.diff(ends).tolist()
    return counts


def _shown(value: Any, column: Column) -> Value:
    if column.kind != "datetime":
        return int(value) if column.kind == "integer" else float(value)
    text = (_EPOCH + timedelta(microseconds=int(value))).replace(tzinfo=None).isoformat()
    return text.removesuffix("T00:00:00")


def _examples(cells: pl.Series) -> list[Value]:
    first = cells.head(EXAMPLE_ROWS).drop_nulls()
    chosen = (first if len(first) else cells.drop_nulls().head(EXAMPLES)).unique(maintain_order=True).head(EXAMPLES)
    return [shortened(cell if isinstance(cell, str | bool | int | float) else cell.isoformat()) for cell in chosen]
