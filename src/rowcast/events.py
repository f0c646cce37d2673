"""Events that services report. Metrics and logs subscribe to them as listeners."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rowcast.schema.prediction import Label


class ModelLoaded(msgspec.Struct, frozen=True, gc=False):
    """A model version was verified on its golden rows and now serves requests."""

    model: str
    version: int
    digest: str
    seconds: float


class RowsScored(msgspec.Struct, frozen=True, gc=False):
    """A batch of one model's rows was scored or served from the cache."""

    model: str
    version: int
    rows: int
    labels: list[Label] | dict[Label, int]
    """The predicted class of each row, or the number of rows per class; empty for a regression model."""
    latest: float = 0.0
    """The prediction of the last row: the index of its class, or the value."""
    hits: int = 0
    """The number of rows served from the cache."""
    misses: int = 0
    """The number of rows that were looked up in the cache but not found."""


class RequestAnswered(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request was answered. `route` is a pattern and never contains ids."""

    route: str
    method: str
    status: int
    seconds: float


class RequestFailed(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request was answered with an error."""

    slug: str


class ReloadFinished(msgspec.Struct, frozen=True, gc=False):
    """A server process reloaded its models from the registry; `error` is empty if every change was applied."""

    error: str = ""


Event = ModelLoaded | RowsScored | RequestAnswered | RequestFailed | ReloadFinished
Listener = Callable[[Event], None]
