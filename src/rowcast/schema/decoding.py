"""Decode input tensors into raw cells, according to the bundle's tensor plan.

A client can send the model's own input tensors. The tensors' cells are converted back into rows, which are then
validated and recorded like all other rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.encoding import DType, Plan, TensorSpec
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import Tensor, quoted
from rowcast.schema.values import DATE_PARTS, DAY_US, EARLIEST_US, LATEST_US, date_parts

DATATYPES: Mapping[DType, str] = {
    "float32": "FP32",
    "float64": "FP64",
    "int64": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
}
HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def decode_columns(schema: Schema, plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Return the raw cells of each column.

    Raise BodyError if a tensor does not match the plan; raise InvalidRows if the parts of a date contradict each other.
    """
    columns = {column.name: column for column in schema.columns}
    parts: dict[str, dict[str, list[Any]]] = {}
    for spec in plan:
        cells = _checked_cells(spec, tensors[spec.name])
        width = len(spec.columns)
        for index, feature in enumerate(spec.columns):
            present = [None if spec.fill is not None and cell == spec.fill else cell for cell in cells[index::width]]
            parts.setdefault(feature.column, {})[feature.part] = present
    return {name: _decode_column(columns[name], cells) for name, cells in parts.items()}


def _checked_cells(spec: TensorSpec, tensor: Tensor) -> list[Any]:
    datatype, shape = DATATYPES[spec.dtype], [-1, *spec.shape]
    if tensor.datatype != datatype or tensor.shape[1:] != spec.shape:
        raise BodyError(
            f"input {quoted(spec.name)}: expected {datatype} of shape {shape}, "
            f"got {tensor.datatype} of shape {list(tensor.shape)}"
        )
    return tensor.cells()


def _decode_column(column: Column, parts: Mapping[str, Sequence[Any]]) -> list[Any]:
    if column.kind == "datetime":
        return _dates(column, parts)
    cells = parts["value"]
    if column.kind == "boolean":
        return [bool(cell) if cell in (0, 1) else cell for cell in cells]
    if column.kind == "integer":
        return [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]
    return list(cells)


def _dates(column: Column, parts: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Return the dates as strings, with None where all parts are missing."""
    if "days" not in parts:
        raise BodyError(
            f"the model's tensors contain only parts of {quoted(column.name)}; send the column itself instead"
        )
    features = list(parts)
    problems = []
    dates: list[str | None] = []
    for row, cells in enumerate(zip(*parts.values(), strict=True)):
        if all(cell is None for cell in cells):
            dates.append(None)
            continue
        date = _date(column, dict(zip(features, cells, strict=True)))
        if date is None:
            message = "the date parts contradict each other"
            problems.append(ValueProblem(column.name, "bad-datetime", message, row=row))
        dates.append(date)
    if problems:
        raise InvalidRows(problems)
    return dates


def _date(column: Column, parts: Mapping[str, Any]) -> str | None:
    """Return the date with these parts as a string, or None if there is no such date.

    As a float32, the number of days since the column's origin is accurate only to within minutes. Close to the start of
    an hour, the other parts determine whether the date is before or after the start of the hour.
    """
    days = parts["days"]
    if any(cell is None or not math.isfinite(cell) for cell in parts.values()):
        return None
    approximate = column.origin + round(days * DAY_US)
    if not EARLIEST_US < approximate < LATEST_US:
        return None
    moment = EPOCH + timedelta(microseconds=approximate)
    full_hour = moment.replace(minute=0, second=0, microsecond=0)
    for candidate in (moment, full_hour + HOUR, full_hour - timedelta(microseconds=1)):
        us = (candidate - EPOCH) // timedelta(microseconds=1)
        exact = dict(zip(DATE_PARTS, date_parts(us, column.origin), strict=True))
        is_close = math.isclose(exact["days"], days, rel_tol=1e-6, abs_tol=1e-6)
        if is_close and all(parts[part] == exact[part] for part in parts if part != "days"):
            return candidate.isoformat().replace("+00:00", "Z")
    return None
