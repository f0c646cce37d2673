"""What a client does, without doing it: when to send, how long to wait, when to give up. No IO, no clock of its own.

`exchange` is a generator: it yields `Send` and `Wait`, the shell does that and sends back what came of it. Both shells,
with and without threads, drive the same one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from email.utils import parsedate_to_datetime
from typing import Protocol

import msgspec

from rowcast.client import errors
from rowcast.client.replies import Problem

AGAIN = frozenset({408, 429, 502, 503, 504})
LONGEST_TIMEOUT = 3600.0
LEAST_TIMEOUT = 0.001
MOST_FOR_ITS_WAY = 0.25
JITTER = 0.25


class Sink(Protocol):
    """Where the body of a large answer goes, a piece at a time."""

    def begin(self) -> None:
        """Forget what came; it comes from the start."""
        ...

    def write(self, piece: bytes) -> None:
        """The next piece."""
        ...


class Request(msgspec.Struct, frozen=True):
    """One HTTP request, below the address of the server."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    again: bool = True
    """Whether it may be sent twice: it only asks, or carries an Idempotency-Key."""
    answers: frozenset[int] = frozenset({200})
    """Statuses whose JSON is an answer."""
    sink: Sink | None = None


class Reply(msgspec.Struct, frozen=True):
    """What came back; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def media(self) -> str:
        """The content type alone."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class Lost(msgspec.Struct, frozen=True):
    """No reply came."""

    reason: str
    sent: bool
    """Whether the server may have seen the request."""


class Send(msgspec.Struct, frozen=True):
    """To the shell: send this, and wait so long at most."""

    request: Request
    seconds: float


class Wait(msgspec.Struct, frozen=True):
    """To the shell: do nothing for so long."""

    seconds: float


class Policy(msgspec.Struct, frozen=True):
    """How long a call may take in all, how often it is sent again, and the pauses between."""

    timeout: float = 30.0
    retries: int = 5
    first_pause: float = 0.2
    longest_pause: float = 5.0

    def pause(self, tried: int, random: float) -> float:
        """Twice as long each time, half of it by chance: callers that failed together come back apart."""
        whole = min(self.longest_pause, self.first_pause * 2.0 ** min(tried, 60))
        return whole * (0.5 + 0.5 * random)


Clock = Callable[[], float]
Random = Callable[[], float]
Flow = Generator[Send | Wait, Reply | Lost | None, Reply]


def exchange(request: Request, policy: Policy, url: str, clock: Clock, random: Random) -> Flow:
    """The reply that is an answer; ClientError when there is none within the policy's time and tries."""
    end = clock() + policy.timeout
    tried = 0
    while True:
        left = max(end - clock(), LEAST_TIMEOUT)
        found = yield Send(_with_timeout(request, left), left)
        assert isinstance(found, Reply | Lost)
        if isinstance(found, Reply) and is_answer(request, found):
            return found
        waiting = is_in_flight(found)
        pause = after(request, found, policy, tried, random())
        if pause is None or pause >= end - clock():
            raise failure(found, url)
        yield Wait(pause)
        tried += not waiting  # somebody is at work on it: that is no failed try


def after(request: Request, found: Reply | Lost, policy: Policy, tried: int, random: float) -> float | None:
    """The pause before the same request is sent again; None when it is not."""
    if not request.again:
        return None
    if is_in_flight(found):
        assert isinstance(found, Reply)
        return max(policy.pause(0, random), retry_after(found) or 0.0)
    if tried >= policy.retries:
        return None
    pause = policy.pause(tried, random)
    if isinstance(found, Lost):
        return pause
    if found.status not in AGAIN:
        return None
    told = retry_after(found)
    if told is None:
        return None if problem(found).type == f"{errors.PREFIX}over-quota" else pause
    # Never sooner than told, and not all who were told the same at the same moment.
    return max(pause, told + JITTER * random)


def is_answer(request: Request, reply: Reply) -> bool:
    """Whether the reply is what was asked for, and no problem that has the same status."""
    if reply.status not in request.answers and reply.status != 304:
        return False
    return reply.status in (200, 304) or reply.media == "application/json"


def is_in_flight(found: Reply | Lost) -> bool:
    """Whether the first request of this Idempotency-Key is still being answered."""
    return (
        isinstance(found, Reply) and found.status == 409 and problem(found).type == f"{errors.PREFIX}repeat-in-flight"
    )


def retry_after(reply: Reply) -> float | None:
    """The seconds that the server asks for, by number or by date; a date is measured by the server's own clock."""
    given = reply.headers.get("retry-after", "").strip()
    if given.isascii() and given.isdigit():
        return float(given[:9])
    try:
        until, now = (parsedate_to_datetime(text) for text in (given, reply.headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def problem(reply: Reply) -> Problem:
    """What the server says of a refusal; empty when it is not Rowcast that speaks."""
    if reply.media != "application/problem+json":
        return Problem()
    try:
        return msgspec.json.decode(reply.body, type=Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Problem()


def failure(found: Reply | Lost, url: str) -> errors.ClientError:
    """The error that stands for what came."""
    if isinstance(found, Lost):
        return errors.Unreachable(f"nobody answers at {url}: {found.reason}", sent=found.sent)
    if found.status < 400:
        return errors.BadReply(f"{url} answers with {found.status}, which Rowcast does not; is it the right address?")
    said = problem(found)
    slug = said.type.removeprefix(errors.PREFIX) if said.type.startswith(errors.PREFIX) else "http"
    kind = errors.BY_SLUG.get(slug) or errors.BY_STATUS.get(found.status, errors.Refused)
    title = said.title or "The server refused"
    told, request_id = retry_after(found), found.headers.get("x-request-id", "")
    return kind(found.status, slug, title, said.detail, said.errors, request_id, told)


def _with_timeout(request: Request, left: float) -> Request:
    """The server is told how long the caller waits: what it has not scored by then it need not score."""
    if request.body is None or not math.isfinite(left):
        return request
    own = min(MOST_FOR_ITS_WAY, left / 10)  # its refusal must still find somebody who waits
    seconds = f"{min(left - own, LONGEST_TIMEOUT):.6f}"
    return msgspec.structs.replace(request, headers={**request.headers, "x-request-timeout": seconds})
