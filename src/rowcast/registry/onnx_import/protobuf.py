"""Read the fields of a protobuf message, and reject every encoding that different parsers interpret differently.

Official encoders write a tag in at most 32 bits, write every number in as few bytes as possible, and write each
non-repeated field only once. Some parsers truncate or merge other encodings, so the inspection would see a different
model than the runtime.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from rowcast.errors import BundleError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_TAG: Final = 2**32 - 1
MAX_VARINT: Final = 2**64 - 1
# An attribute stores each number as a separate field, and a forest can contain millions of numbers. This pattern skips
# all consecutive number fields in one match.
_match_numbers = re.compile(
    rb"(?:\x3d[\s\S]{4}|\x40(?:[\x00-\x7f]|[\x80-\xff]{1,8}[\x01-\x7f]|[\x80-\xff]{9}\x01))+"
).match


class ProtobufField(NamedTuple):
    """One field of a message: its number, its value if it is a varint, and the position of its bytes."""

    number: int
    value: int
    start: int
    end: int


class FieldType(NamedTuple):
    """The encoding of a field that the caller interprets."""

    wire_type: int
    repeated: bool = False


Message = Mapping[int, FieldType]
"""The fields of a message that the caller interprets. All other fields are skipped."""


def read_fields(content: bytes, start: int, end: int, message: Message) -> Iterator[ProtobufField]:
    """Yield the fields of a message; raise BundleError or IndexError if the encoding is not valid."""
    position, seen = start, set()
    while position < end:
        numbers = _match_numbers(content, position, end)
        if numbers is not None:
            position = numbers.end()
            continue
        tag, position = _varint(content, position)
        number, wire_type = tag >> 3, tag & 7
        value, start = 0, position
        if wire_type == VARINT:
            value, position = _varint(content, position)
        elif wire_type == BYTES:
            length, start = _varint(content, position)
            position = start + length
        elif wire_type in (FIXED64, FIXED32):
            position += 8 if wire_type == FIXED64 else 4
        else:
            raise not_onnx()
        if position > end or not number or tag > MAX_TAG:
            raise not_onnx()
        expected = message.get(number)
        if expected is not None:
            if wire_type != expected.wire_type or number in seen:
                raise not_onnx()
            if not expected.repeated:
                seen.add(number)
        yield ProtobufField(number, value, start, position)


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Return the number at this position and the position after it."""
    value = shift = 0
    while True:
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if (shift and not byte) or value > MAX_VARINT:
                raise not_onnx()
            return value, position
        shift += 7
        if shift > 63:
            raise not_onnx()


def not_onnx() -> BundleError:
    """Return the error for bytes that are not a valid ONNX model."""
    return BundleError("the file is not a valid ONNX model, or it is truncated", slug="not-onnx")
