"""Encoding: rows are converted to the values of input tensors, as described by the tensor plan."""

from __future__ import annotations

import json
import struct
from typing import Any

import msgspec
import pytest

from rowcast.errors import BodyError, InvalidRows
from rowcast.schema.encoding import NUMBERS, TEXTS, RowEncoder, RowLimits, decode_object, own_plan
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


LIMITS = RowLimits(text_characters=100, row_bytes=400)


def limited(schema: Schema = SCHEMA) -> RowEncoder:
    encoder = RowEncoder(schema, own_plan(schema))
    encoder.limit(LIMITS)
    return encoder


@pytest.mark.parametrize("column", ["city", "income", "since", "owner", "plan", "children"])
def test_the_error_for_a_string_that_is_too_long_does_not_contain_the_string(column: str) -> None:
    row = json.loads(BODY)
    limited().read(json.dumps({**row, "plan": "é" * 100}, ensure_ascii=False).encode())

    for text in ("x" * 101, " " * 97 + "1.50"):
        body = json.dumps({**row, column: text}).encode()
        for read in (limited().read, lambda body: limited().parse(json.loads(body), text=True)):
            with pytest.raises(InvalidRows) as refused:
                read(body)
            (problem,) = refused.value.problems
            assert (problem.column, problem.code, problem.got) == (column, "too-long", msgspec.UNSET)
            assert problem.message == "the value has 101 characters; the limit is 100 (setting max_text_characters)"


def test_a_row_with_too_many_bytes_is_rejected() -> None:
    encoder = limited()
    size = 6 * 256 + 6 * len("Ulm")  # wide rows raise the limit
    encoder.read(BODY + b" " * (size - len(BODY)))

    with pytest.raises(InvalidRows) as refused:
        encoder.read(BODY + b" " * (size - len(BODY) + 1))

    (problem,) = refused.value.problems
    assert str(problem) == f"the row has {size + 1} bytes; the limit is {size} (setting max_row_bytes)"
    narrow = limited(Schema((Column(name="a", kind="number"),)))
    narrow.read(b'{"a":1' + b" " * 393 + b"}")
    with pytest.raises(InvalidRows):
        narrow.read(b'{"a":1' + b" " * 394 + b"}")


def test_a_long_category_from_training_is_accepted() -> None:
    text = "x" * 5000
    encoder = limited(Schema((Column(name="a", kind="category", levels=(text, "b")),)))

    assert encoder.read(json.dumps({"a": text}).encode()).warnings == ()
    with pytest.raises(InvalidRows):
        encoder.read(json.dumps({"a": text + "y"}).encode())


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


@pytest.mark.parametrize(
    ("unseen", "omitted"), [(100, None), (101, "1 more warning omitted"), (130, "30 more warnings")]
)
def test_the_last_warning_says_how_many_warnings_about_a_row_were_omitted(unseen: int, omitted: str | None) -> None:
    names = [f"c{number}" for number in range(unseen)]
    schema = Schema(tuple(Column(name=name, kind="category", levels=("a", "b")) for name in names))

    warnings = RowEncoder(schema, own_plan(schema)).read(json.dumps(dict.fromkeys(names, "new")).encode()).warnings

    assert [warning.column for warning in warnings[:100]] == names[:100]
    if omitted is None:
        assert len(warnings) == 100
    else:
        (last,) = warnings[100:]
        assert (last.column, last.code) == ("", "more-warnings")
        assert last.message.startswith(omitted)


@pytest.mark.parametrize("sensitive", [False, True])
def test_a_warning_does_not_contain_the_value(sensitive: bool) -> None:
    schema = Schema((Column(name="name", kind="category", levels=("a",), sensitive=sensitive),))

    (warning,) = RowEncoder(schema, own_plan(schema)).read(b'{"name":"Jo Doe"}').warnings

    assert "Jo" not in warning.message


RANGES = Schema(
    (
        Column(name="age", kind="integer", low=18.0, high=70.0),
        Column(name="rate", kind="number", low=-0.5, high=0.1, missing=True, sensitive=True),
        Column(name="level", kind="category", levels=("a",)),
    )
)


@pytest.mark.parametrize(
    ("row", "warned"),
    [
        ({"age": 18, "rate": 0.1, "level": "a"}, []),
        ({"age": 70, "rate": 0.10000000149011612, "level": "a"}, []),
        ({"age": 70, "rate": None, "level": "a"}, []),
        ({"age": 71, "rate": -0.51, "level": "a"}, [("age", "out-of-range"), ("rate", "out-of-range")]),
        ({"age": 17, "level": "a"}, [("age", "out-of-range")]),
        ({"age": 10**30, "rate": 0, "level": "a"}, [("age", "out-of-range")]),
        ({"age": 17.0, "rate": 0, "level": "a"}, [("age", "out-of-range")]),
        ({"age": 30, "rate": 0.2, "level": "b"}, [("rate", "out-of-range"), ("level", "unseen-category")]),
    ],
)
def test_a_number_outside_the_training_range_is_encoded_with_a_warning(row: Any, warned: Any) -> None:
    encoder = RowEncoder(RANGES, own_plan(RANGES))

    for encoded in (encoder.read(json.dumps(row).encode()), encoder.parse(row)):
        assert [(warning.column, warning.code) for warning in encoded.warnings] == warned
        assert not any(character.isdigit() for warning in encoded.warnings for character in warning.message)


def test_a_row_with_a_number_outside_the_range_is_encoded_like_other_rows() -> None:
    known, unknown = (
        Schema((Column(name="x", kind="number", low=low, high=high),)) for low, high in ((0, 1), (None, None))
    )
    body = b'{"x":7.5}'

    outside = RowEncoder(known, own_plan(known)).read(body)

    assert outside.inputs == RowEncoder(unknown, own_plan(unknown)).read(body).inputs
    with pytest.raises(InvalidRows):
        RowEncoder(known, own_plan(known)).read(b'{"x":7.5,"x":0.5}')


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
