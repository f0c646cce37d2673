"""Errors: slugs, and messages derived from fields."""

from __future__ import annotations

import pytest

from rowcast import errors
from rowcast.errors import InvalidRows, NoAnswer, RequestError, RowcastError, ValueProblem


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (ValueProblem("tenure", "wrong-type", "expected a number"), "column 'tenure': expected a number"),
        (ValueProblem("tenure", "wrong-type", "expected a number", row=3), "row 3, column 'tenure': expected a number"),
        (ValueProblem("", "no-answer", "no output", row=3), "row 3: no output"),
        (ValueProblem("", "no-answer", "no output"), "no output"),
    ],
)
def test_a_problem_names_its_row_and_column(problem: ValueProblem, text: str) -> None:
    assert str(problem) == text


def test_the_error_message_for_invalid_rows_shows_the_first_problem() -> None:
    problems = [ValueProblem("a", "missing", "value is required", row=row) for row in (2, 5, 7)]

    assert InvalidRows(problems).message == "row 2, column 'a': value is required (and 2 more)"
    assert InvalidRows(problems[:1]).message == "row 2, column 'a': value is required"


def test_the_error_for_rows_without_a_score_contains_a_problem_for_each_row() -> None:
    error = NoAnswer([2, 5])

    assert error.rows == [2, 5]
    assert [(problem.code, problem.row) for problem in error.problems] == [("no-answer", 2), ("no-answer", 5)]


def test_the_problem_in_a_single_row_request_has_no_row_number() -> None:
    (problem,) = NoAnswer([0], alone=True).problems

    assert not isinstance(problem.row, int)


def test_an_error_can_have_a_more_specific_slug_than_its_class() -> None:
    assert RequestError("no").slug == "bad-request"
    assert RequestError("no", slug="bad-option").slug == "bad-option"
    assert RequestError.slug == "bad-request"


def test_every_error_class_has_its_own_slug() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RowcastError)]

    assert len({each.slug for each in classes}) == len(classes)
