"""What a person writes to select history, and the cursors of its pages."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.errors import RequestError
from rowcast.history.entry_filter import Selection, after_cursor, cursor, first_id, moment
from rowcast.history.service import selection
from rowcast.schema.identity import uuid7_randomness, uuid7s

NOON = 1_769_860_800_000


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("2026-01-31", NOON - 12 * 3_600_000),
        ("2026-01-31T12:00:00Z", NOON),
        ("2026-01-31T13:00:00+01:00", NOON),
        ("2026-01-31T13:00:00 01:00", NOON),  # a plus that a query string turned into a blank
        ("2026-01-31 12:00", NOON),
        ("2026-01-31T12:00:00.250Z", NOON + 250),
        ("1970-01-01", 0),
    ],
)
def test_a_time_is_rfc_3339_or_a_date_in_utc(text: str, milliseconds: int) -> None:
    assert moment(text) == milliseconds


@pytest.mark.parametrize(
    "text", ["", "yesterday", "31.01.2026", "2026-13-01", "1969-12-31", "12:00", "1769860800", "0001-01-01"]
)
def test_what_is_no_time_is_refused_in_words(text: str) -> None:
    with pytest.raises(RequestError, match=f"since: {re.escape(repr(text))} is no time") as refused:
        selection(since=text)

    assert refused.value.slug == "bad-option"


def test_a_range_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(RequestError, match="lies behind"):
        selection(since="2026-02-01", until="2026-01-01")


@given(st.integers(0, (1 << 48) - 1), st.binary(min_size=9, max_size=9))
def test_the_first_id_of_a_moment_is_below_all_ids_of_it_and_above_all_before(at: int, random: bytes) -> None:
    (made,) = uuid7s(at, random)

    assert first_id(at) <= made
    assert at == (1 << 48) - 1 or made < first_id(at + 1)


def test_a_cursor_leads_back_to_its_id_for_the_same_selection_alone() -> None:
    (made,) = uuid7s(NOON, bytes(range(uuid7_randomness(1))))
    given = cursor(made, Selection(model="loans"))

    assert after_cursor(given, Selection(model="loans")) == made
    assert made not in given
    with pytest.raises(ValueError, match="other filters"):
        after_cursor(given, Selection())


@pytest.mark.parametrize("text", ["", "abc", "AAAA" * 7, "ä", "018bcfe5-6803-7000-8000-000000000003", "=" * 28])
def test_what_is_no_cursor_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        after_cursor(text, Selection())
