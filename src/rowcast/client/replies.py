"""The JSON replies of the native API, one struct for each.

The client decodes replies into these structs. They are plain msgspec values that import neither numpy nor any HTTP or
runtime code, so the server can use the same structs for its response models and its OpenAPI document.

Decoding ignores unknown fields, so an older client understands a newer server. Fields that newer servers may leave out
have defaults.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from rowcast.errors import ValueProblem
from rowcast.schema.encoding import RowWarning
from rowcast.schema.prediction import Label


class PredictionReply(msgspec.Struct, frozen=True):
    """The prediction for one row.

    Differs from `schema.prediction.Prediction`, which the server encodes: values that do not apply to the task are None
    instead of unset, and the request id from the response header is included.
    """

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | None = None
    """Probability of the predicted label."""
    score: float | None = None
    """Probability of the positive class; binary models only."""
    probabilities: dict[str, float] | None = None
    warnings: tuple[RowWarning, ...] = ()
    cached: bool = False
    request_id: str = ""
    """Identifies the request in the server's log."""


class RowErrors(msgspec.Struct, frozen=True):
    """The problems of an invalid row, in place of its prediction; only in batches sent with `partial=True`."""

    problems: tuple[ValueProblem, ...] = msgspec.field(name="errors")


class BatchReply(msgspec.Struct, frozen=True):
    """The reply to a batch of rows. Each item is the JSON of a prediction or the errors of a row."""

    model: str
    version: int
    predictions: list[msgspec.Raw]


class ServedModel(msgspec.Struct, frozen=True):
    """A model the server has loaded, as described by `GET /models/NAME`."""

    name: str
    version: int
    digest: str
    default: bool
    task: str
    target: str
    metric: str
    score: float
    classes: tuple[Label, ...] = ()
    positive: Label | None = None
    threshold: float | None = None
    created: str = ""
    holdout: dict[str, Any] = {}
    parity: dict[str, Any] = {}
    columns: list[dict[str, Any]] = []
    schema: dict[str, Any] = {}
    """JSON Schema of one row."""


class ModelList(msgspec.Struct, frozen=True):
    """Every model the API key grants access to."""

    models: list[ServedModel]


class HistoryEntry(msgspec.Struct, frozen=True):
    """One recorded prediction."""

    id: str
    at: int
    """Time of the prediction in microseconds since the epoch."""
    model: str
    version: int
    digest: str
    source: str
    request_id: str
    prediction: PredictionReply
    writer: str
    seq: int
    row: dict[str, Any] | None = None
    """The row as the server received it; None after it has been erased."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    withheld: tuple[str, ...] = ()

    @property
    def when(self) -> datetime:
        """Return the time of the prediction in UTC."""
        return datetime.fromtimestamp(self.at / 1e6, UTC)


class HistoryList(msgspec.Struct, frozen=True):
    """One page of history, newest entry first, and the cursor of the next page."""

    predictions: list[HistoryEntry]
    next: str | None = None


class LoadedVersion(msgspec.Struct, frozen=True):
    """A model version that a worker has loaded, and how long loading took."""

    model: str
    version: int
    digest: str
    seconds: float


class WorkerHealth(msgspec.Struct, frozen=True):
    """The state of one server process."""

    worker: int
    state: str
    pid: int | None = None
    models: tuple[LoadedVersion, ...] = ()
    generation: int = 0
    asked: int = 0
    reload_error: str = ""
    silent_seconds: float = 0.0


class ReloadReport(msgspec.Struct, frozen=True):
    """The state of every worker after a reload; `status` is ok, failed or pending."""

    status: str
    workers: tuple[WorkerHealth, ...]


class HealthReport(msgspec.Struct, frozen=True):
    """The health of the server; `status` is ok or degraded, and `checks` holds the result of each check."""

    status: str
    ready: bool
    models: tuple[str, ...] = ()
    checks: dict[str, str] = {}
    workers: tuple[WorkerHealth, ...] = ()


class Readiness(msgspec.Struct, frozen=True):
    """Whether the server is ready to answer predictions."""

    ready: bool


class ProblemDetails(msgspec.Struct, frozen=True):
    """The fields of an RFC 9457 problem document that the client uses."""

    type: str = ""
    title: str = ""
    detail: str = ""
    instance: str = ""
    errors: list[ValueProblem] = []
