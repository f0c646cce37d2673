"""The errors that a client call can raise.

ClientError                     the base class of all errors that the client raises
├── BadCall                     an invalid argument, or an export file that cannot be written
├── Unreachable                 no response arrived; `sent` is True if the server may have received the request
├── JobNotDone                  a job had not ended when the timeout expired
├── BadReply                    a response that a Rowcast server would never send
└── ErrorReply                  an error response with status, slug, detail, problems, request_id and retry_after
    ├── RowsRejected            some rows are invalid or cannot be scored; `problems` lists every problem
    ├── AccessDenied            the API key is missing or invalid, or it lacks permission
    ├── ResourceNotFound        the model, prediction or path does not exist
    ├── IdempotencyConflict     the first request with this Idempotency-Key is in progress or differs from this request
    ├── QuotaExceeded           the quota is used up; `retry_after` is None if retrying cannot help
    ├── ServerUnavailable       the server is overloaded, shutting down or missing a dependency; retry later
    ├── DeadlineExceeded        the rows were not scored before the timeout expired
    └── InternalServerError     the server failed; to find the cause, search its log for `request_id`

Error messages are often logged, so they never contain API keys, row values or option values. The attributes `detail`
and `problems` may contain row values and option values.
"""

from __future__ import annotations

from collections.abc import Sequence

from rowcast.errors import RowcastError, ValueProblem

PREFIX = "urn:rowcast:error:"
MAX_PROBLEMS_SHOWN = 5
MAX_COLUMN_LENGTH = 60


class ClientError(RowcastError):
    slug = "client"


class BadCall(ClientError):
    slug = "bad-call"


class Unreachable(ClientError):
    """No response arrived. `sent` is False if the server cannot have received the request."""

    slug = "unreachable"

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class JobNotDone(ClientError):
    slug = "job-not-done"


class BadReply(ClientError):
    slug = "bad-reply"


class ErrorReply(ClientError):
    """An error response. The message omits `detail` and is safe to log."""

    def __init__(
        self,
        status: int,
        slug: str,
        title: str,
        *,
        detail: str = "",
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
        super().__init__(f"{self._summary(title)} ({status} {slug}){where}", slug=slug)

    def _summary(self, title: str) -> str:
        return title


class RowsRejected(ErrorReply):
    """The server rejected some rows. `problems` lists every problem; `by_column` groups the problems by column."""

    @property
    def by_column(self) -> dict[str, list[ValueProblem]]:
        """Return the problems, grouped by column."""
        groups: dict[str, list[ValueProblem]] = {}
        for problem in self.problems:
            groups.setdefault(problem.column, []).append(problem)
        return groups

    def _summary(self, title: str) -> str:
        places = [_place(problem) for problem in self.problems[:MAX_PROBLEMS_SHOWN]]
        more = len(self.problems) - len(places)
        return ": ".join([title, ", ".join([*places, *([f"and {more} more"] if more else [])])])


class AccessDenied(ErrorReply):
    pass


class ResourceNotFound(ErrorReply):
    pass


class IdempotencyConflict(ErrorReply):
    pass


class QuotaExceeded(ErrorReply):
    pass


class ServerUnavailable(ErrorReply):
    pass


class DeadlineExceeded(ErrorReply):
    pass


class InternalServerError(ErrorReply):
    pass


BY_STATUS: dict[int, type[ErrorReply]] = {
    401: AccessDenied,
    403: AccessDenied,
    404: ResourceNotFound,
    409: IdempotencyConflict,
    429: QuotaExceeded,
    500: InternalServerError,
    502: ServerUnavailable,
    503: ServerUnavailable,
    504: DeadlineExceeded,
}
BY_SLUG: dict[str, type[ErrorReply]] = {
    "job-not-done": ErrorReply,
    "invalid-row": RowsRejected,
    "no-answer": RowsRejected,
    "repeat-differs": IdempotencyConflict,
}


def _place(problem: ValueProblem) -> str:
    row = f"row {problem.row}" if isinstance(problem.row, int) else ""
    return " ".join(filter(None, [row, problem.column[:MAX_COLUMN_LENGTH], f"({problem.code})"]))
