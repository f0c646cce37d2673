"""The classes and messages of client errors."""

from __future__ import annotations

import pytest

from rowcast.client import errors
from rowcast.client.exchange import error_of
from rowcast.errors import ValueProblem
from support.exchanges import problem_reply


@pytest.mark.parametrize(
    ("status", "slug", "kind"),
    [
        (400, "bad-option", errors.ErrorReply),
        (401, "unauthorized", errors.AccessDenied),
        (403, "forbidden", errors.AccessDenied),
        (404, "model-not-found", errors.ResourceNotFound),
        (409, "repeat-in-flight", errors.IdempotencyConflict),
        (422, "repeat-differs", errors.IdempotencyConflict),
        (422, "invalid-row", errors.RowsRejected),
        (422, "no-answer", errors.RowsRejected),
        (429, "over-quota", errors.QuotaExceeded),
        (500, "error", errors.InternalServerError),
        (503, "overloaded", errors.ServerUnavailable),
        (504, "too-late", errors.DeadlineExceeded),
    ],
)
def test_the_error_class_depends_on_the_slug_or_on_the_status_if_the_slug_is_unknown(
    status: int, slug: str, kind: type[errors.ErrorReply]
) -> None:
    error = error_of(problem_reply(status, slug, "7"), "http://server")

    assert type(error) is kind
    assert isinstance(error, errors.ErrorReply)
    assert (error.status, error.slug, error.request_id, error.retry_after) == (status, slug, "r", 7.0)
    assert error.detail == "secret"
    assert "secret" not in str(error)


def test_rejected_rows_are_summarized_without_values() -> None:
    problems = [ValueProblem("age", "wrong-type", "must be a number", got="secret", row=row) for row in range(7)]

    error = errors.RowsRejected(422, "invalid-row", "Invalid rows", detail="secret", problems=problems, request_id="r")

    assert str(error) == (
        "Invalid rows: row 0 age (wrong-type), row 1 age (wrong-type), row 2 age (wrong-type), row 3 age (wrong-type), "
        "row 4 age (wrong-type), and 2 more (422 invalid-row) [request r]"
    )
    assert error.by_column == {"age": problems}


def test_a_long_column_name_is_shortened() -> None:
    error = errors.RowsRejected(422, "invalid-row", "Invalid rows", problems=[ValueProblem("x" * 500, "missing", "")])

    assert len(str(error)) < 200
