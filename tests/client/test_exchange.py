"""Client retries: conditions, delays and timeouts."""

from __future__ import annotations

import pytest

from rowcast.client import errors
from rowcast.client.exchange import HttpReply, HttpRequest, NoReply, retry_after, retry_pause
from support.exchanges import IN_FLIGHT, KEYED, POLICY, READ, SUCCESS, UNKEYED, play, problem_reply


@pytest.mark.parametrize(
    ("header", "date", "seconds"),
    [
        ("3", "", 3.0),
        ("0", "", 0.0),
        ("", "", None),
        ("-1", "", None),
        ("soon", "", None),
        ("Wed, 21 Oct 2026 07:28:10 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 10.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:10 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:28:10 GMT", "", None),
        ("9" * 500, "", 999_999_999.0),
    ],
)
def test_retry_after_is_parsed_as_seconds_or_as_a_date_relative_to_the_server_clock(
    header: str, date: str, seconds: float | None
) -> None:
    assert retry_after(HttpReply(503, {"retry-after": header, "date": date})) == seconds


def test_a_request_over_quota_is_retried_only_if_the_reply_has_a_retry_after_header() -> None:
    assert retry_pause(KEYED, problem_reply(429, "over-quota"), POLICY, retries=0, random=0.5) is None
    assert retry_pause(KEYED, problem_reply(429, "over-quota", "2"), POLICY, retries=0, random=0.5) == 2.125


def test_a_request_without_an_idempotency_key_is_sent_only_once() -> None:
    played = play(UNKEYED, [NoReply("connection refused", sent=False), SUCCESS])

    assert len(played.sent) == 1
    assert isinstance(played.error, errors.Unreachable)


def test_waiting_for_an_identical_request_in_progress_does_not_count_as_a_retry() -> None:
    overloaded = [problem_reply(503, "overloaded")] * POLICY.retries
    played = play(KEYED, [*[IN_FLIGHT] * 12, *overloaded, SUCCESS])
    exhausted = play(KEYED, [*[IN_FLIGHT] * 12, *overloaded, *overloaded])

    assert (len(played.sent), played.error) == (13 + POLICY.retries, None)
    assert len(exhausted.sent) == 13 + POLICY.retries
    assert isinstance(exhausted.error, errors.ServerUnavailable)


def test_the_wait_for_an_identical_request_is_short_but_no_shorter_than_retry_after() -> None:
    without_header, overloaded = problem_reply(409, "repeat-in-flight"), problem_reply(503, "overloaded")
    played = play(
        KEYED, [overloaded, overloaded, without_header, IN_FLIGHT, problem_reply(409, "repeat-in-flight", "0")]
    )

    first = POLICY.pause(0, 0.0)
    assert played.pauses[:5] == [first, 2 * first, first, 1.0, first]


def test_the_client_waits_for_an_identical_request_until_the_timeout() -> None:
    played = play(KEYED, [IN_FLIGHT])

    assert isinstance(played.error, errors.IdempotencyConflict)
    assert POLICY.timeout - 1.5 < played.now <= POLICY.timeout


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (KEYED, problem_reply(409, "stale", "1")),
        (KEYED, problem_reply(409, "repeat-differs", "1")),
        (KEYED, problem_reply(422, "repeat-differs", "1")),
        (KEYED, problem_reply(422, "repeat-in-flight", "1")),
        (KEYED, HttpReply(409, {"content-type": "text/html", "retry-after": "1"}, b"<html>")),
        (UNKEYED, IN_FLIGHT),
    ],
)
def test_other_conflicts_are_not_retried(request_: HttpRequest, reply: HttpReply) -> None:
    played = play(request_, [reply, SUCCESS])

    assert len(played.sent) == 1
    assert isinstance(played.error, errors.ErrorReply)


@pytest.mark.parametrize("status", [200, 409, 503])
def test_the_reply_to_a_failed_reload_is_returned_but_a_problem_document_raises_an_error(status: int) -> None:
    reload = HttpRequest("POST", "/models/reload", success_statuses=frozenset({200, 409, 503}))
    answered = play(reload, [HttpReply(status, {"content-type": "application/json"}, b"{}")])
    overloaded = play(reload, [problem_reply(503, "overloaded")])

    assert answered.error is None
    assert isinstance(overloaded.error, errors.ServerUnavailable)


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(502, {"content-type": "text/html"}, b"<html>"),
        HttpReply(503, {"content-type": "application/problem+json"}),
    ],
)
def test_a_request_is_retried_after_an_error_page_from_a_proxy(reply: HttpReply) -> None:
    played = play(READ, [reply])

    assert isinstance(played.error, errors.ServerUnavailable)
    assert (played.error.status, played.error.slug) == (reply.status, "http")
    assert len(played.sent) == POLICY.retries + 1


def test_a_redirect_raises_a_bad_reply_error() -> None:
    assert isinstance(play(READ, [HttpReply(308, {"location": "https://x"})]).error, errors.BadReply)


def test_the_timeout_sent_to_the_server_is_shorter_than_the_timeout_of_the_client() -> None:
    played = play(KEYED, [SUCCESS])
    ((_, send),) = played.sent

    assert send.seconds == POLICY.timeout
    assert float(send.request.headers["x-request-timeout"]) == POLICY.timeout - 0.25


def test_each_attempt_reserves_a_tenth_of_the_remaining_time_for_the_network_but_at_most_a_quarter_of_a_second() -> (
    None
):
    for _, send in play(KEYED, [IN_FLIGHT]).sent:
        reserved = send.seconds - float(send.request.headers["x-request-timeout"])
        assert reserved == pytest.approx(min(0.25, send.seconds / 10), abs=1e-5)


def test_a_retry_after_header_never_shortens_the_pause_before_a_retry() -> None:
    reply = problem_reply(503, "overloaded", "0")

    assert retry_pause(KEYED, reply, POLICY, retries=3, random=0.0) == POLICY.pause(3, 0.0)


def test_a_pause_that_would_last_until_the_timeout_is_not_started() -> None:
    played = play(KEYED, [problem_reply(503, "overloaded", f"{POLICY.timeout:.0f}"), SUCCESS], duration=0.0)

    assert (len(played.sent), played.pauses) == (1, [])
    assert isinstance(played.error, errors.ServerUnavailable)
