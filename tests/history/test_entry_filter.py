"""Parsing selections and page cursors."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.errors import RequestError
from rowcast.history.entry_filter import (
    Selection,
    decode_cursor,
    encode_cursor,
    first_id,
    milliseconds_of,
    parse_selection,
    parse_time,
    visible_to,
)
from rowcast.schema.identity import uuid7_randomness, uuid7s

NOON = 1_769_860_800_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-01-31", NOON - 12 * 3_600_000),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01-31T13:00:00 01:00", NOON),  # a plus sign in a query string is decoded as a space
        ("2026-01-31 12:00", NOON),
        ("2026-01-31T12:00:00.250Z", NOON + 250),
        ("1970-01-01", 0),
        ("9999-12-31T23:59:59.999-23:59", 253_402_387_139_999),
    ],
)
def test_a_time_can_be_an_rfc_3339_timestamp_or_a_date_in_utc(text: str, milliseconds: int) -> None:
    assert parse_time(text) == milliseconds


@pytest.mark.parametrize(("text", "seconds"), [("7d", 604_800), ("12h", 43_200), ("0s", 0)])
def test_a_time_can_be_an_age(text: str, seconds: int) -> None:
    before = int(time.time() * 1000)

    age = parse_time(text) + seconds * 1000

    assert before - 1 <= age <= int(time.time() * 1000)


def test_a_cursor_stays_valid_if_only_the_time_range_moves() -> None:
    (some_id,) = uuid7s(NOON, bytes(range(uuid7_randomness(1))))
    cursor = encode_cursor(some_id, Selection(model="loans", first=first_id(NOON)))

    assert decode_cursor(cursor, Selection(model="loans", first=first_id(NOON + 5))) == some_id


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "31.01.2026",
        "2026-13-01",
        "1969-12-31",
        "12:00",
        "1769860800",
        "0001-01-01",
        "1969-12-31T23:59:59.999Z",
    ],
)
@pytest.mark.parametrize("bound", ["since", "until"])
def test_the_error_for_an_invalid_time_names_the_option_and_quotes_the_value(bound: str, text: str) -> None:
    with pytest.raises(RequestError) as refused:
        parse_selection(**{bound: text})  # type: ignore[arg-type]

    assert refused.value.slug == "bad-option"
    assert refused.value.message.startswith(f"{bound}: {text!r}")


def test_a_range_that_ends_before_it_starts_is_rejected() -> None:
    with pytest.raises(RequestError) as refused:
        parse_selection(since="2026-02-01", until="2026-01-01")

    assert refused.value.slug == "bad-option"


def test_a_time_range_is_converted_to_a_range_of_ids() -> None:
    selection = parse_selection(model="m", since="2026-01-31T12:00:00Z", until="2026-02-01")

    assert selection == Selection(model="m", first=first_id(NOON), end=first_id(NOON + 12 * 3_600_000))


def test_visible_entries_are_limited_to_the_tenant_and_models_of_the_caller() -> None:
    assert visible_to(tenant=None, models=()) == Selection()
    assert visible_to(tenant="", models=()) == Selection(tenant="")
    assert visible_to(tenant="acme", models={"b", "a"}) == Selection(tenant="acme", models=("a", "b"))


@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=9, max_size=9))
def test_the_first_id_of_a_millisecond_sorts_after_all_earlier_ids_and_before_other_ids_of_that_millisecond(
    at: int, random: bytes
) -> None:
    (some_id,) = uuid7s(at, random)

    assert first_id(at) <= some_id
    assert milliseconds_of(some_id) == milliseconds_of(first_id(at)) == at
    assert at == (1 << 48) - 1 or some_id < first_id(at + 1)


def test_a_cursor_can_be_decoded_only_with_the_same_selection() -> None:
    (some_id,) = uuid7s(NOON, bytes(range(uuid7_randomness(1))))
    cursor = encode_cursor(some_id, Selection(model="loans"))

    assert decode_cursor(cursor, Selection(model="loans")) == some_id
    assert some_id not in cursor
    with pytest.raises(RequestError) as refused:
        decode_cursor(cursor, Selection())
    assert refused.value.slug == "bad-option"


@pytest.mark.parametrize("text", ["", "abc", "AAAA" * 7, "ä", "018bcfe5-6803-7000-8000-000000000003", "=" * 28])
def test_a_malformed_cursor_is_rejected(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        decode_cursor(text, Selection())
    assert refused.value.slug == "bad-option"


def test_a_cursor_from_an_earlier_release_is_still_valid() -> None:
    selection = Selection(model="loans", tenant="bank")
    cursor = "AZwT7J4AcACAAAAAAAAAAKJ33Nw"

    assert encode_cursor(first_id(NOON), selection) == cursor
    assert decode_cursor(cursor, selection) == first_id(NOON)
    assert len(cursor) == 27


def test_a_range_that_ends_when_it_starts_is_empty_but_valid() -> None:
    selection = parse_selection(since="2026-01-31", until="2026-01-31")

    assert selection.first == selection.end is not None


def test_the_error_for_an_invalid_time_quotes_at_most_forty_characters() -> None:
    with pytest.raises(RequestError) as refused:
        parse_selection(since="9" * 50)

    assert refused.value.message.startswith(f"since: {'9' * 40!r} ")
