"""Handle failed requests: convert errors into responses, log internal errors and report every failure."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from rowcast.errors import Overloaded, RowcastError, TooLate
from rowcast.events import Listener, RequestFailed
from rowcast.http import problems
from rowcast.http.routes import Headers

COLD_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-cache"),
]
"""The security headers of pages and problem responses. A response's own headers take precedence."""

log = structlog.get_logger("rowcast.http")


class Failures:
    """Builds the responses to failed requests, on both the quick path and the general path."""

    def __init__(self, listen: Listener, wait_seconds: float) -> None:
        self._listen = listen
        self._wait_seconds = wait_seconds

    def answer(
        self,
        error: Exception,
        ids: Mapping[str, str],
        form: problems.ErrorForm | None,
        *,
        known_path: str,
        has_own_deadline: bool,
    ) -> tuple[int, bytes, Headers]:
        """Return the status, body and headers of the response.

        Internal errors are logged with `known_path`, which is empty if the path may contain client data.
        """
        if isinstance(error, TooLate) and not has_own_deadline:
            error = Overloaded(
                f"the server is overloaded: the request waited for more than {self._wait_seconds:g} s; retry after 1 s"
            )
        status, body, headers = problems.answer(error, ids["request_id"], form)
        if not isinstance(error, RowcastError) or status == 500:
            path = {"path": known_path} if known_path else {}
            log.error("request failed", **ids, **path, exc_info=error)
        self._listen(RequestFailed(problems.slug(error)))
        return status, body, [*headers, *COLD_HEADERS]
