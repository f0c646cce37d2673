"""The schema: valid rows, problems in invalid rows, and JSON Schema."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from rowcast.errors import InvalidRows
from rowcast.schema.schema import Column, Schema, shortened
from rowcast.schema.values import BadValue

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


def test_a_row_is_parsed_into_values_in_column_order() -> None:
    values = SCHEMA.parse(dict(reversed(ROW.items())))

    assert values == [5.0, 1, True, "Ulm", "a", 1_769_817_600_000_000]
    assert [type(value) for value in values] == [float, int, bool, str, str, int]


def test_every_representation_of_a_missing_value_is_parsed_as_none() -> None:
    for cell in (None, "", "  ", "NA", "?"):
        assert SCHEMA.parse({**ROW, "children": cell})[1] is None
    assert SCHEMA.parse({name: cell for name, cell in ROW.items() if name not in ("children", "plan")})[1] is None


def test_every_missing_column_is_reported_for_an_empty_row() -> None:
    assert problems({}) == [(name, "missing") for name in ("income", "owner", "city", "since")]


def test_the_error_for_an_unknown_column_lists_the_known_columns() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "Income": 1, "x" * 500: 2})

    first, second = caught.value.problems
    assert (first.column, first.code) == ("Income", "unknown-column")
    assert "income, children" in first.message
    assert len(second.column) <= 200
    assert isinstance(first.got, msgspec.UnsetType)


def test_strings_are_parsed_as_numbers_only_in_csv_or_in_columns_with_number_notations() -> None:
    assert SCHEMA.parse({**ROW, "income": "$1,250.00"})[0] == 1250
    assert problems({**ROW, "children": "2"}) == [("children", "wrong-type")]
    assert SCHEMA.parse({**ROW, "children": "2"}, text=True)[1] == 2


def test_an_integer_column_accepts_floats_with_integral_values() -> None:
    assert SCHEMA.parse({**ROW, "children": 2.0})[1] == 2
    assert problems({**ROW, "children": 2.5}) == [("children", "not-integer")]


@pytest.mark.parametrize("text", [False, True])
def test_a_boolean_column_with_numbers_accepts_whole_floats(text: bool) -> None:
    column = Column(name="late", kind="boolean", words={"1": True, "0": False})

    assert [column.parse(raw, text=text) for raw in (1, 1.0, 0.0, "1")] == [True, True, False, True]
    with pytest.raises(BadValue):
        column.parse(0.5, text=text)


def test_booleans_are_rejected_as_numbers_and_numbers_are_rejected_as_booleans() -> None:
    assert problems({**ROW, "income": True, "owner": 1}) == [("income", "wrong-type"), ("owner", "wrong-type")]


def test_unseen_categories_are_valid_unless_the_column_is_closed() -> None:
    assert SCHEMA.parse({**ROW, "city": "Atlantis"})[3] == "Atlantis"
    assert problems({**ROW, "plan": "c"}) == [("plan", "not-allowed")]


def test_a_datetime_object_is_accepted() -> None:
    assert SCHEMA.parse({**ROW, "since": datetime(2026, 1, 31, tzinfo=UTC)})[5] == 1_769_817_600_000_000


def test_an_error_message_lists_the_values_that_the_column_accepts() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "income": "much", "owner": "perhaps", "plan": "z", "since": "soon"})

    messages = {problem.column: problem.message for problem in caught.value.problems}
    assert "currency" in messages["income"]
    assert "yes" in messages["owner"]
    assert "a, b" in messages["plan"]
    assert "%d.%m.%Y" in messages["since"]
    assert "RFC 3339" in messages["since"]


def test_a_problem_contains_the_received_value_unless_the_column_is_sensitive() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "income": "much", "city": ["Ulm"]})

    shown = {problem.column: problem.got for problem in caught.value.problems}
    assert shown["income"] == "much"
    assert isinstance(shown["city"], msgspec.UnsetType)
    assert "Ulm" not in msgspec.json.encode(caught.value.problems).decode()


def test_the_message_shows_the_first_problem_and_the_number_of_further_problems() -> None:
    with pytest.raises(InvalidRows) as caught:
        SCHEMA.parse({**ROW, "income": "much", "children": "x"})

    first, _ = caught.value.problems
    assert caught.value.message == f"{first} (and 1 more)"


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
def test_long_received_values_are_truncated(raw: Any, shown: Any) -> None:
    assert shortened(raw) == shown


def test_column_names_must_be_unique() -> None:
    with pytest.raises(ValueError, match=r"duplicate column names: a$"):
        Schema((Column(name="a", kind="number"), Column(name="a", kind="integer")))


def test_unknown_fields_in_a_schema_are_rejected() -> None:
    with pytest.raises(msgspec.ValidationError, match="colour"):
        msgspec.json.decode(b'{"columns":[{"name":"a","kind":"number","colour":"red"}]}', type=Schema)


def test_the_json_schema_matches_the_parser() -> None:
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
            "description": "Values that were not seen in training are accepted, with a warning.",
            "examples": ["example"],
        },
        "plan": {"type": ["string", "null"], "enum": ["a", "b", None]}
        | {"description": described["properties"]["plan"]["description"]},
        "since": {"type": "string"},
    }


def test_the_json_schema_shows_the_levels_of_a_category() -> None:
    described = Schema((Column(name="city", kind="category", levels=("Ulm", "Bonn")),)).json_schema()

    text = "Seen in training: Ulm, Bonn. Other values are treated as unseen, with a warning."
    assert described["properties"]["city"]["description"] == text


def test_a_sensitive_column_is_shown_without_values() -> None:
    column = Column(name="a", kind="integer", low=3.0, high=9.0, example=4, unit="EUR", sensitive=True)
    closed = Column(name="b", kind="category", levels=("y", "x"), closed=True, example="y", sensitive=True)
    optional = Column(name="c", kind="category", levels=("y",), missing=True, example="y", sensitive=True)

    assert column.shown() == Column(name="a", kind="integer", example=0, unit="EUR", sensitive=True)
    assert (closed.shown().levels, closed.shown().example) == (("y", "x"), "x")
    assert (optional.shown().levels, optional.shown().example) == ((), None)
    assert SCHEMA.columns[0].shown() == SCHEMA.columns[0]


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "category", "datetime"])
def test_the_example_of_a_sensitive_column_is_valid(kind: Any) -> None:
    column = Column(name="a", kind=kind, sensitive=True)

    column.parse(column.shown().example)


def test_the_json_schema_of_a_closed_category_does_not_mention_other_values() -> None:
    assert "Other values" not in SCHEMA.json_schema()["properties"]["plan"]["description"]


def test_columns_can_be_marked_as_sensitive_by_name() -> None:
    marked = SCHEMA.with_sensitive({"income"})

    assert [column.name for column in marked.columns if column.sensitive] == ["income", "city"]
    assert marked.names() == SCHEMA.names()
