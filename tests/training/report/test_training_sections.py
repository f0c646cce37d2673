"""The training sections summarize the values of each column in a few words."""

from __future__ import annotations

import pytest

from rowcast.schema.schema import Column
from rowcast.training.report.training_sections import describe_values


@pytest.mark.parametrize(
    ("column", "summary"),
    [
        (Column(name="purpose", kind="category", levels=("car", "home")), "car, home"),
        (
            Column(name="city", kind="category", levels=tuple("abcdefghij")),
            "a, b, c, d, e, f, g, h and 2 more",
        ),
        (Column(name="income", kind="number", low=0.5, high=1_000_000.0), "0.5 to 1000000"),
        (Column(name="married", kind="boolean"), "true, false"),
        (Column(name="married", kind="boolean", words=("no", "yes")), "no, yes"),
        (Column(name="income", kind="number"), ""),
    ],
)
def test_the_values_of_a_column_are_summarized(column: Column, summary: str) -> None:
    assert describe_values(column) == summary
