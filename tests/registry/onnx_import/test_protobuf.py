"""The fields of a protobuf message are read as official parsers read them."""

from __future__ import annotations

import pytest

from rowcast.errors import BundleError
from rowcast.registry.onnx_import.protobuf import FieldType, ProtobufField, read_fields

MESSAGE = bytes.fromhex(
    "08ac02"  # field 1: the varint 300
    "110102030405060708"  # field 2: eight bytes
    "1a026162"  # field 3: the bytes "ab"
    "2501020304"  # field 4: four bytes
    "f8ffffff0f00"  # field 536,870,911, the highest: the varint 0
)


def fields(content: bytes, **types: FieldType) -> list[ProtobufField]:
    return list(read_fields(content, 0, len(content), {int(name[1:]): kind for name, kind in types.items()}))


def is_rejected(content: bytes, **types: FieldType) -> bool:
    try:
        fields(content, **types)
    except (BundleError, IndexError):
        return True
    return False


def test_every_kind_of_field_is_read() -> None:
    assert fields(MESSAGE) == [
        ProtobufField(1, 300, 1, 3),
        ProtobufField(2, 0, 4, 12),
        ProtobufField(3, 0, 14, 16),
        ProtobufField(4, 0, 17, 21),
        ProtobufField(536_870_911, 0, 26, 27),
    ]


def test_a_message_that_ends_inside_a_field_is_rejected() -> None:
    ends = {0, 3, 12, 16, 21, 27}

    assert {size for size in range(28) if not is_rejected(MESSAGE[:size])} == ends
    for size in set(range(28)) - ends:  # the bytes of the next message do not complete the field
        with pytest.raises((BundleError, IndexError)):
            list(read_fields(MESSAGE + MESSAGE, 0, size, {}))


def test_only_the_given_part_of_the_content_is_read() -> None:
    assert [field.number for field in read_fields(MESSAGE, 3, 21, {})] == [2, 3, 4]


@pytest.mark.parametrize("tag", ["00", "02", "0b", "0c", "0e", "0f"])
def test_field_zero_and_unknown_wire_types_are_rejected(tag: str) -> None:
    with pytest.raises(BundleError) as caught:
        fields(bytes.fromhex(tag) + bytes(9))
    assert caught.value.slug == "not-onnx"


@pytest.mark.parametrize(
    ("varint", "value"),
    [
        ("00", 0),
        ("7f", 127),
        ("8001", 128),
        ("ffffffffffffffff7f", 2**63 - 1),
        ("ffffffffffffffffff01", 2**64 - 1),
        ("ffffffffffffffffff02", None),
        ("80808080808080808002", None),
        ("8080808080808080808001", None),
        ("8000", None),
        ("ff00", None),
    ],
)
def test_a_number_has_at_most_64_bits_and_as_few_bytes_as_possible(varint: str, value: int | None) -> None:
    content = bytes.fromhex("08" + varint)

    if value is None:
        assert is_rejected(content)
    else:
        assert fields(content) == [ProtobufField(1, value, 1, len(content))]


def test_a_tag_has_at_most_32_bits() -> None:
    assert [field.number for field in fields(bytes.fromhex("f8ffffff0f00"))] == [2**29 - 1]
    assert is_rejected(bytes.fromhex("888080801000"))


def test_the_numbers_of_an_attribute_are_skipped() -> None:
    floats = bytes.fromhex("3d00010203") * 3
    integers = bytes.fromhex("4001 40ac02 40ffffffffffffffffff01 4000")
    text = bytes.fromhex("1a0161")

    assert [field.number for field in fields(floats + text + integers + text + floats)] == [3, 3]
    assert [field.number for field in fields(bytes.fromhex("38014501020304"))] == [7, 8]
    for damaged in ("3d000102", "40", "4080", "408000", "40ffffffffffffffffff02"):
        assert is_rejected(text + bytes.fromhex(damaged)), damaged


def test_a_field_with_an_unexpected_wire_type_is_rejected() -> None:
    varint, content = FieldType(0), FieldType(2)

    assert not is_rejected(MESSAGE, f1=varint, f3=content)
    assert is_rejected(MESSAGE, f1=content)
    assert is_rejected(MESSAGE, f3=varint)
    assert is_rejected(MESSAGE, f2=content)


def test_only_a_repeated_field_may_occur_more_than_once() -> None:
    twice = bytes.fromhex("1a0161 08 01 1a0162")

    assert is_rejected(twice, f3=FieldType(2))
    assert [field.start for field in fields(twice, f3=FieldType(2, repeated=True))] == [2, 4, 7]
    assert [field.start for field in fields(twice)] == [2, 4, 7]
