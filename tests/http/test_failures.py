"""Failed requests: their responses, log lines and events."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from rowcast.errors import HistoryError, NotFound, Overloaded, TooLate
from rowcast.events import Event, RequestFailed
from rowcast.http.failures import COLD_HEADERS, Failures

IDS = {"request_id": "r1", "trace_id": "t1"}


def test_the_security_headers_follow_the_headers_of_the_problem() -> None:
    events: list[Event] = []
    with capture_logs() as lines:
        status, body, headers = Failures(events.append, 60).answer(
            NotFound("unknown path"), IDS, None, known_path="/x", has_own_deadline=False
        )

    assert (status, b"urn:rowcast:request:r1" in body) == (404, True)
    assert headers == [(b"content-type", b"application/problem+json"), *COLD_HEADERS]
    assert (lines, events) == ([], [RequestFailed("not-found")])


@pytest.mark.parametrize("error", [ZeroDivisionError("secret"), HistoryError("secret")])
@pytest.mark.parametrize("path", ["/predict", ""])
def test_an_internal_error_is_logged_with_its_ids_and_its_path_if_it_is_known(error: Exception, path: str) -> None:
    with capture_logs() as lines:
        Failures(lambda event: None, 60).answer(error, IDS, None, known_path=path, has_own_deadline=False)

    (line,) = lines
    known = {"path": path} if path else {}
    assert line == {"event": "request failed", "log_level": "error", "exc_info": error, **IDS, **known}


@pytest.mark.parametrize(("has_own_deadline", "slug"), [(True, "too-late"), (False, "overloaded")])
def test_a_request_without_its_own_deadline_that_waits_too_long_reports_overload(
    *, has_own_deadline: bool, slug: str
) -> None:
    events: list[Event] = []

    status, body, _ = Failures(events.append, 2.5).answer(
        TooLate("late"), IDS, None, known_path="", has_own_deadline=has_own_deadline
    )

    assert events == [RequestFailed(slug)]
    assert status == (504 if has_own_deadline else 503)
    assert (b"waited for more than 2.5 s; retry after 1 s" in body) is not has_own_deadline


def test_other_errors_do_not_depend_on_the_deadline() -> None:
    events: list[Event] = []
    _, body, _ = Failures(events.append, 2).answer(Overloaded("full"), IDS, None, known_path="", has_own_deadline=False)

    assert b'"detail":"full"' in body
