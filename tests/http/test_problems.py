"""Errors as HTTP responses: each slug has a status and a title, and internal errors reveal no details."""

from __future__ import annotations

import msgspec
import pytest

from rowcast import errors
from rowcast.errors import InvalidRows, Overloaded, RowcastError, ValueProblem
from rowcast.http import problems


def subclasses(kind: type[RowcastError]) -> list[type[RowcastError]]:
    """Return a class and its subclasses in `rowcast.errors`. The client's errors, a separate tree, are omitted."""
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


STATUS = {
    400: "malformed-body empty-body too-deep bad-option bad-request",
    401: "unauthorized",
    403: "forbidden cross-origin local-only host-not-allowed",
    404: "not-found model-not-found",
    405: "method-not-allowed",
    408: "request-timeout",
    409: "repeat-in-flight job-not-done",
    413: "body-too-large",
    415: "unsupported-media-type unsupported-encoding",
    422: "invalid-row no-answer wrong-shape not-an-object no-rows too-many-rows repeat-differs",
    429: "over-quota",
    431: "head-too-large",
    501: "not-supported",
    503: "overloaded not-ready unavailable disk-low not-stored idempotency-unavailable queue-unavailable no-worker "
    "worker-failed",
    504: "too-late",
    505: "unsupported-version",
}


def test_clients_can_rely_on_the_status_of_every_slug() -> None:
    assert {slug: status for status, slugs in STATUS.items() for slug in slugs.split()} == problems.STATUS


JSON = (b"content-type", b"application/problem+json")


@pytest.mark.parametrize(
    ("error", "headers"),
    [
        (errors.BodyError("no"), [JSON]),
        (Overloaded("no"), [JSON, (b"retry-after", b"1")]),
        (errors.RepeatConflict("no", slug="repeat-in-flight"), [JSON, (b"retry-after", b"1")]),
        (errors.RepeatConflict("no", slug="repeat-differs"), [JSON]),
        (errors.OverQuota("no", 7), [JSON, (b"retry-after", b"7")]),
        (errors.OverQuota("no", 0), [JSON]),
        (errors.Unauthorized("no"), [JSON, (b"www-authenticate", b'Bearer realm="rowcast"')]),
        (
            errors.RequestError("no", slug="unsupported-encoding"),
            [JSON, (b"accept-encoding", b"gzip, deflate, identity")],
        ),
        (errors.MethodNotAllowed("GET"), [JSON, (b"allow", b"GET")]),
        (ZeroDivisionError("no"), [JSON]),
    ],
    ids=lambda value: getattr(value, "slug", None) or type(value).__name__,
)
def test_an_error_response_has_the_headers_of_its_status(error: Exception, headers: list[tuple[bytes, bytes]]) -> None:
    assert problems.answer(error, "r1")[2] == headers


def test_a_dialect_replaces_the_body_the_status_and_the_content_type() -> None:
    seen: list[problems.Problem] = []

    def form(problem: problems.Problem) -> tuple[int, bytes]:
        seen.append(problem)
        return 418, b"teapot"

    status, body, headers = problems.answer(Overloaded("wait"), "r1", form)

    assert (status, body) == (418, b"teapot")
    assert headers == [(b"content-type", b"application/json"), (b"retry-after", b"1")]
    assert seen == [
        problems.Problem("urn:rowcast:error:overloaded", "Server overloaded", 503, "wait", "urn:rowcast:request:r1", [])
    ]


def test_a_problem_without_row_errors_has_no_list_of_errors() -> None:
    _, body, _ = problems.answer(ZeroDivisionError("secret"), "r1")

    assert msgspec.json.decode(body) == {
        "type": "urn:rowcast:error:internal",
        "title": "Internal server error",
        "status": 500,
        "detail": "an internal error occurred; search the server log for the request id to find the cause",
        "instance": "urn:rowcast:request:r1",
    }


def test_status_lines_contain_the_reason() -> None:
    assert problems.STATUS_LINES[200] == b"HTTP/1.1 200 OK\r\n"
    assert problems.STATUS_LINES[504] == b"HTTP/1.1 504 Gateway Timeout\r\n"
