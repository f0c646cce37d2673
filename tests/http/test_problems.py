"""Errors as HTTP: each slug has one status and one title, and a fault of ours shows nothing."""

from __future__ import annotations

import msgspec
import pytest

from rowcast import errors
from rowcast.errors import InvalidRows, NoAnswer, Overloaded, RowcastError, ValueProblem
from rowcast.http import problems
from rowcast.http.dialects.scoring import summary


def subclasses(kind: type[RowcastError]) -> list[type[RowcastError]]:
    """The kinds of one tree; the client has one of its own, which never becomes a reply."""
    own = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(found for child in own for found in subclasses(child))]


def test_every_status_has_a_title() -> None:
    assert problems.STATUS.keys() | {"internal"} == problems.TITLES.keys()


@pytest.mark.parametrize("kind", subclasses(errors.RequestError), ids=lambda kind: kind.__name__)
def test_every_mistake_of_a_request_has_a_status_of_its_own(kind: type[RowcastError]) -> None:
    assert 400 <= problems.STATUS[kind.slug] < 500


@pytest.mark.parametrize("kind", subclasses(RowcastError), ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree(kind: type[RowcastError]) -> None:
    assert errors.__doc__ is not None
    assert f" {kind.__name__}" in errors.__doc__ or kind is RowcastError


def test_a_problem_carries_every_error_of_every_row() -> None:
    found = [ValueProblem("a", "missing", "is required"), ValueProblem("b", "wrong-type", "must be", "x", 3)]

    status, body, headers = problems.answer(InvalidRows(found), "r1")

    document = msgspec.json.decode(body)
    assert status == document["status"] == 422
    assert (b"content-type", b"application/problem+json") in headers
    assert document["errors"] == [
        {"column": "a", "code": "missing", "message": "is required"},
        {"column": "b", "code": "wrong-type", "message": "must be", "got": "x", "row": 3},
    ]
    assert document["type"] == "urn:rowcast:error:invalid-row"
    assert document["instance"] == "urn:rowcast:request:r1"


def test_overload_says_when_to_try_again() -> None:
    status, _, headers = problems.answer(Overloaded("too much waits"), "r1")

    assert status == 503
    assert b"retry-after" in dict(headers)


@pytest.mark.parametrize("error", [RuntimeError("secret"), errors.BundleError("secret"), errors.HistoryError("secret")])
def test_a_fault_of_ours_shows_nothing(error: Exception) -> None:
    status, body, _ = problems.answer(error, "r1")

    assert status == 500
    assert b"secret" not in body
    assert msgspec.json.decode(body)["type"] == "urn:rowcast:error:internal"


def test_a_problem_of_a_whole_row_names_no_column() -> None:
    problem = problems.problem(NoAnswer([2, 5]), "r1")

    assert summary(problem) == (
        "row 2: the model has no valid output for this row; row 5: the model has no valid output for this row"
    )
