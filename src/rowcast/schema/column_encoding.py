"""Columns of many rows into the model's input tensors at once, where nothing about them needs a closer look.

Like the struct of `RowEncoder.read`, this takes what most clients send and nothing else: whatever it does not take is
read row by row, by the rule that knows every notation and reports every problem. What it takes is encoded to the same
bits (property test).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.encoding import Plan, TensorSpec, spellings
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import BOOL, BYTES, Tensor
from rowcast.schema.values import DATE_PARTS, FLOAT32_LIMIT, MISSING_WORDS, BadValue, canonical_text, date_parts

MOST_KNOWN = 64
"""Texts that are looked for; the columns with more are read row by row."""
ZEROS = b"\0\0\0"
Cells = Any
"""A column as the graph takes it, an array; None when the rule must look at its cells."""


class ColumnEncoder:
    """Tensors of raw cells, one a column, to the graph's tensors."""

    def __init__(self, schema: Schema, plan: Plan) -> None:
        self._columns = {column.name: column for column in schema.columns}
        self._plan = plan
        own = all((spec.dtype, spec.fill) in (("float32", None), ("string", "")) and spec.shape for spec in plan)
        self._known = {column.name: Known(_usual(column)) for column in schema.columns}
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
        if isinstance(tensor.data, bytes) and column.kind in ("category", "boolean"):
            return self._known[column.name].read(tensor.data, tensor.rows)
        if column.kind in ("category", "boolean"):
            return tensor.data if column.kind == "boolean" and tensor.datatype == BOOL else None
        if column.kind == "datetime":
            return _moments(column, tensor)
        return _numbers(column, tensor)


class Known:
    """Reads a tensor of texts of which only some few are usual, each to its value.

    Before each text are the byte of its length and three zeros. Where no text is longer than 255 bytes or holds a zero,
    three zeros are nowhere else: there the data is taken apart, into texts with the length of the next one behind.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        plain = {text.encode(): value for text, value in values.items()}
        plain = {text: value for text, value in plain.items() if 0 < len(text) < 256 and b"\0" not in text}
        lengths = sorted({len(text) for text in plain}) if len(plain) <= MOST_KNOWN else []
        pairs = [(text, following) for text in plain for following in lengths]
        self._places = {text + bytes([following]): place for place, (text, following) in enumerate(pairs)}
        self._own = np.array([len(text) for text, _ in pairs])
        self._following = np.array([following for _, following in pairs])
        self._values = np.array([plain[text] for text, _ in pairs], object)
        self._end = bytes(lengths[:1])

    def read(self, data: bytes, count: int) -> NDArray[Any] | None:
        """The values of all texts; None when one is not usual, or there are too many to look for. HOT"""
        if not self._places:
            return None
        first, *pieces = (data + self._end).split(ZEROS)
        if len(pieces) != count:
            return None
        try:
            found = np.fromiter(map(self._places.__getitem__, pieces), np.intp, count)
        except KeyError:
            return None
        own = self._own[found]
        if first != bytes([own[0]]) or (own[1:] != self._following[found[:-1]]).any():
            return None
        values: NDArray[Any] = self._values[found]
        return values


def _usual(column: Column) -> Mapping[str, Any]:
    """The texts that need no closer look, to their values."""
    if column.kind == "boolean":
        return spellings(column)
    usual = [text for text in column.levels if text not in MISSING_WORDS and canonical_text(text) == text]
    return dict(zip(usual, usual, strict=True))


def _numbers(column: Column, tensor: Tensor) -> Cells:
    """Finite numbers within float32, NaN where missing values may be, whole ones where those are meant."""
    cells = tensor.data
    if not isinstance(cells, np.ndarray) or cells.dtype.kind not in "iuf":
        return None
    # Through float64, as a cell of JSON goes: two roundings are not one.
    found = cells.astype(np.float64)
    if cells.dtype.kind != "f":
        return found
    absent = np.isnan(found)
    if absent.any():
        if not column.missing:
            return None
        found[absent] = np.nan  # there are many kinds of NaN
    present = found[~absent]
    if len(present) and not np.abs(present).max() < FLOAT32_LIMIT:
        return None
    return None if column.kind == "integer" and (present != np.trunc(present)).any() else found


def _moments(column: Column, tensor: Tensor) -> Cells:
    """The parts of each moment; read one by one, as a row's would be."""
    if tensor.datatype != BYTES:
        return None
    try:
        return np.array([_parts(column, cell) for cell in tensor.cells()])
    except BadValue:
        return None


def _parts(column: Column, cell: Any) -> Sequence[float]:
    moment = column.parse(cell)
    return (np.nan,) * len(DATE_PARTS) if moment is None else date_parts(int(moment), column.origin)
