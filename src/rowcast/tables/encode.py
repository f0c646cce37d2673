"""Encode whole tables as input tensors, exactly as `schema.encoding.RowEncoder` encodes single rows.

Vectorized code converts plain numbers and typed columns. All other values are converted by `Column.parse`, which is
called once per distinct value. A property test checks that this encoder and `RowEncoder` produce the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from rowcast.errors import InvalidRows, TableError, ValueProblem
from rowcast.schema.encoding import Feature, Plan, TensorSpec
from rowcast.schema.schema import MISSING, REQUIRED, Column, Schema, list_names, shortened
from rowcast.schema.values import (
    BLANKS,
    DATE_PARTS,
    FLOAT32_LIMIT,
    MISSING_WORDS,
    NUMBER_FORMS,
    PLAIN_NUMBER,
    POINTS,
    BadValue,
    date_parts,
)
from rowcast.tables.table import Table, closest, misspellings

MAX_PROBLEMS: Final = 20
MISSING_VALUE = BadValue(MISSING, REQUIRED)


@dataclass(frozen=True)
class ParsedColumn:
    """The canonical values of a column, and its invalid cells."""

    values: NDArray[Any]
    """The value of each cell: a number (NaN if missing), a datetime in microseconds, or a string."""
    missing: NDArray[np.bool_]
    bad: dict[int, BadValue]
    """The error in each invalid cell, by row index."""
    unseen: NDArray[np.bool_] | None = None
    """A mask of the cells in a category column whose value did not occur in training; None if there are none."""


@dataclass(frozen=True)
class EncodedTable:
    """The input tensors for all rows, and the problems in invalid rows. Invalid rows must not be scored."""

    tensors: dict[str, NDArray[Any]]
    """The input tensors by name. Invalid cells are encoded as missing values."""
    frame: pl.DataFrame
    columns: Mapping[str, ParsedColumn]
    schema: Schema

    def rejected(self) -> NDArray[np.bool_]:
        """Return a mask of the rows with at least one problem."""
        mask = np.zeros(self.frame.height, bool)
        for cells in self.columns.values():
            mask[list(cells.bad)] = True
        return mask

    def problems(self, limit: int | None = None) -> list[ValueProblem]:
        """Return the problems in all cells, or the first `limit` problems, ordered by row and column."""
        columns = self.schema.columns
        bad = sorted((row, index) for index, column in enumerate(columns) for row in self.columns[column.name].bad)
        return [self._problem(row, columns[index]) for row, index in bad[:limit]]

    def _problem(self, row: int, column: Column) -> ValueProblem:
        bad = self.columns[column.name].bad[row]
        raw = self.frame[column.name][row] if column.name in self.frame.columns else None
        got = msgspec.UNSET if column.sensitive or bad.code == MISSING else shortened(raw)
        return ValueProblem(column.name, bad.code, bad.message, got, row)


def encode_table(table: Table | pl.DataFrame, schema: Schema, plan: Plan) -> dict[str, NDArray[Any]]:
    """Return the input tensors for a table; raise InvalidRows with up to `MAX_PROBLEMS` problems if a cell is invalid.

    Columns that are not in the schema are ignored.
    """
    encoded = encode_all(table, schema, plan)
    problems = encoded.problems(MAX_PROBLEMS)
    if problems:
        raise InvalidRows(problems)
    return encoded.tensors


def encode_all(table: Table | pl.DataFrame, schema: Schema, plan: Plan) -> EncodedTable:
    """Encode a table, including its invalid rows; raise TableError if a required column is absent."""
    frame = table.frame if isinstance(table, Table) else table
    _refuse_absent(frame, schema)
    columns = {column.name: _parse_column(frame, column) for column in schema.columns}
    by_name = {column.name: column for column in schema.columns}
    tensors = {spec.name: _tensor(spec, columns, schema=by_name, rows=frame.height) for spec in plan}
    return EncodedTable(tensors, frame, columns, schema)


def _refuse_absent(frame: pl.DataFrame, schema: Schema) -> None:
    absent = [column for column in schema.columns if column.name not in frame.columns]
    required = [column.name for column in absent if not column.missing]
    if required:
        hint = closest(required[0], frame.columns)
        message = f"the table lacks columns that the model requires: {list_names(required)} ({hint})"
        raise TableError(message, slug="missing-column")
    if misspelled := misspellings(frame.columns, schema):
        column, name = next(iter(misspelled.items()))
        raise TableError(
            f"the table has no column {column!r}; if {name!r} is the same column, rename it; if the values are "
            f"missing, add an empty column {column!r}",
            slug="missing-column",
        )


def _parse_column(frame: pl.DataFrame, column: Column) -> ParsedColumn:
    if column.name not in frame.columns:
        absent = np.ones(frame.height, bool)
        return ParsedColumn(np.full(frame.height, np.nan), absent, {})
    series = frame[column.name]
    numeric = column.kind in ("number", "integer") and series.dtype == pl.String and POINTS not in column.forms
    return _parse_numeric_texts(series, column) if numeric else _parse_cells(series, column)


def _parse_numeric_texts(series: pl.Series, column: Column) -> ParsedColumn:
    """Cast numbers in plain notation with polars, and parse only the other cells. This halves the time per column.

    A property test checks that polars accepts the notation of `PLAIN_NUMBER`, plus `inf` and `nan`.
    """
    values, accepted = _accept_numbers(series.cast(pl.Float64, strict=False), column)
    missing = np.zeros(len(series), bool)
    bad: dict[int, BadValue] = {}
    rows = np.flatnonzero(~accepted)
    if len(rows):
        others = _parse_cells(series.gather(rows), column)
        values[rows], missing[rows] = others.values, others.missing
        bad = {int(rows[index]): error for index, error in others.bad.items()}
    return ParsedColumn(values, missing, bad)


def _parse_cells(series: pl.Series, column: Column) -> ParsedColumn:
    """Parse each distinct string only once. Stripping and comparing every cell would take half the encoding time."""
    if series.dtype != pl.String and column.kind != "category":
        return _parse_series(series, column)
    texts, codes = _factorise(series)
    parsed = _parse_series(texts, column)
    bad: dict[int, BadValue] = {}
    if parsed.bad:
        for row in np.flatnonzero(np.isin(codes, list(parsed.bad))).tolist():
            bad[row] = parsed.bad[int(codes[row])]
    return ParsedColumn(parsed.values[codes], parsed.missing[codes], bad, _unseen(parsed, column, codes))


def _unseen(distinct: ParsedColumn, column: Column, codes: NDArray[np.intp]) -> NDArray[np.bool_] | None:
    if column.kind != "category" or not column.levels:
        return None
    levels = frozenset(column.levels)
    cells = zip(distinct.values.tolist(), distinct.missing.tolist(), strict=True)
    unseen = [not absent and value not in levels for value, absent in cells]
    return np.array(unseen)[codes] if any(unseen) else None


def _parse_series(series: pl.Series, column: Column) -> ParsedColumn:
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        missing = series.is_null() | series.is_in(list(MISSING_WORDS))
    elif series.dtype.is_float():
        missing = series.is_null() | series.is_nan()
    else:
        missing = series.is_null()
    mask = missing.fill_null(True).to_numpy()
    values, bad = _values(series, column, mask)
    if not column.missing:
        bad = bad | dict.fromkeys(np.flatnonzero(mask).tolist(), MISSING_VALUE)
    return ParsedColumn(values, mask, bad)


def _values(series: pl.Series, column: Column, missing: NDArray[np.bool_]) -> tuple[NDArray[Any], dict[int, BadValue]]:
    if column.kind in ("number", "integer"):
        return _number_values(series, column, missing)
    if column.kind == "datetime" and isinstance(series.dtype, pl.Datetime) and _is_utc(series.dtype, column):
        return series.to_physical().fill_null(0).to_numpy(), {}
    start = np.zeros(len(series), np.int64) if column.kind == "datetime" else np.full(len(series), np.nan)
    values = start.astype(object) if column.kind == "category" else start
    return _parse_each(series, column, rows=~missing, values=values)


def _is_utc(kind: pl.Datetime, column: Column) -> bool:
    return kind.time_unit == "us" and (kind.time_zone == "UTC" or (kind.time_zone is None and column.zone == "UTC"))


def _number_values(
    series: pl.Series, column: Column, missing: NDArray[np.bool_]
) -> tuple[NDArray[Any], dict[int, BadValue]]:
    """Cast plain numbers with polars, which rounds as Python does, and parse all other cells with `Column.parse`."""
    if series.dtype == pl.String:
        plain = series.str.contains(PLAIN_NUMBER).fill_null(False)
        if POINTS in column.forms:
            plain &= ~series.str.contains(NUMBER_FORMS[POINTS]).fill_null(False)
        numbers = series.set(~plain, None).cast(pl.Float64, strict=False)
    elif series.dtype.is_numeric():
        numbers = series.cast(pl.Float64)
    else:
        numbers = pl.Series(series.name, [None] * len(series), pl.Float64)
    values, accepted = _accept_numbers(numbers, column)
    return _parse_each(series, column, rows=~accepted & ~missing, values=values)


def _accept_numbers(numbers: pl.Series, column: Column) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the numbers, with NaN in place of numbers that need further checks, and a mask of the accepted numbers."""
    values = np.array(numbers.fill_null(np.nan).to_numpy(), np.float64)
    accepted = np.abs(values) < FLOAT32_LIMIT  # False for NaN
    if column.kind == "integer":
        accepted &= values == np.trunc(values)
        values = values + 0.0  # int(-0.0) is 0
    values[~accepted] = np.nan
    return values, accepted


def _parse_each(
    series: pl.Series, column: Column, *, rows: NDArray[np.bool_], values: NDArray[Any]
) -> tuple[NDArray[Any], dict[int, BadValue]]:
    """Parse the cells selected by the mask `rows`, each distinct value only once; store the results in `values`."""
    bad: dict[int, BadValue] = {}
    positions = np.flatnonzero(rows)
    if not len(positions):
        return values, bad
    distinct, codes = _factorise(series.gather(positions))
    parsed = np.zeros(len(distinct), values.dtype)  # the values of invalid cells are never used
    wrong: dict[int, BadValue] = {}
    for index, raw in enumerate(distinct.to_list()):
        try:
            parsed[index] = column.parse(raw, text=True)
        except BadValue as error:
            wrong[index] = error
    values[positions] = parsed[codes]
    if wrong:
        for index in np.flatnonzero(np.isin(codes, list(wrong))).tolist():
            bad[int(positions[index])] = wrong[int(codes[index])]
    return values, bad


def _factorise(series: pl.Series) -> tuple[pl.Series, NDArray[np.intp]]:
    """Return the distinct values, and an array that maps each row to the index of its value."""
    distinct = series.unique(maintain_order=True)
    lookup = pl.DataFrame({"value": distinct, "code": np.arange(len(distinct))})
    rows = pl.DataFrame({"value": series})
    joined = rows.join(lookup, on="value", how="left", maintain_order="left", nulls_equal=True)
    return distinct, joined["code"].to_numpy()


def _tensor(
    spec: TensorSpec, columns: Mapping[str, ParsedColumn], *, schema: Mapping[str, Column], rows: int
) -> NDArray[Any]:
    width = len(spec.columns)
    tensor = np.empty((rows, width), object if spec.dtype == "string" else np.dtype(spec.dtype))
    for index, feature in enumerate(spec.columns):
        cells = columns[feature.column]
        if spec.dtype == "string":
            tensor[:, index] = _texts(cells)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                tensor[:, index] = _numbers(cells, schema[feature.column], feature=feature, fill=spec.fill)
    return tensor.reshape((rows, *spec.shape))


def _texts(cells: ParsedColumn) -> NDArray[Any]:
    unusable = cells.missing.copy()
    unusable[list(cells.bad)] = True
    if cells.values.dtype != object:
        return np.array(
            ["" if empty else str(value) for value, empty in zip(cells.values.tolist(), unusable, strict=True)], object
        )
    return np.where(unusable, "", cells.values)  # a Python loop would take a quarter of the encoding time


def _numbers(cells: ParsedColumn, column: Column, *, feature: Feature, fill: float | str | None) -> NDArray[Any]:
    unusable = cells.missing.copy()
    unusable[list(cells.bad)] = True
    values = (
        cells.values if column.kind != "datetime" else _parts(cells.values, column, feature=feature, rows=~unusable)
    )
    filled = np.nan if fill is None else float(fill)
    return np.where(unusable, filled, values.astype(np.float64))


def _parts(moments: NDArray[Any], column: Column, *, feature: Feature, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    part = DATE_PARTS.index(feature.part)
    values = np.zeros(len(moments), np.float64)
    distinct, codes = np.unique(moments[rows].astype(np.int64), return_inverse=True)
    parts = np.array([date_parts(int(moment), column.origin)[part] for moment in distinct], np.float64)
    values[rows] = parts[codes]
    return values
