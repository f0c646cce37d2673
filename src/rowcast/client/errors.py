"""What can come of a call besides its answer.

ClientError                 whatever this client raises
├── BadCall                 the call cannot be made as it was meant: an address, a name, a row
├── Unreachable             nobody answered, or not in time; `sent` tells whether it may have arrived
├── BadReply                something answered, but not as Rowcast does
└── Refused                 the server says no: status, slug, detail, problems, request_id, retry_after
    ├── RowsRefused         rows that do not fit the model: every problem of every row, by column
    ├── NoAccess            no good key, or one that is not for this
    ├── NotThere            no such model, prediction or address
    ├── Conflict            the Idempotency-Key is in use, or was used for another request
    ├── QuotaUsedUp         ask again after `retry_after` seconds; None when waiting does not help
    ├── Busy                overloaded, draining or without a part that is needed: ask again later
    ├── OutOfTime           not scored within the time that the call had
    └── ServerFault         something went wrong on the server's side; its log has the reason under request_id

No text of these holds a key, a value of a row or an option: they end in logs. `detail` and `problems` may hold values.
"""

from __future__ import annotations

from collections.abc import Sequence

from rowcast.errors import RowcastError, ValueProblem

PREFIX = "urn:rowcast:error:"
SHOWN = 5
LONGEST = 60


class ClientError(RowcastError):
    slug = "client"


class BadCall(ClientError):
    slug = "bad-call"


class Unreachable(ClientError):
    """`sent` is False when the server cannot have seen the request."""

    slug = "unreachable"

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class BadReply(ClientError):
    slug = "bad-reply"


class Refused(ClientError):
    """What the server said, as it said it; the text of the error is shorter and safe to log."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        detail: str,
        problems: Sequence[ValueProblem] = (),
        request_id: str = "",
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.detail = detail
        self.problems = list(problems)
        self.request_id = request_id
        self.retry_after = retry_after
        where = f" [request {request_id}]" if request_id else ""
        super().__init__(f"{self._said(title)} ({status} {slug}){where}", slug=slug)

    def _said(self, title: str) -> str:
        return title


class RowsRefused(Refused):
    """`problems` has every problem; `by_column` the same in other order."""

    @property
    def by_column(self) -> dict[str, list[ValueProblem]]:
        """Column to what is wrong with it."""
        found: dict[str, list[ValueProblem]] = {}
        for problem in self.problems:
            found.setdefault(problem.column, []).append(problem)
        return found

    def _said(self, title: str) -> str:
        shown = [_place(problem) for problem in self.problems[:SHOWN]]
        more = len(self.problems) - len(shown)
        return ": ".join([title, ", ".join([*shown, *([f"and {more} more"] if more else [])])])


class NoAccess(Refused):
    pass


class NotThere(Refused):
    pass


class Conflict(Refused):
    pass


class QuotaUsedUp(Refused):
    pass


class Busy(Refused):
    pass


class OutOfTime(Refused):
    pass


class ServerFault(Refused):
    pass


BY_STATUS: dict[int, type[Refused]] = {
    401: NoAccess,
    403: NoAccess,
    404: NotThere,
    409: Conflict,
    429: QuotaUsedUp,
    500: ServerFault,
    502: Busy,
    503: Busy,
    504: OutOfTime,
}
BY_SLUG: dict[str, type[Refused]] = {"invalid-row": RowsRefused, "no-answer": RowsRefused, "repeat-differs": Conflict}


def _place(problem: ValueProblem) -> str:
    row = f"row {problem.row}" if isinstance(problem.row, int) else ""
    return " ".join(filter(None, [row, problem.column[:LONGEST], f"({problem.code})"]))
