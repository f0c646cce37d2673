"""All errors that Rowcast raises for its users, in a single class hierarchy.

Each class has a slug, which is a stable name for use in tests and clients. An instance can have a more specific slug.
Only `http/problems.py` maps slugs to HTTP status codes, and only `cli` maps errors to exit codes.

RowcastError                    the base class; the message says what is wrong and what to do
├── SettingsError               a setting is unknown, missing or invalid
│   └── DocumentError           a wire template or a model's metadata is invalid
├── TableError                  a table cannot be read, written or used for training
├── TrainingError               training failed although the table is usable
│   ├── ParityError             the exported graph and the trained model return different scores
│   └── ExpressionError         the definition of a derived column is invalid
├── BundleError                 a bundle is damaged, invalid or in a newer format
├── GraphFailed                 a graph fails on some rows or returns malformed output
├── RegistryError               a model name, version or alias is invalid
│   └── ModelNotFound           the registry has no such model, version or alias
├── RequestError                the request is invalid
│   ├── BodyError               the body is malformed, too large or has the wrong shape
│   ├── MethodNotAllowed        the path does not support this HTTP method
│   ├── Unauthorized            the API key is missing or invalid
│   ├── Forbidden               the API key or the origin lacks permission
│   ├── OverQuota               the request exceeds the caller's quota
│   ├── RepeatConflict          the first request with this Idempotency-Key is in progress or differs from this request
│   └── InvalidRows             rows violate the schema; the error lists every problem in every row
│       └── NoAnswer            the model has no valid output for some rows
├── NotFound                    the path or the prediction does not exist
├── Overloaded                  the server is overloaded; the caller should retry later
├── TooLate                     the request's deadline passed before any row was scored
├── HistoryError                the history is damaged or cannot be read
└── Unavailable                 a required service or resource is not available
    └── EngineUnavailable       a Ray cluster cannot be reached or cannot run a task
"""

from __future__ import annotations

from typing import Any

import msgspec


class RowcastError(Exception):
    """The base class of all errors that users can understand and act on."""

    slug = "error"

    def __init__(self, message: str, *, slug: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if slug is not None:
            self.slug = slug

    def __reduce__(self) -> tuple[Any, ...]:
        """Make errors of every class picklable, because cluster nodes send errors to the process that submitted the
        task."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[RowcastError], args: tuple[Any, ...], attributes: dict[str, Any]) -> RowcastError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(attributes)
    return error


class SettingsError(RowcastError):
    slug = "settings"


class DocumentError(SettingsError):
    """A wire template or a model's metadata is invalid; `place` is the invalid key, for example `request.path`."""

    slug = "document"

    def __init__(self, document: str, place: str, message: str, *, slug: str | None = None) -> None:
        super().__init__(f"{document}: {place}: {message}" if place else f"{document}: {message}", slug=slug)
        self.place = place


class TableError(RowcastError):
    slug = "table"


class TrainingError(RowcastError):
    slug = "training"


class ParityError(TrainingError):
    slug = "parity"


class ExpressionError(TrainingError):
    """The definition of a derived column is invalid. `position` is the position of the invalid character, starting at
    1."""

    slug = "expression"

    def __init__(self, definition: str, position: int, message: str, *, slug: str | None = None) -> None:
        shown = definition if len(definition) <= 200 else f"{definition[:200]}…"
        super().__init__(f"option 'derive': {shown!r}, character {position}: {message}", slug=slug)
        self.position = position


class BundleError(RowcastError):
    slug = "bundle"


class GraphFailed(RowcastError):
    """A graph that loaded without errors fails on some rows or returns malformed output."""

    slug = "graph-failed"


class RegistryError(RowcastError):
    slug = "registry"


class ModelNotFound(RegistryError):
    slug = "model-not-found"


class NotFound(RowcastError):
    slug = "not-found"


class Overloaded(RowcastError):
    slug = "overloaded"


class TooLate(RowcastError):
    slug = "too-late"


class HistoryError(RowcastError):
    slug = "history"


class Unavailable(RowcastError):
    slug = "unavailable"


class EngineUnavailable(Unavailable):
    slug = "engine-unavailable"


class RequestError(RowcastError):
    slug = "bad-request"


class BodyError(RequestError):
    slug = "malformed-body"


class MethodNotAllowed(RequestError):
    """`allowed` lists the methods that the path supports, in the format of the `Allow` header."""

    slug = "method-not-allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this path accepts only {allowed}; see /docs")
        self.allowed = allowed


class Unauthorized(RequestError):
    slug = "unauthorized"


class Forbidden(RequestError):
    slug = "forbidden"


class OverQuota(RequestError):
    """`seconds` is the time until the quota allows the request, or 0 if waiting does not help."""

    slug = "over-quota"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class RepeatConflict(RequestError):
    slug = "repeat-in-flight"


class ValueProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One problem with one value in a row."""

    column: str
    """The column with the problem; empty if the problem concerns the whole row."""
    code: str
    message: str
    got: Any = msgspec.UNSET
    """The received value; unset if it is missing or sensitive."""
    row: int | msgspec.UnsetType = msgspec.UNSET
    """The row's position, starting at 0; unset if the request contains a single row."""
    line: int | msgspec.UnsetType = msgspec.UNSET
    """The line of the file on which the row begins, starting at 1; unset if the row does not come from a text file."""

    @property
    def reason(self) -> str:
        """Return the column and the message, without the row's position."""
        return f"column {self.column!r}: {self.message}" if self.column else self.message

    def __str__(self) -> str:
        if isinstance(self.row, msgspec.UnsetType):
            return self.reason
        place = f"row {self.row}" if self.line is msgspec.UNSET else f"line {self.line} (row {self.row})"
        return f"{place}{', ' if self.column else ': '}{self.reason}"


class InvalidRows(RequestError):
    """Some rows violate the schema. `problems` lists every problem; the message shows the first problem."""

    slug = "invalid-row"

    def __init__(self, problems: list[ValueProblem]) -> None:
        self.problems = problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")


class NoAnswer(InvalidRows):
    """The model returned NaN, infinity, an unknown class or nothing for some valid rows.

    `rows` lists the positions of these rows. If `alone` is true, the request contains a single row, and the message
    omits the position.
    """

    slug = "no-answer"

    def __init__(self, rows: list[int], *, alone: bool = False) -> None:
        self.rows = rows
        message = "the model has no valid output for this row"
        problems = [ValueProblem("", self.slug, message, row=msgspec.UNSET if alone else row) for row in rows]
        super().__init__(problems)
        self.message = message if alone else f"the model has no valid output for {len(rows)} of the rows"
