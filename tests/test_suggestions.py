"""Suggestions for misspelled names."""

from __future__ import annotations

import pytest

from rowcast.suggestions import MAX_NAMES, did_you_mean

NAMES = ("age", "annual_income", "Loan Amount")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("anual_income", "did you mean 'annual_income'?"),
        ("loan amount", "did you mean 'Loan Amount'?"),
        ("ages", "did you mean 'age'?"),
        ("income", ""),
        ("zzz", ""),
        ("", ""),
        ("x" * 10_000, ""),
    ],
)
def test_only_a_close_name_is_suggested(name: str, hint: str) -> None:
    assert did_you_mean(name, NAMES) == hint


def test_several_names_can_be_suggested() -> None:
    assert did_you_mean("rate", ("rate1", "rate2", "other"), 2) == "did you mean 'rate2' or 'rate1'?"


def test_long_lists_are_not_searched() -> None:
    assert did_you_mean("c1x", tuple(f"c{number}" for number in range(MAX_NAMES + 1))) == ""
