"""Simulate exchanges between a client and a server, with scripted replies and a fake clock."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowcast.client import errors
from rowcast.client.exchange import HttpReply, HttpRequest, NoReply, RetryPolicy, Send, Wait, exchange

UNKEYED = HttpRequest("POST", "/predict", headers={"content-type": "application/json"}, body=b"{}", is_repeatable=False)
KEYED = msgspec.structs.replace(UNKEYED, is_repeatable=True, headers={**UNKEYED.headers, "idempotency-key": "k"})
READ = HttpRequest("GET", "/models")
POLICY = RetryPolicy(timeout=20.0, retries=4)


def problem_reply(status: int, slug: str = "", retry_after: str | None = None) -> HttpReply:
    """Return a problem document with the detail "secret"."""
    headers = {"content-type": "application/problem+json", "x-request-id": "r"}
    body = msgspec.json.encode({"type": f"urn:rowcast:error:{slug}", "title": "No", "detail": "secret"})
    return HttpReply(status, headers if retry_after is None else {**headers, "retry-after": retry_after}, body)


IN_FLIGHT = problem_reply(409, "repeat-in-flight", "1")
SUCCESS = HttpReply(200, {"content-type": "application/json"}, b"{}")


class PlayedExchange(msgspec.Struct):
    """The requests that the client sent, the times at which it sent them, its pauses, and the error if the exchange
    failed."""

    sent: list[tuple[float, Send]] = []
    pauses: list[float] = []
    error: errors.ClientError | None = None
    now: float = 0.0


def play(
    request: HttpRequest, script: Sequence[HttpReply | NoReply], random: float = 0.0, duration: float = 0.01
) -> PlayedExchange:
    """Simulate an exchange in which each attempt takes `duration` seconds; repeat the final reply if necessary."""
    played = PlayedExchange()
    flow = exchange(request, POLICY, "http://server", clock=lambda: played.now, random=lambda: random)
    try:
        step = next(flow)
        while True:
            if isinstance(step, Wait):
                played.pauses.append(step.seconds)
                played.now += step.seconds
                step = next(flow)
            else:
                played.sent.append((played.now, step))
                played.now += duration
                step = flow.send(script[min(len(played.sent), len(script)) - 1])
    except StopIteration:
        pass
    except errors.ClientError as error:
        played.error = error
    return played
