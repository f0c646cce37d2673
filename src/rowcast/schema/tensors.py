"""Convert tensors of the Open Inference Protocol between JSON lists, little-endian bytes and lists of cells.

The declared shape is compared with the received data before any memory is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import BodyError
from rowcast.schema.datatypes import BOOL, BYTES, DATATYPES, LAYOUTS

TYPES: dict[str, np.dtype[Any]] = {datatype: np.dtype(layout) for datatype, layout in LAYOUTS.items()}
"""The layout of each fixed-size datatype in a binary tensor. BYTES tensors contain length-prefixed strings."""
LENGTH = struct.Struct("<I")
MAX_DIMENSIONS = 2


class Tensor(msgspec.Struct, frozen=True):
    """One input of a request, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any
    """A list if received as JSON; otherwise an array or, for strings, the undecoded bytes."""

    @property
    def rows(self) -> int:
        """The number of rows, which is the first dimension."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """The number of cells per row."""
        return prod(self.shape[1:])

    def cells(self) -> list[Any]:
        """Return the cells as Python values, with NaN as None; raise BodyError if encoded strings are malformed."""
        if isinstance(self.data, bytes):
            return list(_texts(self.name, self.data, prod(self.shape)))
        if not isinstance(self.data, np.ndarray):
            return list(self.data)
        cells: list[Any] = self.data.tolist()
        return [None if cell != cell else cell for cell in cells] if self.data.dtype.kind == "f" else cells


class TensorHeader(msgspec.Struct, frozen=True):
    """The declaration of a tensor in a request's JSON; `data` is unset if the data is sent as bytes."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Any = msgspec.UNSET


def read_tensors(headers: Sequence[TensorHeader], tail: memoryview) -> list[Tensor]:
    """Return the tensors of a request. `tail` is the binary part of the body.

    Raise BodyError if a declaration is invalid or the declared sizes do not add up to the size of the tail.
    """
    tensors = []
    at = 0
    for header in headers:
        size = (header.parameters or {}).get("binary_data_size")
        if size is None:
            tensors.append(from_json(header))
            continue
        if type(size) is not int or size < 0:
            raise BodyError(f"input {quoted(header.name)}: binary_data_size must be a number of bytes")
        if header.data is not msgspec.UNSET:
            raise BodyError(f"input {quoted(header.name)}: `data` and binary_data_size are mutually exclusive")
        if size > len(tail) - at:
            raise BodyError(
                f"input {quoted(header.name)}: binary_data_size is {size}, but only {len(tail) - at} bytes are left "
                "in the body"
            )
        tensors.append(from_bytes(header, tail[at : at + size]))
        at += size
    if at != len(tail):
        raise BodyError(
            f"{len(tail) - at} bytes of the body do not belong to any input; check binary_data_size and "
            "Inference-Header-Content-Length"
        )
    return tensors


def from_json(header: TensorHeader) -> Tensor:
    """Return a tensor from JSON data. The data can be flat, or nested to match the shape."""
    shape = _shape(header)
    cells = header.data
    if not isinstance(cells, list):
        raise BodyError(f"input {quoted(header.name)}: no data; send a list in `data`, or bytes with binary_data_size")
    if len(shape) > 1 and cells and isinstance(cells[0], list):
        width = shape[1]
        if len(cells) != shape[0] or any(not isinstance(row, list) or len(row) != width for row in cells):
            raise BodyError(f"input {quoted(header.name)}: `data` does not have the shape {list(shape)}")
        cells = [cell for row in cells for cell in row]
    if len(cells) != prod(shape):
        raise BodyError(
            f"input {quoted(header.name)}: the shape {list(shape)} requires {prod(shape)} cells, "
            f"but `data` has {len(cells)}"
        )
    return Tensor(header.name, header.datatype, shape, _checked_cells(header, cells))


def _checked_cells(header: TensorHeader, cells: list[Any]) -> list[Any]:
    """Return the cells with NaN as None and, for integer datatypes, whole floats such as 2.0 as integers.

    Raise BodyError if a JSON type does not match the datatype. Every datatype accepts null as a missing value.
    """
    cells = [None if cell != cell else cell for cell in cells]
    kind = "s" if header.datatype == BYTES else TYPES[header.datatype].kind
    accepted = {"s": (str,), "b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}[kind]
    for number, cell in enumerate(cells):
        if cell is None or type(cell) in accepted:
            continue
        if kind in "iu" and type(cell) is float and cell.is_integer():
            cells[number] = int(cell)
            continue
        raise BodyError(f"input {quoted(header.name)}: cell {number} is not of type {header.datatype}")
    if kind in "iu":
        bounds = np.iinfo(TYPES[header.datatype])
        low, high = int(bounds.min), int(bounds.max)
        for number, cell in enumerate(cells):
            if cell is not None and not low <= cell <= high:
                raise BodyError(f"input {quoted(header.name)}: cell {number} is out of range for {header.datatype}")
    return cells


def from_bytes(header: TensorHeader, raw: memoryview) -> Tensor:
    """Return a tensor from binary data."""
    shape = _shape(header)
    count = prod(shape)
    if header.datatype == BYTES:
        if count * LENGTH.size > len(raw):
            raise BodyError(f"input {quoted(header.name)}: {count} strings need more than {len(raw)} bytes")
        return Tensor(header.name, BYTES, shape, bytes(raw))
    dtype = TYPES[header.datatype]
    if len(raw) != count * dtype.itemsize:
        raise BodyError(
            f"input {quoted(header.name)}: {count} {header.datatype} cells need {count * dtype.itemsize} bytes, "
            f"but binary_data_size is {len(raw)}"
        )
    if header.datatype == BOOL and count and np.frombuffer(raw, np.uint8).max() > 1:
        raise BodyError(f"input {quoted(header.name)}: every BOOL value must be 0 or 1")
    return Tensor(header.name, header.datatype, shape, np.frombuffer(raw, dtype))


def _texts(name: str, data: bytes, count: int) -> list[str]:
    """Decode `count` strings, each prefixed with its length."""
    texts: list[bytes] = []
    at, end = 0, len(data)
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        texts.append(data[start:at])
        if at > end or start > end:
            break
    if at != end or len(texts) != count:
        raise BodyError(
            f"input {quoted(name)}: the lengths of the {count} strings do not match the data size of {end} bytes"
        )
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError:
        raise BodyError(f"input {quoted(name)}: a string is not valid UTF-8") from None


def _shape(header: TensorHeader) -> tuple[int, ...]:
    name = quoted(header.name)
    if header.datatype != BYTES and header.datatype not in TYPES:
        raise BodyError(
            f"input {name}: unknown datatype {quoted(header.datatype)}; expected one of {', '.join(DATATYPES)}"
        )
    if not 1 <= len(header.shape) <= MAX_DIMENSIONS or any(size < 0 for size in header.shape):
        raise BodyError(f"input {name}: the shape must be [rows] or [rows, columns]")
    return tuple(header.shape)


def to_bytes(datatype: str, cells: Any) -> bytes:
    """Convert an array, or a list of strings, into the data of a binary tensor."""
    if datatype == BYTES:
        encoded = {text: length_prefixed(text) for text in set(cells)}  # Labels repeat; encode each label only once.
        return b"".join(map(encoded.__getitem__, cells))
    return np.ascontiguousarray(cells, TYPES[datatype]).tobytes()


def length_prefixed(text: str) -> bytes:
    """Return a string as UTF-8, prefixed with its length."""
    encoded = text.encode()
    return LENGTH.pack(len(encoded)) + encoded


def to_array(datatype: str, cells: Sequence[Any]) -> NDArray[Any]:
    """Return numbers or booleans as an array of this datatype."""
    return np.array(cells, TYPES[datatype])


def quoted(name: str) -> str:
    """Return a name from a request for use in an error message: quoted, and shortened if it is long."""
    return repr(name[:80])
