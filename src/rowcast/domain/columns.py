"""Columns of many rows into the model's input tensors at once, where nothing about them needs a closer look.

Like the struct of `RowEncoder.read`, this takes what most clients send and nothing else: whatever it does not take is
read row by row, by the rule that knows every notation and reports every problem. What it takes is encoded to the same
bits (property test).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.domain.encode import Plan, TensorSpec, spellings
from rowcast.domain.schema import Column, Schema
from rowcast.domain.tensors import Tensor
from rowcast.domain.values import DATE_PARTS, FLOAT32_LIMIT, MISSING_WORDS, BadValue, canonical_text, date_parts

Cells = Any
Read = Callable[[Tensor], Cells]
"""A column's cells as the graph takes them; None when the rule must look at them."""


class ColumnEncoder:
    """Tensors of raw cells, one a column, to the graph's tensors."""

    def __init__(self, schema: Schema, plan: Plan) -> None:
        self._columns = {column.name: column for column in schema.columns}
        self._plan = plan
        own = all((spec.dtype, spec.fill) in (("float32", None), ("string", "")) and spec.shape for spec in plan)
        self._texts = {column.name: _usual_texts(column) for column in schema.columns if column.kind == "category"}
        self._able = own and all(self._fits(spec) for spec in plan)

    def read(self, found: Mapping[str, Tensor]) -> dict[str, NDArray[Any]] | None:
        """The graph's tensors, or None when the rows must be read one by one."""
        if not self._able or not found or any(name not in self._columns for name in found):
            return None
        rows = next(iter(found.values())).rows
        made: dict[str, NDArray[Any]] = {}
        parts: dict[str, Cells] = {}
        for spec in self._plan:
            kind = np.object_ if spec.dtype == "string" else np.float32
            tensor = np.empty((rows, len(spec.columns)), kind)
            for place, feature in enumerate(spec.columns):
                cells = parts.get(feature.column)
                if cells is None:
                    cells = parts[feature.column] = self._cells(self._columns[feature.column], found)
                if cells is None:
                    return None
                tensor[:, place] = cells if feature.part == "value" else cells[:, DATE_PARTS.index(feature.part)]
            made[spec.name] = tensor
        return made

    def _fits(self, spec: TensorSpec) -> bool:
        """Texts where texts are meant, and only there."""
        kinds = {self._columns[feature.column].kind for feature in spec.columns}
        return kinds <= {"category"} if spec.dtype == "string" else "category" not in kinds

    def _cells(self, column: Column, found: Mapping[str, Tensor]) -> Cells:
        tensor = found.get(column.name)
        if tensor is None:
            return None
        if column.kind == "category":
            texts = tensor.data
            return texts if isinstance(texts, list) and self._texts[column.name].issuperset(texts) else None
        if column.kind == "boolean":
            return _truths(column, tensor)
        if column.kind == "datetime":
            return _moments(column, tensor)
        return _numbers(column, tensor)


def _usual_texts(column: Column) -> frozenset[str]:
    return frozenset(text for text in column.levels if text not in MISSING_WORDS and canonical_text(text) == text)


def _numbers(column: Column, tensor: Tensor) -> Cells:
    """Finite numbers within float32, NaN where missing values may be, whole ones where those are meant."""
    cells = tensor.data
    if not isinstance(cells, np.ndarray) or cells.dtype.kind not in "iuf":
        return None
    if cells.dtype.kind == "f":
        largest = np.abs(cells).max() if len(cells) else 0.0
        if largest != largest:
            if not column.missing:
                return None
            present = cells[~np.isnan(cells)]
            largest = np.abs(present).max() if len(present) else 0.0
        else:
            present = cells
        if not largest < FLOAT32_LIMIT or (column.kind == "integer" and (present != np.trunc(present)).any()):
            return None
    # Through float64, as a cell of JSON goes: two roundings are not one.
    return cells.astype(np.float64)


def _truths(column: Column, tensor: Tensor) -> Cells:
    if isinstance(tensor.data, np.ndarray):
        return tensor.data if tensor.data.dtype.kind == "b" else None
    if not column.words:
        return None
    table = spellings(column)
    cells = [table.get(cell) if isinstance(cell, str) else None for cell in tensor.data]
    return None if None in cells else np.array(cells)


def _moments(column: Column, tensor: Tensor) -> Cells:
    """The parts of each moment; read one by one, as a row's would be."""
    if isinstance(tensor.data, np.ndarray):
        return None
    try:
        return np.array([_parts(column, cell) for cell in tensor.data])
    except BadValue:
        return None


def _parts(column: Column, cell: Any) -> Sequence[float]:
    moment = column.parse(cell)
    return (np.nan,) * len(DATE_PARTS) if moment is None else date_parts(int(moment), column.origin)
