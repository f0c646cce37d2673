"""Encoding: rows are converted to the values of input tensors, as described by the tensor plan."""

from __future__ import annotations

import json
import struct

import pytest

from rowcast.errors import BodyError, InvalidRows
from rowcast.schema.encoding import NUMBERS, TEXTS, RowEncoder, decode_object, own_plan
from rowcast.schema.schema import Column, Schema

SCHEMA = Schema(
    (
        Column(name="city", kind="category", levels=("Ulm",)),
        Column(name="income", kind="number", missing=True),
        Column(name="since", kind="datetime", origin=1_767_225_600_000_000),
        Column(name="owner", kind="boolean", words={"yes": True, "no": False}),
        Column(name="plan", kind="category", missing=True),
        Column(name="children", kind="integer"),
    )
)
BODY = b'{"city":"Ulm","income":1.5,"since":"2026-02-01T18:00:00Z","owner":"no","plan":null,"children":2}'


def test_the_plan_of_an_exported_graph_lists_columns_in_table_order() -> None:
    numbers, texts = own_plan(SCHEMA)

    assert (numbers.name, numbers.dtype, numbers.shape) == (NUMBERS, "float32", (7,))
    assert [(feature.column, feature.part) for feature in numbers.columns] == [
        ("income", "value"),
        *(("since", part) for part in ("days", "month", "weekday", "hour")),
        ("owner", "value"),
        ("children", "value"),
    ]
    assert (texts.name, texts.dtype, [feature.column for feature in texts.columns]) == (
        TEXTS,
        "string",
        ["city", "plan"],
    )


@pytest.mark.parametrize(("kind", "names"), [("number", [NUMBERS]), ("category", [TEXTS])])
def test_the_plan_has_no_empty_tensors(kind: str, names: list[str]) -> None:
    schema = Schema((Column(name="x", kind=kind),))  # type: ignore[arg-type]

    assert [spec.name for spec in own_plan(schema)] == names


def test_an_unseen_category_is_encoded_with_a_warning() -> None:
    encoder = RowEncoder(SCHEMA, own_plan(SCHEMA))

    row = encoder.read(BODY.replace(b'"Ulm"', b'" Atlantis "'))

    assert row.inputs[1] == ("Atlantis", "")
    (warning,) = row.warnings
    assert (warning.column, warning.code) == ("city", "unseen-category")


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_warning_does_not_contain_the_value(sensitive: bool) -> None:
    schema = Schema((Column(name="name", kind="category", levels=("a",), sensitive=sensitive),))

    (warning,) = RowEncoder(schema, own_plan(schema)).read(b'{"name":"Jo Doe"}').warnings

    assert "Jo" not in warning.message


@pytest.mark.parametrize(
    "name", ['a "quoted" one', "back\\slash", "tab\there", "größe", "é", "e\u0301", "", "self", "😀"]
)
def test_a_column_can_have_any_name(name: str) -> None:
    schema = Schema((Column(name=name, kind="number"),))
    encoder = RowEncoder(schema, own_plan(schema))

    for escape in (True, False):
        row = encoder.read(json.dumps({name: 1.5}, ensure_ascii=escape).encode())
        assert struct.unpack("<f", row.inputs[0]) == (1.5,)
    with pytest.raises(InvalidRows):
        encoder.read(b'{"something else":1}')


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (b"", "empty-body"),
        (b" \n", "empty-body"),
        (b"[]", "not-an-object"),
        (b"null", "not-an-object"),
        (b"1e400", "not-an-object"),
        (b"{", "malformed-body"),
        (b'{"a":NaN}', "malformed-body"),
        (b'{"a":"\xff"}', "malformed-body"),
        (b"\xef\xbb\xbf{}", "malformed-body"),
        (b"[" * 100_000, "too-deep"),
        (b'{"a":' * 100_000, "too-deep"),
    ],
)
def test_the_error_for_a_body_that_is_not_an_object_has_a_specific_slug(body: bytes, slug: str) -> None:
    with pytest.raises(BodyError) as caught:
        decode_object(body)

    assert caught.value.slug == slug
