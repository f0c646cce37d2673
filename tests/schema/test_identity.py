"""Row keys are equal if and only if the model inputs are equal. Property tests are in `properties/`."""

from __future__ import annotations

import json

from rowcast.schema import identity
from rowcast.schema.encoding import EncodedRow, RowEncoder, own_plan
from rowcast.schema.schema import Column, Schema
from support.models import number_columns


def key(encoder: RowEncoder, row: EncodedRow, bundle: str = "rb1-00", tenant: str = "") -> str:
    return identity.row_key(bundle, encoder.plan, row, tenant)


def test_equivalent_rows_have_the_same_key() -> None:
    schema = Schema(
        (
            Column(name="n", kind="number", forms=("currency", "thousands")),
            Column(name="b", kind="boolean", words={"yes": True, "no": False}),
            Column(name="c", kind="category", levels=("caf\u00e9",), missing=True),
            Column(name="d", kind="datetime", forms=("%d/%m/%Y",)),
        )
    )
    encoder = RowEncoder(schema, own_plan(schema))
    notations = [
        {"n": 1250, "b": True, "c": "caf\u00e9", "d": "2026-01-31T00:00:00Z"},
        {"d": "31/01/2026", "c": " cafe\u0301 ", "b": "YES", "n": "$1,250.00"},
        {"n": 1250.0, "b": "Yes", "c": "caf\u00e9", "d": "2026-01-31T01:00:00+01:00"},
    ]

    assert len({key(encoder, encoder.read(json.dumps(row).encode())) for row in notations}) == 1


def test_negative_zero_and_zero_have_the_same_key() -> None:
    encoder = RowEncoder(schema := number_columns(3), own_plan(schema))
    rows = [encoder.read(body) for body in (b'{"x0":0,"x1":-0.0,"x2":1}', b'{"x0":-0.0,"x1":0,"x2":1}')]

    assert len({key(encoder, row) for row in rows}) == 1


def test_the_same_string_in_different_columns_produces_different_keys() -> None:
    schema = Schema(tuple(Column(name=name, kind="category", missing=True) for name in "ab"))
    encoder = RowEncoder(schema, own_plan(schema))
    bodies = [b'{"a":"x"}', b'{"b":"x"}', b'{"a":"x","b":"x"}', b'{"a":"xx"}', b"{}"]

    assert len({key(encoder, encoder.read(body)) for body in bodies}) == len(bodies)


def test_the_keys_of_strings_that_contain_a_length_prefix_do_not_collide() -> None:
    schema = Schema(tuple(Column(name=name, kind="category") for name in "ab"))
    encoder = RowEncoder(schema, own_plan(schema))
    seams = [f"{length}\0\0\0" for length in ("\0", "\1")]
    rows = [{"a": f"x{seam}y", "b": "z"} for seam in seams] + [{"a": "x", "b": f"y{seam}z"} for seam in seams]

    assert len({key(encoder, encoder.parse(row)) for row in rows}) == len(rows)


def test_the_key_depends_on_the_bundle() -> None:
    encoder = RowEncoder(schema := number_columns(1), own_plan(schema))
    row = encoder.read(b'{"x0":1}')

    assert key(encoder, row, "rb1-00") != key(encoder, row, "rb1-01")
    assert key(encoder, row).startswith(identity.ROW_RULE)


def test_the_key_depends_on_the_tenant() -> None:
    encoder = RowEncoder(schema := number_columns(1), own_plan(schema))
    row = encoder.read(b'{"x0":1}')

    assert len({key(encoder, row, tenant=tenant) for tenant in ("", "a", "b")}) == 3


def test_canonical_json_sorts_keys_at_every_level() -> None:
    assert identity.canonical_json({"b": 1, "a": {"d": 1, "c": 2}}) == b'{"a":{"c":2,"d":1},"b":1}'
