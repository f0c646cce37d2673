"""Convert errors into HTTP responses. Only this module maps slugs to statuses."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

import msgspec

from rowcast.errors import InvalidRows, MethodNotAllowed, OverQuota, RowcastError, ValueProblem

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
    "local-only": 403,
    "host-not-allowed": 403,
    "not-found": 404,
    "model-not-found": 404,
    "method-not-allowed": 405,
    "request-timeout": 408,
    "repeat-in-flight": 409,
    "job-not-done": 409,
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
    "unsupported-version": 505,
    "overloaded": 503,
    "not-ready": 503,
    "unavailable": 503,
    "disk-low": 503,
    "queue-unavailable": 503,
    "no-worker": 503,
    "worker-failed": 503,
    "not-stored": 503,
    "idempotency-unavailable": 503,
    "too-late": 504,
}
TITLES = {
    "malformed-body": "Malformed request body",
    "empty-body": "Empty request body",
    "too-deep": "JSON nested too deeply",
    "bad-option": "Invalid option",
    "bad-request": "Bad request",
    "unauthorized": "Missing or invalid API key",
    "forbidden": "Permission denied",
    "cross-origin": "Cross-origin request refused",
    "local-only": "API key required for remote clients",
    "host-not-allowed": "Host not allowed",
    "not-found": "Not found",
    "model-not-found": "Model not found",
    "method-not-allowed": "Method not allowed",
    "request-timeout": "Request timed out",
    "repeat-in-flight": "First request with this Idempotency-Key still in progress",
    "job-not-done": "Job not done yet",
    "body-too-large": "Request body too large",
    "unsupported-media-type": "Unsupported media type",
    "unsupported-encoding": "Unsupported content encoding",
    "invalid-row": "Invalid row",
    "no-answer": "No valid prediction for the row",
    "wrong-shape": "Request does not match the wire template",
    "not-an-object": "JSON object expected",
    "no-rows": "No rows in the request",
    "too-many-rows": "Too many rows",
    "repeat-differs": "Idempotency-Key reused for a different request",
    "over-quota": "Quota exceeded",
    "head-too-large": "Request headers too large",
    "not-supported": "Not supported",
    "unsupported-version": "HTTP version not supported",
    "not-ready": "No model loaded yet",
    "overloaded": "Server overloaded",
    "unavailable": "Service unavailable",
    "disk-low": "Disk almost full",
    "queue-unavailable": "Queue unavailable",
    "no-worker": "No worker for this model",
    "worker-failed": "Workers cannot score the row",
    "not-stored": "Prediction not stored in time",
    "idempotency-unavailable": "Idempotency-Key store unavailable",
    "too-late": "Request deadline exceeded",
    "internal": "Internal server error",
}


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """RFC 9457 problem details. `errors` lists every problem in every row."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[ValueProblem] = []


ErrorForm = Callable[[Problem], tuple[int, bytes]]
"""A function that encodes a problem in a dialect's error format and returns the status and the body."""


def slug(error: Exception) -> str:
    """Return the slug that is reported to the client."""
    return error.slug if isinstance(error, RowcastError) and error.slug in STATUS else "internal"


def problem(error: Exception, request_id: str) -> Problem:
    """Return the problem details for an error. For an internal error, they reveal only the request id."""
    name, detail = slug(error), str(error)
    if name == "internal":
        detail = "an internal error occurred; search the server log for the request id to find the cause"
    return Problem(
        type=f"urn:rowcast:error:{name}",
        title=TITLES[name],
        status=STATUS.get(name, 500),
        detail=detail,
        instance=f"urn:rowcast:request:{request_id}",
        errors=list(error.problems) if isinstance(error, InvalidRows) else [],
    )


def answer(
    error: Exception, request_id: str, form: ErrorForm | None = None
) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    """Return the status, the body and the headers of an error response."""
    details = problem(error, request_id)
    headers = [(b"content-type", CONTENT_TYPE if form is None else b"application/json")]
    if details.status in (409, 503):
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_SECONDS))
    if isinstance(error, OverQuota) and error.seconds:
        headers.append((b"retry-after", b"%d" % error.seconds))
    if details.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="rowcast"'))
    if details.type.endswith(":unsupported-encoding"):
        headers.append((b"accept-encoding", b"gzip, deflate, identity"))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allowed.encode()))
    status, body = (details.status, msgspec.json.encode(details)) if form is None else form(details)
    return status, body, headers
