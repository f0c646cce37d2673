"""Requests with a client's own field names and shape are converted to rows with the model's column names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rowcast.errors import BodyError, InvalidRows
from rowcast.schema.prediction import Decision
from rowcast.schema.schema import Column, Schema
from rowcast.wire.document import PARSERS
from support.wire import compiled

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "wire.md"
SWAPPED = Schema(
    (
        Column(name="a", kind="number", missing=True),
        Column(name="b", kind="number", missing=True),
        Column(name="c", kind="category", levels=("x",), missing=True),
    )
)
SWAP = {"request": {"rename": {"a": "b", "b": "a"}}}


@pytest.mark.parametrize(
    ("body", "row"),
    [
        ('{"a":1,"b":2,"c":"x"}', {"b": 1, "a": 2, "c": "x"}),
        ('{"a" : 1, "b": 2}', {"b": 1, "a": 2}),
        ('{"b":2}', {"a": 2}),
        (r'{"a":1,"b":2,"c":"\"a\":5"}', {"b": 1, "a": 2, "c": '"a":5'}),
        (r'{"\u0061":1,"b":2}', {"b": 1, "a": 2}),
    ],
)
def test_keys_are_renamed_even_if_they_contain_json_escapes(body: str, row: dict[str, Any]) -> None:
    codec = compiled(SWAP, schema=SWAPPED)

    assert json.loads(codec.read_row(body.encode())[1]) == row


@pytest.mark.parametrize(
    "body", ['{"a":1,"a":3,"b":2}', '{"a":1,"b":2,"c":"x","a":3}', r'{"a":1,"b":2,"c":"x","\u0061":3}', '{"z":1,"z":2}']
)
@pytest.mark.parametrize("unknown", ["ignore", "error"])
def test_a_name_that_occurs_twice_is_rejected(body: str, unknown: str) -> None:
    codec = compiled({"request": {**SWAP["request"], "on_unknown": unknown}}, schema=SWAPPED)

    with pytest.raises(InvalidRows) as caught:
        codec.read_row(body.encode())

    assert caught.value.problems[0].code == "duplicate-key"


def test_a_key_that_merely_ends_with_a_renamed_key_is_unknown() -> None:
    codec = compiled(SWAP, schema=SWAPPED)

    with pytest.raises(InvalidRows) as caught:
        codec.read_row(rb'{"z\"a":1,"b":2}')

    assert [(problem.column, problem.code) for problem in caught.value.problems] == [('z"a', "unknown-column")]


def test_problems_use_the_field_names_of_the_client() -> None:
    codec = compiled({"request": {"rename": {"x": "a"}}}, schema=SWAPPED)

    with pytest.raises(InvalidRows) as caught:
        codec.read_row(b'{"x": "one", "b": 2}')

    assert [problem.column for problem in caught.value.problems] == ["x"]


def test_the_row_limit_applies_to_single_requests_and_to_whole_batches() -> None:
    codec = compiled({"request": {"form": "matrix", "path": "d"}})
    row = [1, "2020-01-01", True, "Bonn"]

    for read, body in ((codec.read, {"d": [row] * 3}), (codec.read_batch, {"requests": [{"d": [row] * 2}] * 2})):
        with pytest.raises(BodyError) as caught:
            read(json.dumps(body).encode(), 2)
        assert caught.value.slug == "too-many-rows"


def test_every_template_in_the_reference_compiles_and_reads_its_own_example() -> None:
    page = REFERENCE.read_text(encoding="utf-8")
    templates = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    schema = Schema(tuple(Column(name=name, kind="number") for name in ("annual_income", "loan_amount")))
    decision = Decision(task="binary", classes=("Approved", "Rejected"))

    assert len(templates) == 5
    for text in templates:
        codec = compiled(PARSERS[".yaml"](text), decision, schema)
        body = codec.example({"annual_income": 1.0, "loan_amount": 2.0})
        assert len(codec.read(json.dumps(body).encode(), 10).rows) == 1


def test_every_placeholder_in_the_reference_exists() -> None:
    placeholders = set(re.findall(r"`(\$[a-z_]+)`", REFERENCE.read_text(encoding="utf-8")))

    assert {"$label", "$native", "$columns"} < placeholders
    for placeholder in placeholders - {"$rows", "$requests", "$reply"}:
        compiled({"reply": placeholder})


def test_a_matrix_may_contain_exactly_the_maximum_number_of_rows() -> None:
    codec = compiled({"request": {"path": "rows", "form": "matrix"}}, schema=SWAPPED)

    def read(rows: int) -> int:
        return len(codec.read(json.dumps({"rows": [[1, 2, "x"]] * rows}).encode(), 3).rows)

    assert read(3) == 3
    with pytest.raises(BodyError) as refused:
        read(4)
    assert refused.value.slug == "too-many-rows"
