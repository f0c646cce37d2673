"""Properties of the client's retries for any sequence of replies and failures, with no I/O and a simulated clock."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from rowcast.client.exchange import RETRIED_STATUSES, HttpReply, HttpRequest, NoReply, retry_after
from support.exchanges import IN_FLIGHT, KEYED, POLICY, READ, SUCCESS, UNKEYED, play, problem_reply

REPLIES = st.one_of(
    st.just(SUCCESS),
    st.just(IN_FLIGHT),
    st.builds(NoReply, st.just("closed"), sent=st.booleans()),
    st.builds(
        problem_reply,
        st.sampled_from([400, 401, 403, 404, 408, 409, 422, 429, 500, 502, 503, 504]),
        st.sampled_from(["", "overloaded", "over-quota", "repeat-differs"]),
        st.sampled_from([None, "0", "2", "100", "soon"]),
    ),
)
REQUESTS = st.sampled_from([UNKEYED, KEYED, READ])
SCRIPTS = st.lists(REPLIES, min_size=1, max_size=8)


@given(REQUESTS, SCRIPTS, st.floats(0, 1), st.floats(0.001, 3))
def test_every_exchange_follows_the_retry_rules(
    request: HttpRequest, script: list[HttpReply | NoReply], random: float, duration: float
) -> None:
    played = play(request, script, random, duration)
    results = [script[min(number, len(script) - 1)] for number in range(len(played.sent))]
    failures = [result for result in results if result is not SUCCESS and result is not IN_FLIGHT]

    # A non-repeatable request is sent once, the number of failures is limited, and a success ends the exchange.
    assert len(played.sent) == 1 or request.is_repeatable
    assert len(failures) <= POLICY.retries + 1
    assert SUCCESS not in results[:-1]
    assert (played.error is None) == (results[-1] is SUCCESS)
    # Only temporary failures are retried.
    for result in results[:-1]:
        assert result is IN_FLIGHT or isinstance(result, NoReply) or result.status in RETRIED_STATUSES
    # No attempt starts after the timeout or before the time given by Retry-After.
    assert all(moment < POLICY.timeout for moment, _ in played.sent)
    assert all(moment + send.seconds <= POLICY.timeout + 0.002 for moment, send in played.sent)
    for result, pause in zip(results, played.pauses, strict=False):
        assert isinstance(result, NoReply) or pause >= (retry_after(result) or 0)
    # Every attempt sends the same request, except for the header with the remaining time.
    for _, send in played.sent:
        headers = {name: value for name, value in send.request.headers.items() if name != "x-request-timeout"}
        assert msgspec.structs.replace(send.request, headers=headers) == request
        if request.body is not None:
            assert 0 < float(send.request.headers["x-request-timeout"]) <= send.seconds


@given(SCRIPTS, st.floats(0, 1))
def test_no_error_message_contains_the_detail_of_a_problem(script: list[HttpReply | NoReply], random: float) -> None:
    played = play(KEYED, script, random)

    assert "secret" not in f"{played.error} {played.error!r}"


@given(st.integers(0, 200), st.floats(0, 1))
def test_pauses_grow_to_a_limit_and_are_randomly_shortened_by_at_most_half(retry: int, random: float) -> None:
    pause = POLICY.pause(retry, random)
    backoff = min(POLICY.longest_pause, POLICY.first_pause * 2.0 ** min(retry, 50))

    assert backoff / 2 <= pause <= backoff
