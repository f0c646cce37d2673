"""Input tensors back into rows, by the bundle's tensor plan: what a caller made of its rows is undone, and then read
like any other row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from rowcast.errors import BodyError, InvalidRows, ValueProblem
from rowcast.schema.encoding import DType, Plan, TensorSpec
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import Tensor, shown
from rowcast.schema.values import DAY_US, EARLIEST_US, LATEST_US, date_parts

DATATYPES: Mapping[DType, str] = {
    "float32": "FP32",
    "float64": "FP64",
    "int64": "INT64",
    "bool": "BOOL",
    "string": "BYTES",
}
HOUR = timedelta(hours=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def columns_of(schema: Schema, plan: Plan, tensors: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """Each column's raw cells; BodyError when a tensor is not as the plan has it, InvalidRows for parts of dates that
    do not go together."""
    columns = {column.name: column for column in schema.columns}
    parts: dict[str, dict[str, list[Any]]] = {}
    for spec in plan:
        cells = _checked(spec, tensors[spec.name])
        width = len(spec.columns)
        for place, feature in enumerate(spec.columns):
            own = [_present(cell, spec) for cell in cells[place::width]]
            parts.setdefault(feature.column, {})[feature.part] = own
    return {name: _column(columns[name], found) for name, found in parts.items()}


def _checked(spec: TensorSpec, tensor: Tensor) -> list[Any]:
    if tensor.datatype != DATATYPES[spec.dtype] or tensor.shape[1:] != spec.shape:
        wanted = [-1, *spec.shape]
        raise BodyError(f"input {shown(spec.name)} must be {DATATYPES[spec.dtype]} of the shape {wanted}")
    return tensor.cells()


def _present(cell: Any, spec: TensorSpec) -> Any:
    return None if spec.fill is not None and cell == spec.fill else cell


def _column(column: Column, parts: Mapping[str, Sequence[Any]]) -> list[Any]:
    if column.kind == "datetime":
        return _dates(column, parts)
    cells = parts["value"]
    if column.kind == "boolean":
        return [bool(cell) if cell in (0, 1) else cell for cell in cells]
    if column.kind == "integer":
        return [int(cell) if isinstance(cell, float) and cell.is_integer() else cell for cell in cells]
    return list(cells)


def _dates(column: Column, parts: Mapping[str, Sequence[Any]]) -> list[Any]:
    """Moments as texts, from the days since the training minimum; float32 days are minutes wide, so the hour decides
    on which side of a full hour a moment lies."""
    if "days" not in parts:
        raise BodyError(f"the model's own inputs do not hold {shown(column.name)} whole; send it as a column")
    features = list(parts)
    problems = []
    found: list[str | None] = []
    for row, given in enumerate(zip(*parts.values(), strict=True)):
        said = dict(zip(features, given, strict=True))
        if all(cell is None for cell in given):
            found.append(None)
            continue
        text = _moment(column, said)
        if text is None:
            message = "its parts do not belong to one moment"
            problems.append(ValueProblem(column.name, "bad-datetime", message, row=row))
        found.append(text)
    if problems:
        raise InvalidRows(problems)
    return found


def _moment(column: Column, said: Mapping[str, Any]) -> str | None:
    days = said["days"]
    if any(cell is None or not math.isfinite(cell) for cell in said.values()):
        return None
    near = column.origin + round(days * DAY_US)
    if not EARLIEST_US < near < LATEST_US:
        return None
    moment = EPOCH + timedelta(microseconds=near)
    full = moment.replace(minute=0, second=0, microsecond=0)
    for candidate in (moment, full + HOUR, full - timedelta(microseconds=1)):
        us = (candidate - EPOCH) // timedelta(microseconds=1)
        made = dict(zip(("days", "month", "weekday", "hour"), date_parts(us, column.origin), strict=True))
        close = math.isclose(made["days"], days, rel_tol=1e-6, abs_tol=1e-6)
        if close and all(said[part] == made[part] for part in said if part != "days"):
            return candidate.isoformat().replace("+00:00", "Z")
    return None
