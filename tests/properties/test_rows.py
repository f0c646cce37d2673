"""Rows: the fast path and the general path agree, all problems are reported, and canonical values are stable."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rowcast.errors import BodyError, InvalidRows, RequestError
from rowcast.schema.encoding import EncodedRow, Feature, Plan, RowEncoder, TensorSpec, decode_object, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows
from rowcast.schema.unique_keys import check_unique_keys
from rowcast.schema.values import MISSING_WORDS, canonical_text
from support.strategies import TEXTS, bodies, columns, schemas

FLOAT32_MAX = 3.4028234663852886e38
HUGE = "9" * 400


def result(read: Any, body: bytes) -> Any:
    """Return the encoded row or the error in a comparable form."""
    try:
        row: EncodedRow = read(body)
    except InvalidRows as invalid:
        return "invalid", [(problem.column, problem.code, problem.message) for problem in invalid.problems]
    except BodyError as malformed:
        return "malformed", malformed.slug
    return "encoded", row.inputs, row.warnings


def read_generally(encoder: RowEncoder, body: bytes) -> EncodedRow:
    """Read a row on the general path."""
    row = decode_object(body)
    check_unique_keys(body, len(row))
    return encoder.parse(row)


def as_json(cells: dict[str, str]) -> bytes:
    """Return a row as JSON, built from cells that are already JSON."""
    inside = ",".join(f'"{name}":{token}' for name, token in cells.items())
    return f"{{{inside}}}".encode()


def foreign_plan(schema: Schema) -> Plan:
    """Return a plan with one tensor per column, using types and fill values found in imported graphs."""
    plan = []
    for index, column in enumerate(schema.columns):
        dtype = {
            "number": "float64",
            "integer": "int64",
            "boolean": "bool",
            "category": "string",
            "datetime": "float64",
        }
        fill = "none" if column.kind == "category" else -1.0 if column.missing else None
        part = "days" if column.kind == "datetime" else "value"
        kind: Any = "float64" if column.missing and column.kind in ("integer", "boolean") else dtype[column.kind]
        plan.append(TensorSpec(f"input_{index}", kind, (), (Feature(column.name, part),), fill))  # type: ignore[arg-type]
    return tuple(plan)


@given(st.data())
@settings(max_examples=400)
def test_the_fast_path_and_the_general_path_agree(data: st.DataObject) -> None:
    schema = data.draw(schemas(), label="schema")
    encoder = RowEncoder(schema, own_plan(schema))
    body = data.draw(bodies(schema), label="body")

    assert result(encoder.read, body) == result(lambda raw: read_generally(encoder, raw), body)


EVERY_KIND = Schema(
    (
        Column(name="n", kind="number", missing=True, forms=("percent",)),
        Column(name="m", kind="number"),
        Column(name="i", kind="integer"),
        Column(name="b", kind="boolean", words={"yes": True, "1": True, "0": False}, missing=True),
        Column(name="c", kind="category", levels=("red", "15", "1", "caf\u00e9")),
        Column(name="d", kind="datetime", forms=("%d/%m/%Y",), missing=True),
    )
)
FINE = {"n": "null", "m": "1", "i": "1", "b": "true", "c": '"red"', "d": '"2026-01-31"'}
UNUSUAL = [
    *[(name, token) for name in "nmi" for token in ("3.4028235e38", "3.4028235677973365e38", "-3.4028236e38", "1e38")],
    *[
        (name, token)
        for name in "nmi"
        for token in ("9007199254740993", "1e400", "-0.0", "15.0", "1" + "0" * 39, "1e20")
    ],
    *[
        (name, token)
        for name in "nmi"
        for token in ("9" * 400, "9" * 5000, "NaN", "true", '"95%"', '"7"', '""', "1e-400")
    ],
    *[("b", token) for token in ("1", "0", "1.0", "0.0", "-0.0", "2", '"1"', '"YES"', '" yes "', '"?"', "1e0")],
    *[
        ("c", token)
        for token in ("15", "15.0", "1", "true", "1e400", "4e38", "1e38", '"cafe\u0301"', '" red"', '"?"', '""')
    ],
    *[
        ("d", token)
        for token in ('"0001-01-01T00:00:00+14:00"', '"9999-12-31T23:59:59-14:00"', '"31/01/2026"', "0", '""')
    ],
]


@pytest.mark.parametrize(("name", "token"), UNUSUAL, ids=lambda text: text[:24])
def test_both_paths_agree_on_unusual_cells(name: str, token: str) -> None:
    encoder = RowEncoder(EVERY_KIND, own_plan(EVERY_KIND))
    body = as_json({**FINE, name: token})

    assert result(encoder.read, body) == result(lambda raw: read_generally(encoder, raw), body)


def test_both_paths_reject_a_column_that_occurs_twice() -> None:
    encoder = RowEncoder(schema := Schema((Column(name="n", kind="number"),)), own_plan(schema))

    for body in (b'{"n":1,"n":2}', b'{"n":2,"n":1}', b'{"n":"x","n":2}'):
        read = result(encoder.read, body)
        assert read == result(lambda raw: read_generally(encoder, raw), body)
        assert read[1][0][:2] == ("n", "duplicate-key")


@given(st.data())
@settings(max_examples=200)
def test_both_paths_produce_the_same_tensors_for_an_imported_graph(data: st.DataObject) -> None:
    schema = data.draw(schemas(max_columns=3), label="schema")
    encoder = RowEncoder(schema, foreign_plan(schema))
    body = data.draw(bodies(schema), label="body")

    assert result(encoder.read, body) == result(lambda raw: read_generally(encoder, raw), body)


@given(st.data())
@settings(max_examples=200)
def test_a_body_is_encoded_or_rejected_with_a_serializable_error(data: st.DataObject) -> None:
    schema = data.draw(schemas(), label="schema")
    body = data.draw(bodies(schema, damage=4), label="body")

    try:
        RowEncoder(schema, own_plan(schema)).read(body)
    except RequestError as error:
        msgspec.json.encode([error.message, getattr(error, "problems", [])])


@given(st.binary(max_size=40))
@example(b"\xff\xfe")
@example(b'{"n":1e400,')
@example(b'{"n":1e400}{')
@example(b'{"n":1e400,"c":"\\ud800"}')
@example(b'{"n":1e400,"c":"\xff"}')
@example(b'{"n":1e400,"m":NaN}')
@example(('{"n":1e400,"m":' + "[" * 100_000).encode())
@example(('{"n":' + "9" * 5000 + ',"m":' + "[" * 100_000 + "]" * 100_000 + "}").encode())
@example(b'{"n":"\xc3\x28"}')
@example(b'\xef\xbb\xbf{"n":1}')
def test_arbitrary_bytes_cause_only_request_errors(body: bytes) -> None:
    schema = Schema((Column(name="n", kind="number"), Column(name="c", kind="category", missing=True)))

    try:
        RowEncoder(schema, own_plan(schema)).read(body)
    except RequestError as error:
        msgspec.json.encode([error.message, getattr(error, "problems", [])])


# One column of each kind, with its invalid cells and their error codes.
INVALID: dict[str, tuple[Column, dict[str, str]]] = {
    "n": (
        Column(name="n", kind="number"),
        {
            **dict.fromkeys(["null", '""', '" ? "'], "missing"),
            **dict.fromkeys(["true", '"12"', "[1]", '{"a":1}'], "wrong-type"),
            **dict.fromkeys(["4e38", "1e400", "-1e400", HUGE, "1" + "0" * 39], "too-large"),
        },
    ),
    "i": (
        Column(name="i", kind="integer"),
        {
            "null": "missing",
            **dict.fromkeys(["1.5", "1e-3"], "not-integer"),
            **dict.fromkeys(["false", '"7"', "[]"], "wrong-type"),
            **dict.fromkeys(["4e38", "-" + HUGE], "too-large"),
        },
    ),
    "b": (
        Column(name="b", kind="boolean", words={"yes": True, "no": False}),
        {'""': "missing", **dict.fromkeys(['"maybe"', "2", "1.5", "{}"], "wrong-type")},
    ),
    "c": (
        Column(name="c", kind="category", levels=("red", "blue"), closed=True),
        {'"NA"': "missing", '"green"': "not-allowed", "7": "not-allowed", "[]": "wrong-type", "1e39": "too-large"},
    ),
    "d": (
        Column(name="d", kind="datetime", forms=("%d/%m/%Y",)),
        {"null": "missing", "20260131": "wrong-type", **dict.fromkeys(['"soon"', '"2026-02-30"'], "bad-datetime")},
    ),
}
GOOD = {"n": "1.5", "i": "7", "b": '"Yes"', "c": '" red "', "d": '"31/01/2026"'}


@given(st.fixed_dictionaries({name: st.sampled_from([None, *cells.items()]) for name, (_, cells) in INVALID.items()}))
@settings(max_examples=300)
def test_all_problems_in_a_row_are_reported_at_once(cells_and_codes: dict[str, tuple[str, str] | None]) -> None:
    schema = Schema(tuple(column for column, _ in INVALID.values()))
    cells = {name: GOOD[name] if bad is None else bad[0] for name, bad in cells_and_codes.items()}
    body = as_json({**cells, "x": "1", "y": "null"})

    with pytest.raises(InvalidRows) as caught:
        RowEncoder(schema, own_plan(schema)).read(body)

    expected = {name: bad[1] for name, bad in cells_and_codes.items() if bad is not None}
    assert {problem.column: problem.code for problem in caught.value.problems} == {
        **expected,
        "x": "unknown-column",
        "y": "unknown-column",
    }


@pytest.mark.parametrize("token", ["1e308", "3.4028236e38", "-3.4028236e38"])
def test_numbers_outside_the_float32_range_are_reported_as_problems(token: str) -> None:
    schema = Schema((Column(name="n", kind="number"),))

    with pytest.raises(InvalidRows) as caught:
        RowEncoder(schema, own_plan(schema)).read(f'{{"n":{token}}}'.encode())

    assert [(problem.column, problem.code) for problem in caught.value.problems] == [("n", "too-large")]


def test_the_largest_float32_is_valid() -> None:
    encoder = RowEncoder(schema := Schema((Column(name="n", kind="number"),)), own_plan(schema))

    (tensor,) = stack_rows(encoder.plan, [encoder.read(f'{{"n":{FLOAT32_MAX!r}}}'.encode())]).values()

    assert tensor.tolist() == [[FLOAT32_MAX]]


@given(st.one_of(TEXTS, st.integers(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False)))
def test_canonicalizing_text_is_idempotent(raw: str | int | float | bool) -> None:
    once = canonical_text(raw)

    assert canonical_text(once) == once


@given(st.data())
@settings(max_examples=200)
def test_parsing_a_canonical_value_returns_the_same_value(data: st.DataObject) -> None:
    column = data.draw(columns("x").filter(lambda drawn: drawn.kind != "datetime"), label="column")
    raw = data.draw(st.one_of(st.integers(-100, 100), st.booleans(), TEXTS, st.floats(-1e6, 1e6)), label="raw")
    encoder = RowEncoder(schema := Schema((column,)), own_plan(schema))
    try:
        (value,) = schema.parse({"x": raw})
    except InvalidRows:
        return

    again = encoder.read(json.dumps({"x": value}).encode())

    assert again.inputs == encoder.parse({"x": raw}).inputs
    assert schema.parse({"x": value}) == [value]


@given(st.data())
@settings(max_examples=100)
def test_decoding_an_encoded_schema_returns_the_same_schema(data: st.DataObject) -> None:
    schema = data.draw(schemas(), label="schema")

    assert msgspec.json.decode(msgspec.json.encode(schema), type=Schema) == schema


@given(st.data())
@settings(max_examples=100)
def test_the_json_schema_allows_missing_values_where_the_parser_does(data: st.DataObject) -> None:
    schema = data.draw(schemas(), label="schema")
    described = schema.json_schema()

    assert list(described["properties"]) == schema.names()
    for column in schema.columns:
        accepted = described["properties"][column.name]["type"]
        assert ("null" in accepted) == column.missing == (column.name not in described["required"])


@pytest.mark.parametrize("word", sorted(MISSING_WORDS))
@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "category", "datetime"])
def test_a_missing_value_marker_is_parsed_as_missing_in_every_kind_of_column(kind: Any, word: str) -> None:
    required = Schema((Column(name="x", kind=kind),))
    optional = Schema((Column(name="x", kind=kind, missing=True),))

    with pytest.raises(InvalidRows) as caught:
        required.parse({"x": f" {word} "})

    assert caught.value.problems[0].code == "missing"
    assert optional.parse({"x": word}) == [None]


def test_missing_numbers_are_encoded_as_nan_and_missing_strings_as_empty_strings() -> None:
    schema = Schema((Column(name="n", kind="number", missing=True), Column(name="c", kind="category", missing=True)))
    encoder = RowEncoder(schema, own_plan(schema))

    tensors = stack_rows(encoder.plan, [encoder.read(b"{}"), encoder.read(b'{"n":null,"c":" "}')])

    assert all(math.isnan(value) for value in tensors["rowcast_numbers"].flatten().tolist())
    assert tensors["rowcast_texts"].tolist() == [[""], [""]]
