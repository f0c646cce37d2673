"""Number formats for pages."""

from __future__ import annotations

import math

from rowcast.templates.numbers import abbreviate_number, format_number


def test_large_and_small_numbers_are_abbreviated() -> None:
    values = (0, 0.25, -1200, 45_000, 1.5e7, 2e9, 1e-7, 1e38)

    assert [abbreviate_number(value) for value in values] == [
        "0",
        "0.25",
        "-1,200",
        "45k",
        "15M",
        "2G",
        "1e-07",
        "1e+38",
    ]


def test_numbers_are_formatted_with_four_or_five_significant_digits() -> None:
    assert [format_number(value) for value in (0.97561, 18.627, math.nan, 0.0)] == ["0.9756", "18.627", "–", "0"]
