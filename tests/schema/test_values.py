"""Canonical values of raw cells."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from rowcast.schema.values import (
    BadValue,
    boolean_from_text,
    canonical_text,
    date_parts,
    datetime_from_text,
    microseconds,
    number_from_text,
    type_name,
    within_float32,
)

ALL_FORMS = ("thousands", "currency", "percent", "plus")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (" red ", "red"),
        ("\u00a0red\u3000\ufeff", "red"),
        ("cafe\u0301", "caf\u00e9"),
        ("Red", "Red"),
        (15, "15"),
        (15.0, "15"),
        (-0.0, "0"),
        (1e20, "100000000000000000000"),
        (0.5, "0.5"),
        (True, "true"),
        (False, "false"),
    ],
)
def test_categories_are_converted_to_canonical_text(raw: Any, text: str) -> None:
    assert canonical_text(raw) == text


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("-5.", -5),
        ("+.5", 0.5),
        ("1e3", 1000),
        ("$1,250.00", 1250),
        ("-$5", -5),
        ("€ 5", 5),
        ("1,000,000", 1_000_000),
        ("95%", 95),
        ("-5 %", -5),
        ("3+", 3),
        ("1e999", math.inf),
    ],
)
def test_numbers_in_the_allowed_notations_are_parsed(text: str, number: float) -> None:
    assert number_from_text(text, ALL_FORMS) == number


@pytest.mark.parametrize(
    "text", ["", "1,00", "1 00", "1_000", "0x10", "inf", "nan", "١", "--1", ".", "1e", "$", "%", "5€$", "(5", "k"]
)
def test_a_string_that_is_not_a_number_is_parsed_as_none(text: str) -> None:
    assert number_from_text(text, ALL_FORMS) is None


@pytest.mark.parametrize("text", ["$5", "1,000", "95%", "3+"])
def test_numbers_in_notations_that_are_not_allowed_are_not_parsed(text: str) -> None:
    assert number_from_text(text) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T09:30:00Z", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
        ("2026-01-31t09:30z", datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
        ("2026-01-31 09:30:00.25+02:00", datetime(2026, 1, 31, 7, 30, 0, 250_000, tzinfo=UTC)),
        ("31/01/2026", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_dates_are_converted_to_utc(text: str, moment: datetime) -> None:
    assert datetime_from_text(text, ("%d/%m/%Y",), "UTC") == microseconds(moment, "UTC")


@pytest.mark.parametrize(
    "text", ["2026-02-30", "2026-1-3", "20260131", "01/31/2026", "now", "2026-01-31T25:00:00Z", ""]
)
def test_a_string_that_is_not_a_date_is_parsed_as_none(text: str) -> None:
    assert datetime_from_text(text, ("%d/%m/%Y",), "UTC") is None


def test_a_naive_date_is_interpreted_in_the_time_zone_of_the_column() -> None:
    winter = datetime_from_text("2026-01-31T12:00", (), "Europe/Berlin")
    summer = datetime_from_text("2026-07-31T12:00", (), "Europe/Berlin")

    assert winter == microseconds(datetime(2026, 1, 31, 11, tzinfo=UTC), "UTC")
    assert summer == microseconds(datetime(2026, 7, 31, 10, tzinfo=UTC), "UTC")


def test_an_offset_overrides_the_time_zone_of_the_column() -> None:
    moment = datetime(2026, 1, 31, 12, tzinfo=timezone(timedelta(hours=-5)))

    assert microseconds(moment, "Europe/Berlin") == microseconds(moment, "UTC")


def test_a_date_is_split_into_days_month_weekday_and_hour() -> None:
    origin = microseconds(datetime(2026, 1, 1, tzinfo=UTC), "UTC")
    sunday = microseconds(datetime(2026, 2, 1, 18, tzinfo=UTC), "UTC")

    assert date_parts(sunday, origin) == (31.75, 2, 6, 18)
    assert date_parts(origin, sunday)[0] == -31.75


@pytest.mark.parametrize(
    ("text", "value"),
    [("TRUE", True), ("False", False), ("Yes", True), ("NO", False), ("t", None), ("", None), ("1", None)],
)
def test_boolean_words_are_parsed_regardless_of_case(text: str, value: bool | None) -> None:
    assert boolean_from_text(text, {"yes": True, "no": False}) is value


@pytest.mark.parametrize("value", [0.0, -0.0, 3.4028234663852886e38, -3.4028235e38, 10**38, 1e-320])
def test_values_within_the_float32_range_are_returned_unchanged(value: float) -> None:
    assert within_float32(value) == value


@pytest.mark.parametrize("value", [3.4028236e38, -3.5e38, 1e308, math.inf, -math.inf, 10**39, -(10**400)])
def test_values_outside_the_float32_range_are_rejected_as_too_large(value: float) -> None:
    with pytest.raises(BadValue) as caught:
        within_float32(value)

    assert caught.value.code == "too-large"


def test_nan_is_rejected_as_not_finite() -> None:
    with pytest.raises(BadValue) as caught:
        within_float32(math.nan)

    assert caught.value.code == "not-finite"


def test_types_are_named_as_in_json() -> None:
    assert [type_name(raw) for raw in (None, True, 1, 1.5, "a", [1], {})] == [
        *("null", "boolean", "number", "number", "text", "list", "object")
    ]
