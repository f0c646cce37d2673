"""Tensors of the Open Inference Protocol: JSON lists or little-endian bytes to columns of cells, and back.

What a caller declares is compared with what it sent before anything is allocated: a shape is only ever multiplied.
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

BYTES, BOOL = "BYTES", "BOOL"
TYPES: dict[str, np.dtype[Any]] = {
    BOOL: np.dtype("?"),
    **{f"INT{bits}": np.dtype(f"<i{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"UINT{bits}": np.dtype(f"<u{bits // 8}") for bits in (8, 16, 32, 64)},
    **{f"FP{bits}": np.dtype(f"<f{bits // 8}") for bits in (16, 32, 64)},
}
"""Datatype to how its numbers lie in a binary tensor; BYTES are texts, each behind its length."""
LENGTH = struct.Struct("<I")
MOST_DIMENSIONS = 2


class Tensor(msgspec.Struct, frozen=True):
    """One input: as many cells as its shape says, row-major. What came as bytes is an array of numbers, or the bytes of
    texts, which nobody has looked at yet; else a list."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any

    @property
    def rows(self) -> int:
        """The first dimension."""
        return self.shape[0]

    @property
    def width(self) -> int:
        """Cells a row."""
        return prod(self.shape[1:])

    def cells(self) -> list[Any]:
        """Python values as JSON would have them; NaN is None. BodyError when texts are not what their lengths say."""
        if isinstance(self.data, bytes):
            return list(_texts(self.name, self.data, prod(self.shape)))
        if not isinstance(self.data, np.ndarray):
            return list(self.data)
        cells: list[Any] = self.data.tolist()
        return [None if cell != cell else cell for cell in cells] if self.data.dtype.kind == "f" else cells


class Head(msgspec.Struct, frozen=True):
    """What is said of a tensor before its data."""

    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] | None = None
    data: Any = msgspec.UNSET


def read_all(heads: Sequence[Head], tail: memoryview) -> list[Tensor]:
    """The tensors of a request, their bytes taken from the tail in order; BodyError unless it is used up exactly."""
    found = []
    at = 0
    for head in heads:
        size = (head.parameters or {}).get("binary_data_size")
        if size is None:
            found.append(from_json(head))
            continue
        if type(size) is not int or size < 0:
            raise BodyError(f"input {shown(head.name)}: binary_data_size must be a whole number of bytes")
        if head.data is not msgspec.UNSET:
            raise BodyError(f"input {shown(head.name)} has both `data` and binary_data_size")
        if size > len(tail) - at:
            raise BodyError(
                f"input {shown(head.name)}: binary_data_size is {size}, and {len(tail) - at} bytes are left in the body"
            )
        found.append(from_bytes(head, tail[at : at + size]))
        at += size
    if at != len(tail):
        raise BodyError(f"{len(tail) - at} bytes in the body belong to no input; see Inference-Header-Content-Length")
    return found


def from_json(head: Head) -> Tensor:
    """A tensor whose cells came as JSON, flat or nested as its shape."""
    shape = _shape(head)
    cells = head.data
    if not isinstance(cells, list):
        raise BodyError(f"input {shown(head.name)} has no `data`: send a list, or bytes and binary_data_size")
    if len(shape) > 1 and cells and isinstance(cells[0], list):
        width = shape[1]
        if len(cells) != shape[0] or any(not isinstance(row, list) or len(row) != width for row in cells):
            raise BodyError(f"input {shown(head.name)}: the nested data has not the shape {list(shape)}")
        cells = [cell for row in cells for cell in row]
    if len(cells) != prod(shape):
        raise BodyError(
            f"input {shown(head.name)}: the shape {list(shape)} has {prod(shape)} cells, `data` has {len(cells)}"
        )
    _check_cells(head, cells)
    return Tensor(head.name, head.datatype, shape, [None if cell != cell else cell for cell in cells])


def _check_cells(head: Head, cells: list[Any]) -> None:
    """JSON's types must be what the datatype says; null is a missing value in any of them."""
    kind = "s" if head.datatype == BYTES else TYPES[head.datatype].kind
    accepted = {"s": (str,), "b": (bool,), "i": (int,), "u": (int,), "f": (int, float)}[kind]
    for number, cell in enumerate(cells):
        if cell is None or type(cell) in accepted:
            continue
        raise BodyError(f"input {shown(head.name)}: cell {number} is no {head.datatype}")
    if kind in "iu":
        bounds = np.iinfo(TYPES[head.datatype])
        low, high = int(bounds.min), int(bounds.max)
        for number, cell in enumerate(cells):
            if cell is not None and not low <= cell <= high:
                raise BodyError(f"input {shown(head.name)}: cell {number} is beyond what {head.datatype} holds")


def from_bytes(head: Head, raw: memoryview) -> Tensor:
    """A tensor whose cells came as bytes."""
    shape = _shape(head)
    count = prod(shape)
    if head.datatype == BYTES:
        if count * LENGTH.size > len(raw):
            raise BodyError(f"input {shown(head.name)}: {count} texts do not fit into {len(raw)} bytes")
        return Tensor(head.name, BYTES, shape, bytes(raw))
    dtype = TYPES[head.datatype]
    if len(raw) != count * dtype.itemsize:
        raise BodyError(
            f"input {shown(head.name)}: {count} cells of {head.datatype} are {count * dtype.itemsize} bytes, "
            f"binary_data_size is {len(raw)}"
        )
    if head.datatype == BOOL and count and np.frombuffer(raw, np.uint8).max() > 1:
        raise BodyError(f"input {shown(head.name)}: a BOOL is the byte 0 or 1")
    return Tensor(head.name, head.datatype, shape, np.frombuffer(raw, dtype))


def _texts(name: str, data: bytes, count: int) -> list[str]:
    """Exactly `count` texts, each behind its length."""
    texts: list[bytes] = []
    at, end = 0, len(data)
    for _ in range(count):
        start = at + 4
        at = start + int.from_bytes(data[at:start], "little")
        texts.append(data[start:at])
        if at > end or start > end:
            break
    if at != end or len(texts) != count:
        raise BodyError(f"input {shown(name)}: the lengths of its {count} texts do not add up to its {end} bytes")
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError:
        raise BodyError(f"input {shown(name)}: a text is not UTF-8") from None


def _shape(head: Head) -> tuple[int, ...]:
    name = shown(head.name)
    if head.datatype != BYTES and head.datatype not in TYPES:
        raise BodyError(f"input {name}: the datatype {shown(head.datatype)} is not one of {', '.join([*TYPES, BYTES])}")
    if not 1 <= len(head.shape) <= MOST_DIMENSIONS or any(size < 0 for size in head.shape):
        raise BodyError(f"input {name}: the shape must be [rows] or [rows, columns]")
    return tuple(head.shape)


def to_bytes(datatype: str, cells: Any) -> bytes:
    """Cells as a binary tensor: an array, or a list of texts."""
    if datatype == BYTES:
        known = {text: framed(text) for text in set(cells)}  # labels repeat
        return b"".join(map(known.__getitem__, cells))
    return np.ascontiguousarray(cells, TYPES[datatype]).tobytes()


def framed(text: str) -> bytes:
    """A text behind its length."""
    encoded = text.encode()
    return LENGTH.pack(len(encoded)) + encoded


def array_of(datatype: str, cells: Sequence[Any]) -> NDArray[Any]:
    """Numbers or truth values as an array of the datatype."""
    return np.array(cells, TYPES[datatype])


def shown(name: str) -> str:
    """A name from outside, short enough for a sentence."""
    return repr(name[:80])
