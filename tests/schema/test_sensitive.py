"""Sensitive columns are hashed or dropped; the values in all other columns are kept as received."""

from __future__ import annotations

import json

import pytest

from rowcast.schema.schema import Column, Schema
from rowcast.schema.sensitive import HASH_RULE, Redactor

SCHEMA = Schema(
    (
        Column(name="name", kind="category", sensitive=True),
        Column(name="age", kind="integer", sensitive=True, missing=True),
        Column(name="income", kind="number", forms=("currency",)),
    )
)


def test_dropped_columns_are_removed_from_the_row() -> None:
    row = Redactor("drop", b"").redact(SCHEMA, b'{"name":"Jo","age":41,"income":"$1,250.00"}')

    assert row == b'{"income":"$1,250.00"}'


def test_equivalent_values_have_the_same_hash() -> None:
    redactor = Redactor("hash", b"secret")

    rows = [
        json.loads(redactor.redact(SCHEMA, body))
        for body in (b'{"name":"Jo","age":41,"income":1}', b'{"name":" Jo ","age":41.0,"income":1}')
    ]

    assert rows[0] == rows[1]
    assert rows[0]["name"].startswith(HASH_RULE)
    assert rows[0]["income"] == 1


@pytest.mark.parametrize("other", [b'{"name":"Al","age":41,"income":1}', b'{"name":"41","age":41,"income":1}'])
def test_a_hash_depends_on_the_value_and_the_column(other: bytes) -> None:
    redactor = Redactor("hash", b"secret")
    first = json.loads(redactor.redact(SCHEMA, b'{"name":"Jo","age":41,"income":1}'))
    second = json.loads(redactor.redact(SCHEMA, other))

    assert first["name"] != second["name"]
    assert second["name"] != second["age"]


def test_a_hash_depends_on_the_key() -> None:
    body = b'{"name":"Jo","age":41,"income":1}'

    assert Redactor("hash", b"a").redact(SCHEMA, body) != Redactor("hash", b"b").redact(SCHEMA, body)


def test_missing_values_are_not_hashed() -> None:
    row = json.loads(Redactor("hash", b"secret").redact(SCHEMA, b'{"name":"Jo","age":null,"income":1}'))

    assert row["age"] is None


def test_only_sensitive_columns_are_withheld() -> None:
    assert Redactor("drop", b"").withheld_columns(SCHEMA) == ("name", "age")
