"""Parsing durations."""

from __future__ import annotations

import pytest

from rowcast.access.durations import parse_duration
from rowcast.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90d", 90 * 86_400), ("3h", 10_800), ("5m", 300), ("7s", 7), ("0s", 0), ("9999999s", 9_999_999)],
)
def test_valid_durations_are_parsed(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "90", "-1d", "", "1w", "10000000s", "1d ", "1.5d"])
def test_the_error_for_an_invalid_duration_quotes_the_value(text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        parse_duration(text)

    assert repr(text) in refused.value.message
