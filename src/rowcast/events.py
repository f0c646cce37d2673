"""What services say happened; whoever counts or logs listens."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rowcast.schema.prediction import Label


class ModelLoaded(msgspec.Struct, frozen=True, gc=False):
    """A version passed its golden check and answers from now on."""

    model: str
    version: int
    digest: str
    seconds: float


class Scored(msgspec.Struct, frozen=True, gc=False):
    """Rows of one model scored in one tick."""

    model: str
    version: int
    rows: int
    labels: list[Label] | dict[Label, int]
    """The predicted class of each row, or of how many rows each; empty for a regression, whose values are no labels."""
    latest: float = 0.0
    """Of the last row: the number of its class, or the value."""
    hits: int = 0
    """Rows whose outcome the cache knew."""
    misses: int = 0
    """Rows that it was asked for and did not know."""


class Answered(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request answered. `route` is a pattern, never a path with ids in it."""

    route: str
    method: str
    status: int
    seconds: float


class Failed(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request answered with a problem."""

    slug: str


class Reloaded(msgspec.Struct, frozen=True, gc=False):
    """A worker followed the registry; `error` says what it could not follow."""

    error: str = ""


Event = ModelLoaded | Scored | Answered | Failed | Reloaded
Listener = Callable[[Event], None]
