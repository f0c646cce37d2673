"""Encode whole columns as input tensors. This is the fast path for requests with many rows.

Like the fast path of `RowEncoder.read`, this path accepts only the notations that most clients use. The caller encodes
all other requests row by row with `RowEncoder`, which supports every notation and reports every problem. A property
test checks that both paths produce the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rowcast.schema.datatypes import BOOL, BYTES
from rowcast.schema.encoding import Plan, TensorSpec, spellings
from rowcast.schema.schema import Column, Schema
from rowcast.schema.tensors import Tensor
from rowcast.schema.values import DATE_PARTS, FLOAT32_LIMIT, MISSING_WORDS, BadValue, canonical_text, date_parts

MAX_LOOKUP_TEXTS = 64
"""The maximum number of known strings per column. The lookup table contains every combination of a string and the
length of the next string.

If a column has more known strings, requests are encoded row by row.
"""
ZEROS = b"\0\0\0"
CellArray = NDArray[Any] | None
"""The encoded cells of a column, or None if the fast path does not accept them."""


class ColumnEncoder:
    """Encodes tensors of raw cells, one tensor per column, as the graph's input tensors."""

    def __init__(self, schema: Schema, plan: Plan) -> None:
        self._columns = {column.name: column for column in schema.columns}
        self._plan = plan
        is_exported = all(
            (spec.dtype, spec.fill) in (("float32", None), ("string", "")) and spec.shape for spec in plan
        )
        self._lookups = {column.name: TextLookup(_lookup_values(column)) for column in schema.columns}
        self._is_supported = is_exported and all(self._separates_texts(spec) for spec in plan)

    def read(self, columns: Mapping[str, Tensor]) -> dict[str, NDArray[Any]] | None:
        """Return the graph's input tensors, or None if the rows must be encoded one by one."""
        if not self._is_supported or not columns or any(name not in self._columns for name in columns):
            return None
        rows = next(iter(columns.values())).rows
        tensors: dict[str, NDArray[Any]] = {}
        encoded: dict[str, CellArray] = {}
        for spec in self._plan:
            kind = np.object_ if spec.dtype == "string" else np.float32
            tensor = np.empty((rows, len(spec.columns)), kind)
            for index, feature in enumerate(spec.columns):
                cells = encoded.get(feature.column)
                if cells is None:
                    cells = encoded[feature.column] = self._encode(self._columns[feature.column], columns)
                if cells is None:
                    return None
                tensor[:, index] = cells if feature.part == "value" else cells[:, DATE_PARTS.index(feature.part)]
            tensors[spec.name] = tensor
        return tensors

    def _separates_texts(self, spec: TensorSpec) -> bool:
        """Return whether categories are separate from other columns: all columns of a string tensor must be categories,
        and a numeric tensor must not contain categories."""
        kinds = {self._columns[feature.column].kind for feature in spec.columns}
        return kinds <= {"category"} if spec.dtype == "string" else "category" not in kinds

    def _encode(self, column: Column, columns: Mapping[str, Tensor]) -> CellArray:
        tensor = columns.get(column.name)
        if tensor is None:
            return None
        if isinstance(tensor.data, bytes) and column.kind in ("category", "boolean"):
            return self._lookups[column.name].read(tensor.data, tensor.rows)
        if column.kind in ("category", "boolean"):
            return tensor.data if column.kind == "boolean" and tensor.datatype == BOOL else None
        if column.kind == "datetime":
            return _dates(column, tensor)
        return _numbers(column, tensor)


class TextLookup:
    """Reads a binary tensor that contains only known strings, and maps each string to a value.

    In the data, each string is preceded by its length in four bytes. If every string has 1 to 255 bytes and contains no
    zero byte, each length is one non-zero byte followed by three zero bytes, and there are no other zero bytes.
    Splitting the data at these zero bytes yields each string with the length byte of the next string appended.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        encoded = {text.encode(): value for text, value in values.items()}
        encoded = {text: value for text, value in encoded.items() if 0 < len(text) < 256 and b"\0" not in text}
        lengths = sorted({len(text) for text in encoded}) if len(encoded) <= MAX_LOOKUP_TEXTS else []
        pairs = [(text, next_length) for text in encoded for next_length in lengths]
        self._pair_indices = {text + bytes([length]): index for index, (text, length) in enumerate(pairs)}
        self._lengths = np.array([len(text) for text, _ in pairs])
        self._next_lengths = np.array([length for _, length in pairs])
        self._values = np.array([encoded[text] for text, _ in pairs], object)
        self._end = bytes(lengths[:1])

    def read(self, data: bytes, count: int) -> NDArray[Any] | None:
        """Return the values of all strings, or None if a string is unknown or the lookup table is empty. Hot path."""
        if not self._pair_indices:
            return None
        first, *pairs = (data + self._end).split(ZEROS)
        if len(pairs) != count:
            return None
        try:
            indices = np.fromiter(map(self._pair_indices.__getitem__, pairs), np.intp, count)
        except KeyError:
            return None
        lengths = self._lengths[indices]
        if first != bytes([lengths[0]]) or (lengths[1:] != self._next_lengths[indices[:-1]]).any():
            return None
        values: NDArray[Any] = self._values[indices]
        return values


def _lookup_values(column: Column) -> Mapping[str, Any]:
    """Return the strings that the fast path accepts, with their values."""
    if column.kind == "boolean":
        return spellings(column)
    texts = [text for text in column.levels if text not in MISSING_WORDS and canonical_text(text) == text]
    return dict(zip(texts, texts, strict=True))


def _numbers(column: Column, tensor: Tensor) -> CellArray:
    """Return the numbers, or None if any number is invalid.

    A number is valid if it is within the range of float32 and, in an integer column, whole. NaN is valid if values may
    be missing.
    """
    cells = tensor.data
    if not isinstance(cells, np.ndarray) or cells.dtype.kind not in "iuf":
        return None
    # Convert via float64, as for JSON numbers: rounding an integer directly to float32 can give a different result.
    numbers = cells.astype(np.float64)
    if cells.dtype.kind != "f":
        return numbers
    absent = np.isnan(numbers)
    if absent.any():
        if not column.missing:
            return None
        numbers[absent] = np.nan  # NaN has many bit patterns; always use the same pattern.
    present = numbers[~absent]
    if len(present) and not np.abs(present).max() < FLOAT32_LIMIT:
        return None
    if column.kind != "integer":
        return numbers
    return None if (present != np.trunc(present)).any() else numbers + 0.0  # encode -0.0 as the integer 0


def _dates(column: Column, tensor: Tensor) -> CellArray:
    """Return the date parts of each cell. Each cell is parsed individually, exactly as in a single-row request."""
    if tensor.datatype != BYTES:
        return None
    try:
        return np.array([_date_parts(column, cell) for cell in tensor.cells()])
    except BadValue:
        return None


def _date_parts(column: Column, cell: Any) -> Sequence[float]:
    moment = column.parse(cell)
    return (np.nan,) * len(DATE_PARTS) if moment is None else date_parts(int(moment), column.origin)
