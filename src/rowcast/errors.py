"""One tree of errors. The core knows slugs; only `http/problems.py` knows HTTP numbers and only `cli` knows exit codes.

RowcastError                    something the user can read and act on
├── SettingsError               a setting is unknown, missing or wrong
│   └── DocumentError           a wire template or a model's metadata is invalid at some place
├── TableError                  a table cannot be read, or cannot be learnt from
├── TrainingError               the data was fine, the model was not
│   └── ParityError             the exported graph does not repeat the trained model
├── BundleError                 a bundle is damaged, of a newer format, or not what it says
├── GraphFailed                 a graph broke on rows, or did not answer each
├── RegistryError               a name, version or alias that cannot be used
│   └── ModelNotFound
├── RequestError                a request that cannot be answered as sent
│   ├── BodyError               not JSON, too deep, too large, wrong shape
│   ├── MethodNotAllowed        another method is meant here
│   ├── Unauthorized            no key, or none that is good
│   ├── Forbidden               a good key, or an origin, that may not do this
│   ├── OverQuota               the caller has used up what it may ask
│   ├── RepeatConflict          an Idempotency-Key that cannot be answered now, or not for this body
│   └── InvalidRows             rows that break the schema: every error of every row
│       └── NoAnswer            rows for which the model gives no finite number
├── NotFound                    no such prediction, no such route
├── Overloaded                  shed now, try again later
├── TooLate                     the caller's time is up; not scored
├── HistoryError                the chain does not verify, an entry cannot be read
└── Unavailable                 a part Rowcast depends on does not answer
"""

from __future__ import annotations

from typing import Any

import msgspec


class RowcastError(Exception):
    """A mistake or a state that a person can understand; its text names the thing and what to do."""

    slug = "error"

    def __init__(self, message: str, *, slug: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if slug is not None:
            self.slug = slug


class SettingsError(RowcastError):
    slug = "settings"


class DocumentError(SettingsError):
    """A wire template or a model's metadata is invalid; `place` is the key in question, such as `request.path`."""

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


class BundleError(RowcastError):
    slug = "bundle"


class RegistryError(RowcastError):
    slug = "registry"


class ModelNotFound(RegistryError):
    slug = "model-not-found"


class RequestError(RowcastError):
    slug = "bad-request"


class BodyError(RequestError):
    slug = "malformed-body"


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


class ValueProblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing wrong with one value; `row` counts from 0 and is absent for a single row."""

    column: str
    code: str
    message: str
    got: Any = msgspec.UNSET
    row: int | msgspec.UnsetType = msgspec.UNSET

    @property
    def reason(self) -> str:
        """What is wrong with which column, or with none in particular."""
        return f"{self.column}: {self.message}" if self.column else self.message

    def __str__(self) -> str:
        return self.reason if isinstance(self.row, msgspec.UnsetType) else f"row {self.row}: {self.reason}"


class MethodNotAllowed(RequestError):
    """Carries the methods that are, as HTTP lists them."""

    slug = "method-not-allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"this address takes {allowed}; see /docs")
        self.allowed = allowed


class Unauthorized(RequestError):
    slug = "unauthorized"


class Forbidden(RequestError):
    slug = "forbidden"


class OverQuota(RequestError):
    """Carries the seconds after which there is quota again; 0 when waiting does not help."""

    slug = "over-quota"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds


class RepeatConflict(RequestError):
    slug = "repeat-in-flight"


class InvalidRows(RequestError):
    """Rows that break the schema; carries every problem found, not the first."""

    slug = "invalid-row"

    def __init__(self, problems: list[ValueProblem]) -> None:
        self.problems = problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{problems[0]}{more}")


class GraphFailed(RowcastError):
    """A graph that could be opened broke on these rows, or gave something else than an answer for each."""


class NoAnswer(InvalidRows):
    """Valid rows to which the model gives NaN, infinity, none of its classes or nothing; `rows` are their places."""

    slug = "no-answer"

    def __init__(self, rows: list[int], *, alone: bool = False) -> None:
        self.rows = rows
        message = "the model has no finite answer for this row"
        problems = [ValueProblem("", self.slug, message, row=msgspec.UNSET if alone else row) for row in rows]
        super().__init__(problems)
        self.message = message if alone else f"the model has no finite answer for {len(rows)} of the rows"
