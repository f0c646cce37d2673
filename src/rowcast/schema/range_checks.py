"""Find numbers outside the ranges seen in training among the input tensors of many rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.encoding import Plan, TensorSpec
from rowcast.schema.ranges import seen_range
from rowcast.schema.schema import Column, Schema


class OutOfRange(NamedTuple):
    """A column with numbers outside its range, and a mask of the rows with such numbers."""

    column: str
    rows: NDArray[np.bool_]


class RangeCheck:
    """Compares input tensors with the ranges of all numeric columns."""

    def __init__(self, schema: Schema, plan: Plan) -> None:
        columns = {column.name: column for column in schema.columns}
        self._order = {name: index for index, name in enumerate(columns)}
        bounds = [_bounds(spec, columns) for spec in plan if spec.dtype != "string"]
        self._bounds = [each for each in bounds if each[1]]

    def find(self, tensors: Mapping[str, NDArray[Any]]) -> Sequence[OutOfRange]:
        """Return the columns that contain numbers outside their range, in the order of the schema. Hot path."""
        found: list[OutOfRange] = []
        for spec, names, low, high in self._bounds:
            numbers = tensors[spec.name].reshape(len(tensors[spec.name]), -1).astype(np.float32, copy=False)
            outside = (numbers < low) | (numbers > high)  # NaN, which stands for a missing value, is never outside
            if outside.any():
                if spec.fill is not None:
                    outside &= numbers != np.float32(spec.fill)
                columns = np.flatnonzero(outside.any(axis=0)).tolist()
                found += [OutOfRange(names[index], outside[:, index]) for index in columns]
        return sorted(found, key=lambda each: self._order[each.column])


_Bounds = tuple[TensorSpec, Mapping[int, str], NDArray[np.float32], NDArray[np.float32]]


def _bounds(spec: TensorSpec, columns: Mapping[str, Column]) -> _Bounds:
    """Return the tensor's specification, the names of the columns with a known range (by position), and the lower and
    upper bounds at each position."""
    low = np.full(len(spec.columns), -np.inf, np.float32)
    high = np.full(len(spec.columns), np.inf, np.float32)
    names: dict[int, str] = {}
    for index, feature in enumerate(spec.columns):
        column = columns[feature.column]
        if seen_range(column) is not None and column.low is not None and column.high is not None:
            names[index] = column.name
            low[index], high[index] = column.low, column.high
    return spec, names, low, high
