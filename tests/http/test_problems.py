"""Errors as HTTP responses: each slug has a status and a title, and internal errors reveal no details."""

from __future__ import annotations

import msgspec
import pytest

from rowcast import errors
from rowcast.errors import InvalidRows, Overloaded, RowcastError, ValueProblem
from rowcast.http import problems


def subclasses(kind: type[RowcastError]) -> list[type[RowcastError]]:
    """Return a class and its subclasses in `rowcast.errors`; the client's errors are a separate tree."""
    own = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(descendant for child in own for descendant in subclasses(child))]


def test_every_slug_has_a_status_and_a_title() -> None:
    assert problems.STATUS.keys() | {"internal"} == problems.TITLES.keys()


@pytest.mark.parametrize("kind", subclasses(errors.RequestError), ids=lambda kind: kind.__name__)
def test_every_request_error_has_a_4xx_status(kind: type[RowcastError]) -> None:
    assert 400 <= problems.STATUS[kind.slug] < 500


@pytest.mark.parametrize("kind", subclasses(RowcastError), ids=lambda kind: kind.__name__)
def test_the_error_tree_in_the_docstring_is_complete(kind: type[RowcastError]) -> None:
    assert errors.__doc__ is not None
    assert f" {kind.__name__}" in errors.__doc__ or kind is RowcastError


def test_a_problem_lists_every_error_in_every_row() -> None:
    row_problems = [ValueProblem("a", "missing", "is required"), ValueProblem("b", "wrong-type", "must be", "x", 3)]

    status, body, headers = problems.answer(InvalidRows(row_problems), "r1")

    document = msgspec.json.decode(body)
    assert status == document["status"] == 422
    assert (b"content-type", b"application/problem+json") in headers
    assert document["errors"] == [
        {"column": "a", "code": "missing", "message": "is required"},
        {"column": "b", "code": "wrong-type", "message": "must be", "got": "x", "row": 3},
    ]
    assert document["type"] == "urn:rowcast:error:invalid-row"
    assert document["instance"] == "urn:rowcast:request:r1"


def test_an_overloaded_response_includes_a_retry_after_header() -> None:
    status, _, headers = problems.answer(Overloaded("too many rows are waiting"), "r1")

    assert status == 503
    assert b"retry-after" in dict(headers)


@pytest.mark.parametrize("error", [RuntimeError("secret"), errors.BundleError("secret"), errors.HistoryError("secret")])
def test_an_internal_error_reveals_no_details(error: Exception) -> None:
    status, body, _ = problems.answer(error, "r1")

    assert status == 500
    assert b"secret" not in body
    assert msgspec.json.decode(body)["type"] == "urn:rowcast:error:internal"
