"""Keys that occur twice in a JSON object."""

from __future__ import annotations

import pytest

from rowcast.errors import InvalidRows
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.schema import Column, Schema

SCHEMA = Schema(
    (
        Column(name="n", kind="number"),
        Column(name="when", kind="datetime", missing=True),
        Column(name="c", kind="category", levels=("a", 'x":y'), missing=True),
    )
)
REQUIRED = Schema((Column(name="n", kind="number"), Column(name="m", kind="number")))


@pytest.mark.parametrize(
    ("schema", "body", "name"),
    [
        (REQUIRED, b'{"n":1,"m":2,"n":3}', "n"),
        (REQUIRED, b'{"n":1,"m":2,"n" :3}', "n"),
        (REQUIRED, b'{"n":1,"m":2,"\\u006e"\n:3}', "n"),
        (SCHEMA, b'{"n":1,"n":2}', "n"),
        (SCHEMA, b'{"n":1,"c":"a","c":"a"}', "c"),
        (SCHEMA, b'{"n":1,"c":null,"c":"a"}', "c"),
        (SCHEMA, b'{"n":1,"when":"2026-01-01T00:00:00Z","n" :2}', "n"),
        (SCHEMA, b'{"n":1,"c":"x\\":y","n":2}', "n"),
        (SCHEMA, b'{"n":"one","n":2}', "n"),
    ],
)
def test_a_row_with_a_duplicate_key_is_rejected(schema: Schema, body: bytes, name: str) -> None:
    with pytest.raises(InvalidRows) as refused:
        RowEncoder(schema, own_plan(schema)).read(body)

    (problem,) = refused.value.problems
    assert (problem.column, problem.code) == (name, "duplicate-key")


@pytest.mark.parametrize(
    "body",
    [
        b'{"n":1}',
        b'{"n" : 1, "when": "2026-01-01T00:00:00Z"}',
        b'{"n":1,"c":"x\\":y"}',
        b'{"n":1,"c":null,"when":null}',
        b'{"n":1e400,"c":"a"}',
    ],
)
def test_objects_without_duplicate_keys_are_accepted(body: bytes) -> None:
    encoder = RowEncoder(SCHEMA, own_plan(SCHEMA))
    if b"e400" in body:
        with pytest.raises(InvalidRows) as refused:
            encoder.read(body)
        assert refused.value.problems[0].code != "duplicate-key"
    else:
        encoder.read(body)
