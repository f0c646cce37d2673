"""Encoding: which cell goes to which place of which tensor, by the bundle's plan."""

from __future__ import annotations

import math

import pytest

from rowcast.errors import BodyError, InvalidRows
from rowcast.schema.encoding import NUMBERS, TEXTS, Feature, RowEncoder, TensorSpec, decode_object, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows

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


def test_our_own_exports_take_numbers_and_texts_in_the_tables_order() -> None:
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
def test_a_tensor_without_columns_is_left_out(kind: str, names: list[str]) -> None:
    schema = Schema((Column(name="x", kind=kind),))  # type: ignore[arg-type]

    assert [spec.name for spec in own_plan(schema)] == names


def test_a_row_fills_its_tensors() -> None:
    encoder = RowEncoder(SCHEMA, own_plan(SCHEMA))

    tensors = stack_rows(encoder.plan, [encoder.read(BODY), encoder.read(BODY.replace(b"1.5", b"null"))])

    assert tensors[NUMBERS].dtype == "float32"
    assert tensors[NUMBERS][0].tolist() == [1.5, 31.75, 2, 6, 18, 0, 2]
    assert math.isnan(tensors[NUMBERS][1][0])
    assert tensors[TEXTS].tolist() == [["Ulm", ""], ["Ulm", ""]]


def test_an_unseen_category_warns_and_goes_to_the_model_as_it_is() -> None:
    encoder = RowEncoder(SCHEMA, own_plan(SCHEMA))

    row = encoder.read(BODY.replace(b'"Ulm"', b'" Atlantis "'))

    assert stack_rows(encoder.plan, [row])[TEXTS][0][0] == "Atlantis"
    (warning,) = row.warnings
    assert (warning.column, warning.code) == ("city", "unseen-category")
    assert "'Atlantis'" in warning.message


def test_a_warning_does_not_show_a_sensitive_value() -> None:
    schema = Schema((Column(name="name", kind="category", levels=("a",), sensitive=True),))

    (warning,) = RowEncoder(schema, own_plan(schema)).read(b'{"name":"Jo Doe"}').warnings

    assert "Jo" not in warning.message


def test_a_foreign_graph_gets_its_own_tensors() -> None:
    schema = Schema(
        (
            Column(name="a", kind="integer"),
            Column(name="b", kind="boolean"),
            Column(name="c", kind="category", missing=True),
            Column(name="d", kind="number", missing=True),
        )
    )
    plan = (
        TensorSpec("wide", "float64", (2,), (Feature("d"), Feature("a")), -1.0),
        TensorSpec("flag", "bool", (), (Feature("b"),)),
        TensorSpec("count", "int64", (1,), (Feature("a"),)),
        TensorSpec("text", "string", (), (Feature("c"),), ""),
    )
    encoder = RowEncoder(schema, plan)

    rows = [encoder.read(b'{"a":7,"b":true,"c":"x","d":0.1}'), encoder.read(b'{"a":9,"b":false}')]
    tensors = stack_rows(encoder.plan, rows)

    assert {name: (str(found.dtype), found.tolist()) for name, found in tensors.items()} == {
        "wide": ("float64", [[0.1, 7.0], [-1.0, 9.0]]),
        "flag": ("bool", [True, False]),
        "count": ("int64", [[7], [9]]),
        "text": ("object", ["x", ""]),
    }


@pytest.mark.parametrize(
    "name", ['a "quoted" one', "back\\slash", "tab\there", "größe", "é", "e\u0301", "", "self", "😀"]
)
def test_a_column_may_have_any_name(name: str) -> None:
    import json

    schema = Schema((Column(name=name, kind="number"),))
    encoder = RowEncoder(schema, own_plan(schema))

    for escape in (True, False):
        row = encoder.read(json.dumps({name: 1.5}, ensure_ascii=escape).encode())
        assert stack_rows(encoder.plan, [row])[NUMBERS].tolist() == [[1.5]]
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
def test_a_body_that_is_no_object_is_refused_with_its_kind(body: bytes, slug: str) -> None:
    with pytest.raises(BodyError) as caught:
        decode_object(body)

    assert caught.value.slug == slug
