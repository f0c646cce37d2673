"""The schema: what is a row and what is not, in words a client can act on."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from rowcast.errors import InvalidRows
from rowcast.schema.schema import Column, Schema, shortened

SCHEMA = Schema(
    (
        Column(
            name="income",
            kind="number",
            forms=("currency",),
            low=0,
            high=9e5,
            label="Income",
            unit="USD",
            help="A year.",
        ),
        Column(name="children", kind="integer", missing=True, example=2),
        Column(name="owner", kind="boolean", words={"yes": True, "no": False}),
        Column(name="city", kind="category", levels=("Ulm", "Bonn"), sensitive=True),
        Column(name="plan", kind="category", levels=("a", "b"), closed=True, missing=True),
        Column(name="since", kind="datetime", forms=("%d.%m.%Y",)),
    )
)
ROW: dict[str, Any] = {"income": 5, "children": 1, "owner": "Yes", "city": "Ulm", "plan": "a", "since": "2026-01-31"}


def problems(row: dict[str, Any], *, text: bool = False) -> list[tuple[str, str]]:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse(row, text=text)
    return [(problem.column, problem.code) for problem in caught.value.problems]


def test_a_row_becomes_values_in_the_order_of_the_columns() -> None:
    values = SCHEMA.parse(dict(reversed(ROW.items())))

    assert values == [5.0, 1, True, "Ulm", "a", 1_769_817_600_000_000]
    assert [type(value) for value in values] == [float, int, bool, str, str, int]


def test_what_may_be_missing_is_none_in_every_way_of_being_missing() -> None:
    for cell in (None, "", "  ", "NA", "?"):
        assert SCHEMA.parse({**ROW, "children": cell})[1] is None
    assert SCHEMA.parse({name: cell for name, cell in ROW.items() if name not in ("children", "plan")})[1] is None


def test_an_empty_row_is_told_all_that_it_lacks() -> None:
    assert problems({}) == [(name, "missing") for name in ("income", "owner", "city", "since")]


def test_every_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "Income": 1, "x" * 500: 2})

    first, second = caught.value.problems
    assert (first.column, first.code) == ("Income", "unknown-column")
    assert "income, children" in first.message
    assert len(second.column) <= 200
    assert isinstance(first.got, msgspec.UnsetType)


def test_strings_are_numbers_only_where_a_form_was_seen_or_the_cell_is_text() -> None:
    assert SCHEMA.parse({**ROW, "income": "$1,250.00"})[0] == 1250
    assert problems({**ROW, "children": "2"}) == [("children", "wrong-type")]
    assert SCHEMA.parse({**ROW, "children": "2"}, text=True)[1] == 2


def test_a_whole_number_may_be_written_as_a_float() -> None:
    assert SCHEMA.parse({**ROW, "children": 2.0})[1] == 2
    assert problems({**ROW, "children": 2.5}) == [("children", "not-integer")]


def test_true_is_no_number_and_one_is_no_word() -> None:
    assert problems({**ROW, "income": True, "owner": 1}) == [("income", "wrong-type"), ("owner", "wrong-type")]


def test_unseen_categories_pass_unless_the_column_is_closed() -> None:
    assert SCHEMA.parse({**ROW, "city": "Atlantis"})[3] == "Atlantis"
    assert problems({**ROW, "plan": "c"}) == [("plan", "not-allowed")]


def test_a_moment_may_come_as_a_datetime() -> None:
    assert SCHEMA.parse({**ROW, "since": datetime(2026, 1, 31, tzinfo=UTC)})[5] == 1_769_817_600_000_000


def test_a_message_says_what_would_fit() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "income": "much", "owner": "perhaps", "plan": "z", "since": "soon"})

    said = {problem.column: problem.message for problem in caught.value.problems}
    assert "currency" in said["income"]
    assert "yes" in said["owner"]
    assert "a, b" in said["plan"]
    assert "%d.%m.%Y" in said["since"]
    assert "RFC 3339" in said["since"]


def test_what_was_got_is_shown_except_where_it_is_sensitive() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "income": "much", "city": ["Ulm"]})

    shown = {problem.column: problem.got for problem in caught.value.problems}
    assert shown["income"] == "much"
    assert isinstance(shown["city"], msgspec.UnsetType)
    assert "Ulm" not in msgspec.json.encode(caught.value.problems).decode()


def test_the_first_problem_is_the_errors_text() -> None:
    with pytest.raises(InvalidRows, match=r"^income: must be a number.* \(and 1 more\)$"):
        SCHEMA.parse({**ROW, "income": "much", "children": "x"})


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ("a" * 120, "a" * 120),
        ("a" * 121, "a" * 120 + "…"),
        (1 << 62, 1 << 62),
        (1 << 63, "integer of more than 64 bits"),
        ([1, 2], "list"),
        ({"a": 1}, "object"),
    ],
)
def test_what_is_shown_is_short(raw: Any, shown: Any) -> None:
    assert shortened(raw) == shown


def test_two_columns_cannot_have_one_name() -> None:
    with pytest.raises(ValueError, match="named twice: a"):
        Schema((Column(name="a", kind="number"), Column(name="a", kind="integer")))


def test_a_schema_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.json.decode(b'{"columns":[{"name":"a","kind":"number","colour":"red"}]}', type=Schema)


def test_the_json_schema_says_what_the_parser_takes() -> None:
    described = SCHEMA.json_schema()

    assert described["required"] == ["income", "owner", "city", "since"]
    assert described["additionalProperties"] is False
    assert described["properties"] == {
        "income": {
            "type": ["number", "string"],
            "title": "Income",
            "description": "A year. Unit: USD. Seen in training: 0 to 900000.",
        },
        "children": {"type": ["number", "null"], "multipleOf": 1, "examples": [2]},
        "owner": {"type": ["boolean", "string", "integer"]},
        "city": {
            "type": ["string", "number", "boolean"],
            "description": "Seen in training: Ulm, Bonn. Anything else is scored as unseen, with a warning.",
        },
        "plan": {"type": ["string", "null"], "enum": ["a", "b", None]}
        | {"description": described["properties"]["plan"]["description"]},
        "since": {"type": "string"},
    }


def test_a_closed_category_does_not_promise_to_score_anything_else() -> None:
    assert "Anything else" not in SCHEMA.json_schema()["properties"]["plan"]["description"]
