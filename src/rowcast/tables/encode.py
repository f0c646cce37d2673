"""The table path of encoding: whole columns into tensors, bit for bit what `domain.encode.RowEncoder` makes of a row.

Columns take a vectorised way where one rule covers most cells (plain numbers, typed columns); every other distinct
value goes through `Column.parse`, which is the rule itself. A property test holds the two paths together.
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
from rowcast.schema.schema import MISSING, REQUIRED, Column, Schema, shortened
from rowcast.schema.values import BLANKS, DATE_PARTS, FLOAT32_LIMIT, MISSING_WORDS, PLAIN_NUMBER, BadValue, date_parts
from rowcast.tables.table import Table, closest

REPORTED: Final = 20
MISSING_VALUE = BadValue(MISSING, REQUIRED)


@dataclass(frozen=True)
class Cells:
    """One column, canonical: numbers (NaN where missing), moments or texts; and the rows that hold no valid value."""

    values: NDArray[Any]
    missing: NDArray[np.bool_]
    bad: dict[int, BadValue]


@dataclass(frozen=True)
class Encoded:
    """Tensors of all rows, and which rows must not be scored (their bad cells stand as missing)."""

    tensors: dict[str, NDArray[Any]]
    frame: pl.DataFrame
    columns: Mapping[str, Cells]
    schema: Schema

    def rejected(self) -> NDArray[np.bool_]:
        """True for each row with at least one problem."""
        mask = np.zeros(self.frame.height, bool)
        for cells in self.columns.values():
            mask[list(cells.bad)] = True
        return mask

    def problems(self, limit: int | None = None) -> list[ValueProblem]:
        """What is wrong with which cell, row by row."""
        columns = self.schema.columns
        found = sorted((row, place) for place, column in enumerate(columns) for row in self.columns[column.name].bad)
        return [self._problem(row, columns[place]) for row, place in found[:limit]]

    def _problem(self, row: int, column: Column) -> ValueProblem:
        bad = self.columns[column.name].bad[row]
        raw = self.frame[column.name][row] if column.name in self.frame.columns else None
        got = msgspec.UNSET if column.sensitive or bad.code == MISSING else shortened(raw)
        return ValueProblem(column.name, bad.code, bad.message, got, row)


def encode(table: Table | pl.DataFrame, schema: Schema, plan: Plan) -> dict[str, NDArray[Any]]:
    """The input tensors of a whole table; InvalidRows names the first bad cells. Columns of no use are ignored."""
    encoded = encode_all(table, schema, plan)
    problems = encoded.problems(REPORTED)
    if problems:
        raise InvalidRows(problems)
    return encoded.tensors


def encode_all(table: Table | pl.DataFrame, schema: Schema, plan: Plan) -> Encoded:
    """The input tensors of a whole table, bad rows included and reported; TableError when a needed column is absent."""
    frame = table.frame if isinstance(table, Table) else table
    _refuse_absent(frame, schema)
    columns = {column.name: _cells(frame, column) for column in schema.columns}
    by_name = {column.name: column for column in schema.columns}
    tensors = {spec.name: _tensor(spec, columns, by_name, frame.height) for spec in plan}
    return Encoded(tensors, frame, columns, schema)


def _refuse_absent(frame: pl.DataFrame, schema: Schema) -> None:
    absent = [column.name for column in schema.columns if not column.missing and column.name not in frame.columns]
    if absent:
        listed = ", ".join(absent[:12]) + (f" and {len(absent) - 12} more" if len(absent) > 12 else "")
        raise TableError(f"the table lacks columns the model needs: {listed} ({closest(absent[0], frame.columns)})")


def _cells(frame: pl.DataFrame, column: Column) -> Cells:
    if column.name not in frame.columns:
        absent = np.ones(frame.height, bool)
        return Cells(np.full(frame.height, np.nan), absent, {})
    series = frame[column.name]
    numeric = column.kind in ("number", "integer") and series.dtype == pl.String
    return _number_cells(series, column) if numeric else _any_cells(series, column)


def _number_cells(series: pl.Series, column: Column) -> Cells:
    """What polars reads as a finite number is in plain notation; only the other cells take the general way.

    polars' grammar of numbers is `PLAIN_NUMBER` but for inf and nan (property test). This halves the cost of a column.
    """
    values, usual = _usual(series.cast(pl.Float64, strict=False), column)
    missing = np.zeros(len(series), bool)
    bad: dict[int, BadValue] = {}
    places = np.flatnonzero(~usual)
    if len(places):
        others = _any_cells(series.gather(places), column)
        values[places], missing[places] = others.values, others.missing
        bad = {int(places[index]): error for index, error in others.bad.items()}
    return Cells(values, missing, bad)


def _any_cells(series: pl.Series, column: Column) -> Cells:
    """Texts are decided once for each distinct one: stripping and comparing every cell took half of all encoding."""
    if series.dtype != pl.String:
        return _decided(series, column)
    distinct, codes = _factorised(series)
    once = _decided(distinct, column)
    bad: dict[int, BadValue] = {}
    if once.bad:
        for row in np.flatnonzero(np.isin(codes, list(once.bad))).tolist():
            bad[row] = once.bad[int(codes[row])]
    return Cells(once.values[codes], once.missing[codes], bad)


def _decided(series: pl.Series, column: Column) -> Cells:
    if series.dtype == pl.String:
        series = series.str.strip_chars(BLANKS)
        missing = series.is_null() | series.is_in(list(MISSING_WORDS))
    elif series.dtype.is_float():
        missing = series.is_null() | series.is_nan()
    else:
        missing = series.is_null()
    lost = missing.fill_null(True).to_numpy()
    values, bad = _values(series, column, lost)
    if not column.missing:
        bad = bad | dict.fromkeys(np.flatnonzero(lost).tolist(), MISSING_VALUE)
    return Cells(values, lost, bad)


def _values(series: pl.Series, column: Column, missing: NDArray[np.bool_]) -> tuple[NDArray[Any], dict[int, BadValue]]:
    if column.kind in ("number", "integer"):
        return _number_values(series, column, missing)
    if column.kind == "datetime" and isinstance(series.dtype, pl.Datetime) and _is_utc(series.dtype, column):
        return series.to_physical().fill_null(0).to_numpy(), {}
    start = np.zeros(len(series), np.int64) if column.kind == "datetime" else np.full(len(series), np.nan)
    return _by_rule(series, column, ~missing, start.astype(object) if column.kind == "category" else start)


def _is_utc(kind: pl.Datetime, column: Column) -> bool:
    return kind.time_unit == "us" and (kind.time_zone == "UTC" or (kind.time_zone is None and column.zone == "UTC"))


def _number_values(
    series: pl.Series, column: Column, missing: NDArray[np.bool_]
) -> tuple[NDArray[Any], dict[int, BadValue]]:
    """Plain notation is read at once (polars and Python both round correctly); the rest goes by the rule."""
    if series.dtype == pl.String:
        plain = series.str.contains(PLAIN_NUMBER).fill_null(False)
        numbers = series.set(~plain, None).cast(pl.Float64, strict=False)
    elif series.dtype.is_numeric():
        numbers = series.cast(pl.Float64)
    else:
        numbers = pl.Series(series.name, [None] * len(series), pl.Float64)
    values, usual = _usual(numbers, column)
    return _by_rule(series, column, ~usual & ~missing, values)


def _usual(numbers: pl.Series, column: Column) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The numbers, NaN where they are missing or the rule must decide, and where they stand as they are."""
    values = np.array(numbers.fill_null(np.nan).to_numpy(), np.float64)
    usual = np.abs(values) < FLOAT32_LIMIT  # False for NaN
    if column.kind == "integer":
        usual &= values == np.trunc(values)
        values = values + 0.0  # int(-0.0) is 0
    values[~usual] = np.nan
    return values, usual


def _by_rule(
    series: pl.Series, column: Column, rows: NDArray[np.bool_], values: NDArray[Any]
) -> tuple[NDArray[Any], dict[int, BadValue]]:
    """Fill `values` at `rows` with what `Column.parse` makes of each distinct cell."""
    bad: dict[int, BadValue] = {}
    places = np.flatnonzero(rows)
    if not len(places):
        return values, bad
    chosen = series.gather(places)
    distinct, codes = _factorised(chosen)
    parsed = np.zeros(len(distinct), values.dtype)  # a bad cell's value is never read: `bad` says so
    wrong: dict[int, BadValue] = {}
    for index, raw in enumerate(distinct.to_list()):
        try:
            parsed[index] = column.parse(raw, text=True)
        except BadValue as error:
            wrong[index] = error
    values[places] = parsed[codes]
    if wrong:
        for position in np.flatnonzero(np.isin(codes, list(wrong))).tolist():
            bad[int(places[position])] = wrong[int(codes[position])]
    return values, bad


def _factorised(series: pl.Series) -> tuple[pl.Series, NDArray[np.intp]]:
    """The distinct values, and which of them each row holds."""
    distinct = series.unique(maintain_order=True)
    lookup = pl.DataFrame({"value": distinct, "code": np.arange(len(distinct))})
    rows = pl.DataFrame({"value": series})
    joined = rows.join(lookup, on="value", how="left", maintain_order="left", nulls_equal=True)
    return distinct, joined["code"].to_numpy()


def _tensor(spec: TensorSpec, columns: Mapping[str, Cells], schema: Mapping[str, Column], rows: int) -> NDArray[Any]:
    width = len(spec.columns)
    tensor = np.empty((rows, width), object if spec.dtype == "string" else np.dtype(spec.dtype))
    for place, feature in enumerate(spec.columns):
        cells = columns[feature.column]
        if spec.dtype == "string":
            tensor[:, place] = _texts(cells)
        else:
            with np.errstate(over="ignore", invalid="ignore"):
                tensor[:, place] = _numbers(cells, schema[feature.column], feature, spec.fill)
    return tensor.reshape((rows, *spec.shape))


def _texts(cells: Cells) -> NDArray[Any]:
    unusable = cells.missing.copy()
    unusable[list(cells.bad)] = True
    if cells.values.dtype != object:
        return np.array(
            ["" if empty else str(value) for value, empty in zip(cells.values.tolist(), unusable, strict=True)], object
        )
    return np.where(unusable, "", cells.values)  # categories are texts already; a loop took a quarter of all encoding


def _numbers(cells: Cells, column: Column, feature: Feature, fill: float | str | None) -> NDArray[Any]:
    unusable = cells.missing.copy()
    unusable[list(cells.bad)] = True
    values = cells.values if column.kind != "datetime" else _parts(cells.values, column, feature, ~unusable)
    filled = np.nan if fill is None else float(fill)
    return np.where(unusable, filled, values.astype(np.float64))


def _parts(moments: NDArray[Any], column: Column, feature: Feature, rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    part = DATE_PARTS.index(feature.part)
    values = np.zeros(len(moments), np.float64)
    distinct, codes = np.unique(moments[rows].astype(np.int64), return_inverse=True)
    parts = np.array([date_parts(int(moment), column.origin)[part] for moment in distinct], np.float64)
    values[rows] = parts[codes]
    return values
