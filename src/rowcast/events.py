"""Events that services report to listeners, for example to update metrics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from rowcast.schema.prediction import Label

RedisUse = Literal["cache", "quotas", "queue"]
"""The purpose for which a server uses Redis."""
RedisFailure = Literal["timeout", "connection", "reply"]
MessageOutcome = Literal["answered", "late", "returned", "parked", "expired"]


class ModelLoaded(msgspec.Struct, frozen=True, gc=False):
    """A model version has been verified on its golden rows and now serves requests."""

    model: str
    version: int
    digest: str
    seconds: float


class RowsScored(msgspec.Struct, frozen=True, gc=False):
    """A model's scores for a batch of rows were computed or read from the cache."""

    model: str
    version: int
    rows: int
    labels: list[Label] | dict[Label, int]
    """The predicted class for each row, or the number of rows per predicted class; empty for a regression model."""
    latest: float = 0.0
    """The prediction for the last row: the index of the predicted class, or the predicted value."""
    hits: int = 0
    """The number of rows whose scores were read from the cache."""
    misses: int = 0
    """The number of rows whose scores were looked up in the cache but not found."""


class RequestAnswered(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request was answered. `route` is a path pattern, so it contains no ids."""

    route: str
    method: str
    status: int
    seconds: float


class RequestFailed(msgspec.Struct, frozen=True, gc=False):
    """One HTTP request was answered with an error."""

    slug: str


class ReloadFinished(msgspec.Struct, frozen=True, gc=False):
    """A server process has reloaded its models from the registry. `error` is empty if all changes were applied."""

    error: str = ""


class RedisFailed(msgspec.Struct, frozen=True, gc=False):
    """A call to Redis failed, or its reply could not be used."""

    use: RedisUse
    kind: RedisFailure


class RedisSwitched(msgspec.Struct, frozen=True, gc=False):
    """Redis has become available or unavailable to a server process."""

    use: RedisUse
    is_available: bool


class RowsTaken(msgspec.Struct, frozen=True, gc=False):
    """A worker has taken one or more messages, whose rows it scores in one call."""

    rows: int
    messages: int


class MessagesFinished(msgspec.Struct, frozen=True, gc=False):
    """A worker has finished messages. The outcome `late` means that another worker finished them first."""

    outcome: MessageOutcome
    count: int


Event = (
    ModelLoaded
    | RowsScored
    | RequestAnswered
    | RequestFailed
    | ReloadFinished
    | RedisFailed
    | RedisSwitched
    | RowsTaken
    | MessagesFinished
)
Listener = Callable[[Event], None]
