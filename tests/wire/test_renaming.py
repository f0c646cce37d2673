"""Renaming the keys of a row without decoding its values."""

from __future__ import annotations

import pytest

from rowcast.errors import InvalidRows
from rowcast.wire.renaming import key_renamer

PLAIN = {"Age": "age", "Größe": "size", "b": "a", "a": "b"}
ESCAPED = {'the "age"': "age", "b": "a\\b"}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"Age": 1.50, "b": "x\\u00e9", "a": null}', b'{"age":1.50,"a":"x\\u00e9","b":null}'),
        (b'{ "b" : "\\"a\\": 1" }', b'{"a":"\\"a\\": 1"}'),
        ('{"Größe": 1e400}'.encode(), b'{"size":1e400}'),
        (b'{"Gr\\u00f6\\u00dfe": 1}', b'{"size":1}'),
        (b"{}", b"{}"),
    ],
)
def test_keys_are_replaced_and_values_are_unchanged(body: bytes, expected: bytes) -> None:
    assert key_renamer(PLAIN)(body) == expected


def test_names_that_json_must_escape_are_replaced_too() -> None:
    assert key_renamer(ESCAPED)(b'{"the \\"age\\"": 3, "b": 4}') == b'{"age":3,"a\\\\b":4}'


@pytest.mark.parametrize("columns", [PLAIN, ESCAPED])
@pytest.mark.parametrize(
    "body", [b'{"age": 1}', b'{"b": 1', b"[1]", b"", b"null", b'{"\xff": 1}', b'{"b": ' + b"[" * 100_000]
)
def test_an_invalid_row_and_an_unknown_name_are_reported(columns: dict[str, str], body: bytes) -> None:
    assert key_renamer(columns)(body) is None


@pytest.mark.parametrize("columns", [PLAIN, ESCAPED, {"a": "b:c", "b": "b"}, {"b:c": "a", "b": "b"}])
@pytest.mark.parametrize("end", [b'"b":2}', b'"b" : 2}', b'"\\u0062":2}', b'"b":":"}'])
def test_a_key_that_occurs_twice_is_rejected_whatever_the_names_contain(columns: dict[str, str], end: bytes) -> None:
    other = next(iter(columns)).replace('"', '\\"').encode()

    with pytest.raises(InvalidRows) as refused:
        key_renamer(columns)(b'{"%b":1,"b":1,%b' % (other, end))

    assert [(problem.column, problem.code) for problem in refused.value.problems] == [("b", "duplicate-key")]
    assert key_renamer(columns)(b'{"%b":1,"b":":"}' % other) is not None
