"""Errors as HTTP: the only place that knows which slug has which status (RFC 9457 problem details)."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import msgspec

from rowcast.errors import InvalidRows, MethodNotAllowed, OverQuota, RowcastError

CONTENT_TYPE = b"application/problem+json"
STATUS_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}
RETRY_AFTER_SECONDS = 1

STATUS = {
    "malformed-body": 400,
    "empty-body": 400,
    "too-deep": 400,
    "bad-option": 400,
    "bad-request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "cross-origin": 403,
    "not-found": 404,
    "model-not-found": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "repeat-in-flight": 409,
    "body-too-large": 413,
    "unsupported-media-type": 415,
    "unsupported-encoding": 415,
    "invalid-row": 422,
    "no-answer": 422,
    "wrong-shape": 422,
    "not-an-object": 422,
    "no-rows": 422,
    "too-many-rows": 422,
    "repeat-differs": 422,
    "over-quota": 429,
    "head-too-large": 431,
    "not-supported": 501,
    "overloaded": 503,
    "not-ready": 503,
    "unavailable": 503,
    "disk-low": 503,
    "not-stored": 503,
    "too-late": 504,
}
TITLES = {
    "malformed-body": "The body is not JSON",
    "empty-body": "The body is empty",
    "too-deep": "The JSON is nested too deeply",
    "bad-option": "An option cannot be used like this",
    "bad-request": "The request cannot be answered as sent",
    "unauthorized": "A good key is needed",
    "forbidden": "The key is not for this",
    "cross-origin": "A page of another origin may not do this",
    "not-found": "There is nothing here",
    "model-not-found": "There is no such model",
    "method-not-allowed": "This address does not take that method",
    "request-timeout": "The request took too long to arrive",
    "repeat-in-flight": "The first request with this Idempotency-Key is not answered yet",
    "body-too-large": "The body is too large",
    "unsupported-media-type": "The body must be JSON",
    "unsupported-encoding": "The body is packed in a way that is not known",
    "invalid-row": "The row does not fit the model",
    "no-answer": "The model has no answer for the row",
    "wrong-shape": "The request has another shape than the model's",
    "not-an-object": "The body must be a JSON object",
    "no-rows": "There are no rows",
    "too-many-rows": "There are too many rows",
    "repeat-differs": "The Idempotency-Key was used for another request",
    "over-quota": "The quota is used up",
    "head-too-large": "The head of the request is too large",
    "not-supported": "This is not offered here",
    "not-ready": "No model is loaded and proven yet",
    "overloaded": "Too much is waiting already",
    "unavailable": "A part that is needed does not answer",
    "disk-low": "The disk of history is nearly full",
    "not-stored": "The store did not take the prediction in time",
    "too-late": "The time that the caller gave is up",
    "internal": "Something went wrong on our side",
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457, with every error of every row."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[Any] = []


def slug(error: Exception) -> str:
    """What an error is called outside."""
    return error.slug if isinstance(error, RowcastError) and error.slug in STATUS else "internal"


def problem(error: Exception, request_id: str) -> Problem:
    """What the caller may know of an error; a fault of ours shows nothing but the request's id."""
    name, detail = slug(error), str(error)
    if name == "internal":
        detail = "The request was not answered; its id leads to the reason in the server's log."
    return Problem(
        f"urn:rowcast:error:{name}",
        TITLES[name],
        STATUS.get(name, 500),
        detail,
        f"urn:rowcast:request:{request_id}",
        list(error.problems) if isinstance(error, InvalidRows) else [],
    )


ErrorForm = Callable[[Problem], tuple[int, bytes]]
"""Writes a problem as a dialect's own JSON; also returns the status that goes with it."""


def answer(
    error: Exception, request_id: str, form: ErrorForm | None = None
) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Status, body and headers for an error."""
    found = problem(error, request_id)
    headers = [(b"content-type", CONTENT_TYPE if form is None else b"application/json")]
    if found.status in (409, 503):
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
    if isinstance(error, OverQuota) and error.seconds:
        headers.append((b"retry-after", b"%d" % error.seconds))
    if found.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="rowcast"'))
    if found.type.endswith(":unsupported-encoding"):
        headers.append((b"accept-encoding", b"gzip, deflate, identity"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    status, body = (found.status, msgspec.json.encode(found)) if form is None else form(found)
    return status, body, headers
