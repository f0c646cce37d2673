"""The client's retry logic: when to send a request, how long to wait and when to give up. It does no IO.

`exchange` is a generator that yields `Send` and `Wait` instructions. The caller follows each instruction and sends the
result back to the generator, so the synchronous and asynchronous clients share one implementation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Protocol

import msgspec

from rowcast.client import errors
from rowcast.client.replies import ProblemDetails
from rowcast.errors import ValueProblem

RETRIED_STATUSES = frozenset({408, 429, 502, 503, 504})
MAX_TIMEOUT_SECONDS = 3600.0
MIN_TIMEOUT_SECONDS = 0.001
MAX_NETWORK_SECONDS = 0.25
JITTER_SECONDS = 0.25


class Sink(Protocol):
    """Receives the body of a large response in chunks."""

    def begin(self) -> None:
        """Start over; discard everything that an earlier attempt wrote."""
        ...

    def write(self, chunk: bytes) -> None:
        """Append a chunk."""
        ...


class HttpRequest(msgspec.Struct, frozen=True):
    """One HTTP request; its path is relative to the server's base URL."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = {}
    body: bytes | None = None
    file: Path | None = None
    """A file that is sent as the body."""
    is_repeatable: bool = True
    """Whether the request can safely be sent again: it is read-only or idempotent, or has an Idempotency-Key."""
    success_statuses: frozenset[int] = frozenset({200})
    """The statuses of successful replies. A problem document with one of these statuses is an error."""
    sink: Sink | None = None
    rows: range | None = None
    """The positions of the request's rows in the call; None if the request contains all rows."""


class HttpReply(msgspec.Struct, frozen=True):
    """One HTTP response; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def media_type(self) -> str:
        """Return the content type without its parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


class NoReply(msgspec.Struct, frozen=True):
    """The result of a request that received no response."""

    reason: str
    sent: bool
    """Whether the server may have received the request."""


class Send(msgspec.Struct, frozen=True):
    """An instruction to send the request and wait at most `seconds` for the response."""

    request: HttpRequest
    seconds: float


class Wait(msgspec.Struct, frozen=True):
    """An instruction to pause for `seconds` before the next attempt."""

    seconds: float


class RetryPolicy(msgspec.Struct, frozen=True):
    """The timeout for a whole call, the maximum number of retries, and the shortest and longest pauses."""

    timeout: float = 30.0
    retries: int = 5
    first_pause: float = 0.2
    longest_pause: float = 5.0

    def pause(self, retry: int, random: float) -> float:
        """Return the pause before a retry: exponential backoff with jitter.

        The jitter keeps clients whose requests failed at the same time from retrying at the same time.
        """
        backoff = min(self.longest_pause, self.first_pause * 2.0 ** min(retry, 60))
        return backoff * (0.5 + 0.5 * random)


Clock = Callable[[], float]
Random = Callable[[], float]
Flow = Generator[Send | Wait, HttpReply | NoReply | None, HttpReply]


def exchange(request: HttpRequest, policy: RetryPolicy, url: str, *, clock: Clock, random: Random) -> Flow:
    """Send a request and retry it as the policy allows; return the successful reply or raise ClientError."""
    deadline = clock() + policy.timeout
    retries = 0
    while True:
        left = max(deadline - clock(), MIN_TIMEOUT_SECONDS)
        result = yield Send(_with_timeout(request, left), left)
        assert isinstance(result, HttpReply | NoReply)
        if isinstance(result, HttpReply) and is_success(request, result):
            return result
        in_flight = is_in_flight(result)
        pause = retry_pause(request, result, policy, retries=retries, random=random())
        if pause is None or pause >= deadline - clock():
            raise error_of(result, url, request.rows)
        yield Wait(pause)
        retries += not in_flight  # waiting for the first request to finish does not count as a retry


def retry_pause(
    request: HttpRequest, result: HttpReply | NoReply, policy: RetryPolicy, *, retries: int, random: float
) -> float | None:
    """Return the pause before the next attempt, or None if the request must not be retried."""
    if not request.is_repeatable:
        return None
    if is_in_flight(result):
        assert isinstance(result, HttpReply)
        return max(policy.pause(0, random), retry_after(result) or 0.0)
    if retries >= policy.retries:
        return None
    pause = policy.pause(retries, random)
    if isinstance(result, NoReply):
        return pause
    if result.status not in RETRIED_STATUSES:
        return None
    requested = retry_after(result)
    if requested is None:
        return None if read_problem(result).type == f"{errors.PREFIX}over-quota" else pause
    # Never retry earlier than requested. The jitter spreads out the retries of clients with the same Retry-After.
    return max(pause, requested + JITTER_SECONDS * random)


def is_success(request: HttpRequest, reply: HttpReply) -> bool:
    """Return whether the reply has a success status and is not a problem document."""
    if reply.status not in request.success_statuses and reply.status != 304:
        return False
    return reply.status in (200, 304) or reply.media_type == "application/json"


def is_in_flight(result: HttpReply | NoReply) -> bool:
    """Return whether the server is still processing an earlier request with the same Idempotency-Key."""
    return (
        isinstance(result, HttpReply)
        and result.status == 409
        and read_problem(result).type == f"{errors.PREFIX}repeat-in-flight"
    )


def retry_after(reply: HttpReply) -> float | None:
    """Return the delay in seconds that Retry-After specifies. A date in Retry-After is relative to the Date header."""
    value = reply.headers.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        until, now = (parsedate_to_datetime(text) for text in (value, reply.headers.get("date", "")))
        return max(0.0, (until - now).total_seconds())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def read_problem(reply: HttpReply) -> ProblemDetails:
    """Return the problem document of a reply, or an empty document if the reply has none."""
    if reply.media_type != "application/problem+json":
        return ProblemDetails()
    try:
        return msgspec.json.decode(reply.body, type=ProblemDetails)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ProblemDetails()


def error_of(result: HttpReply | NoReply, url: str, rows: range | None = None) -> errors.ClientError:
    """Return the error for a failed attempt. If the request contains only some of the rows, the error says which."""
    where = "" if rows is None else f" in the request with rows {rows.start} to {rows.stop - 1}"
    if isinstance(result, NoReply):
        return errors.Unreachable(f"no response from {url}{where}: {result.reason}", sent=result.sent)
    if result.status < 400:
        return errors.BadReply(
            f"unexpected status {result.status} from {url}; check that the URL belongs to a Rowcast server"
        )
    problem = read_problem(result)
    slug = problem.type.removeprefix(errors.PREFIX) if problem.type.startswith(errors.PREFIX) else "http"
    kind = errors.BY_SLUG.get(slug) or errors.BY_STATUS.get(result.status, errors.ErrorReply)
    title = problem.title or "The server returned an error"
    request_id = result.headers.get("x-request-id", "")
    return kind(
        result.status,
        slug,
        title + where,
        detail=problem.detail,
        problems=[shifted(each, rows.start if rows else 0) for each in problem.errors],
        request_id=request_id,
        retry_after=retry_after(result),
    )


def shifted(problem: ValueProblem, first_row: int) -> ValueProblem:
    """Return the problem with its row number counted from the start of the call instead of the request."""
    if not isinstance(problem.row, int):
        return problem
    return msgspec.structs.replace(problem, row=problem.row + first_row)


def _with_timeout(request: HttpRequest, left: float) -> HttpRequest:
    """Add the remaining time as a header, so that the server does not score rows after the client has given up."""
    if request.body is None or not math.isfinite(left):
        return request
    network = min(MAX_NETWORK_SECONDS, left / 10)  # the server's 504 response must arrive before the client gives up
    seconds = f"{min(left - network, MAX_TIMEOUT_SECONDS):.6f}"
    return msgspec.structs.replace(request, headers={**request.headers, "x-request-timeout": seconds})
