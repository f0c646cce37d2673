"""When a client sends again: whatever the server and the network do, its rules hold. No IO; time is a number."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowcast.client import errors
from rowcast.client.exchange import (
    RETRIED_STATUSES,
    HttpReply,
    HttpRequest,
    NoReply,
    RetryPolicy,
    Send,
    Wait,
    exchange,
    retry_after,
    retry_pause,
)

ONCE = HttpRequest("POST", "/predict", (), {"content-type": "application/json"}, b"{}", is_repeatable=False)
KEYED = msgspec.structs.replace(ONCE, is_repeatable=True, headers={**ONCE.headers, "idempotency-key": "k"})
ASKING = HttpRequest("GET", "/models")
POLICY = RetryPolicy(timeout=20.0, retries=4)


def refusal(status: int, slug: str = "", told: str | None = None) -> HttpReply:
    headers = {"content-type": "application/problem+json", "x-request-id": "r"}
    body = msgspec.json.encode({"type": f"urn:rowcast:error:{slug}", "title": "No", "detail": "secret"})
    return HttpReply(status, headers if told is None else {**headers, "retry-after": told}, body)


IN_FLIGHT = refusal(409, "repeat-in-flight", "1")
FINE = HttpReply(200, {"content-type": "application/json"}, b"{}")
ANSWERS = st.one_of(
    st.just(FINE),
    st.just(IN_FLIGHT),
    st.builds(NoReply, st.just("gone"), sent=st.booleans()),
    st.builds(
        refusal,
        st.sampled_from([400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504]),
        st.sampled_from(["", "overloaded", "over-quota", "repeat-differs"]),
        st.sampled_from([None, "0", "2", "100", "soon"]),
    ),
)


class Played(msgspec.Struct):
    """What a client did: when it sent what, and what came of it."""

    sent: list[tuple[float, Send]] = []
    waited: list[float] = []
    error: errors.ClientError | None = None
    now: float = 0.0


def play(request: HttpRequest, answers: list[HttpReply | NoReply], random: float, takes: float = 0.01) -> Played:
    """Let the world answer so, the last answer over and over."""
    played = Played()
    flow = exchange(request, POLICY, "http://server", lambda: played.now, lambda: random)
    try:
        step = next(flow)
        while True:
            if isinstance(step, Wait):
                played.waited.append(step.seconds)
                played.now += step.seconds
                step = next(flow)
            else:
                played.sent.append((played.now, step))
                played.now += takes
                step = flow.send(answers[min(len(played.sent), len(answers)) - 1])
    except StopIteration:
        pass
    except errors.ClientError as error:
        played.error = error
    return played


REQUESTS = st.sampled_from([ONCE, KEYED, ASKING])
SCRIPTS = st.lists(ANSWERS, min_size=1, max_size=8)


@given(REQUESTS, SCRIPTS, st.floats(0, 1), st.floats(0.001, 3))
def test_the_rules_hold_whatever_happens(
    request: HttpRequest, answers: list[HttpReply | NoReply], random: float, takes: float
) -> None:
    played = play(request, answers, random, takes)
    given_back = [answers[min(number, len(answers) - 1)] for number in range(len(played.sent))]
    failed = [found for found in given_back if found is not FINE and found is not IN_FLIGHT]

    # Never twice without leave; never more failures than allowed; never on after an answer.
    assert len(played.sent) == 1 or request.is_repeatable
    assert len(failed) <= POLICY.retries + 1
    assert FINE not in given_back[:-1]
    assert (played.error is None) == (given_back[-1] is FINE)
    # Only what may pass is tried again.
    for found in given_back[:-1]:
        assert found is IN_FLIGHT or isinstance(found, NoReply) or found.status in RETRIED_STATUSES
    # Never sent after the time is up, never waited in vain, and never sooner than told.
    assert all(moment < POLICY.timeout for moment, _ in played.sent)
    assert all(moment + send.seconds <= POLICY.timeout + 0.002 for moment, send in played.sent)
    for found, pause in zip(given_back, played.waited, strict=False):
        assert isinstance(found, NoReply) or pause >= (retry_after(found) or 0)
    # The same request every time, but for the time that is left.
    for _, send in played.sent:
        headers = {name: value for name, value in send.request.headers.items() if name != "x-request-timeout"}
        assert msgspec.structs.replace(send.request, headers=headers) == request
        if request.body is not None:
            assert 0 < float(send.request.headers["x-request-timeout"]) <= send.seconds


@given(SCRIPTS, st.floats(0, 1))
def test_no_text_of_an_error_holds_what_the_server_said_of_values(
    answers: list[HttpReply | NoReply], random: float
) -> None:
    played = play(KEYED, answers, random)

    assert "secret" not in f"{played.error} {played.error!r}"


@given(st.integers(0, 200), st.floats(0, 1))
def test_pauses_grow_to_a_bound_and_are_half_chance(tried: int, random: float) -> None:
    pause = POLICY.pause(tried, random)
    whole = min(POLICY.longest_pause, POLICY.first_pause * 2.0 ** min(tried, 50))

    assert whole / 2 <= pause <= whole


@pytest.mark.parametrize(
    ("given", "date", "seconds"),
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
def test_retry_after_is_a_number_or_a_date_by_the_servers_clock(given: str, date: str, seconds: float | None) -> None:
    assert retry_after(HttpReply(503, {"retry-after": given, "date": date})) == seconds


def test_a_request_that_more_quota_cannot_help_is_not_sent_again() -> None:
    assert retry_pause(KEYED, refusal(429, "over-quota"), POLICY, 0, 0.5) is None
    assert retry_pause(KEYED, refusal(429, "over-quota", "2"), POLICY, 0, 0.5) == 2.125


def test_the_first_of_a_key_is_waited_for_however_often_one_was_told_to() -> None:
    played = play(KEYED, [*[IN_FLIGHT] * 12, FINE], 0.0)

    assert (len(played.sent), played.error) == (13, None)


@pytest.mark.parametrize("status", [200, 409, 503])
def test_a_reload_that_failed_is_an_answer_and_a_problem_is_none(status: int) -> None:
    reload = HttpRequest("POST", "/models/reload", success_statuses=frozenset({200, 409, 503}))
    answered = play(reload, [HttpReply(status, {"content-type": "application/json"}, b"{}")], 0.0)
    busy = play(reload, [refusal(503, "overloaded")], 0.0)

    assert answered.error is None
    assert isinstance(busy.error, errors.ServerUnavailable)


@pytest.mark.parametrize(
    "reply",
    [
        HttpReply(502, {"content-type": "text/html"}, b"<html>"),
        HttpReply(503, {"content-type": "application/problem+json"}),
    ],
)
def test_a_proxy_that_answers_in_its_own_words_is_busy(reply: HttpReply) -> None:
    played = play(ASKING, [reply], 0.0)

    assert isinstance(played.error, errors.ServerUnavailable)
    assert len(played.sent) == POLICY.retries + 1


def test_a_redirect_is_another_address() -> None:
    assert isinstance(play(ASKING, [HttpReply(308, {"location": "https://x"})], 0.0).error, errors.BadReply)
