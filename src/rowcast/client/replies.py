"""What the server answers, as typed values. Fields that a later server adds are passed over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from rowcast.errors import ValueProblem

Label = bool | int | float | str


class Warned(msgspec.Struct, frozen=True):
    """What the caller should know of a row that was scored all the same."""

    column: str
    code: str
    message: str


class Prediction(msgspec.Struct, frozen=True):
    """One answer to one row; what does not apply to the task is None."""

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | None = None
    """Of the predicted label."""
    score: float | None = None
    """Probability of the positive class; binary models only."""
    probabilities: dict[str, float] | None = None
    warnings: tuple[Warned, ...] = ()
    cached: bool = False
    request_id: str = ""
    """Leads to this request in the server's log."""


class RowRefused(msgspec.Struct, frozen=True):
    """In the place of a prediction, where a batch was asked for with `partial=True`."""

    problems: tuple[ValueProblem, ...] = msgspec.field(name="errors")


class Batch(msgspec.Struct, frozen=True):
    """The reply to many rows; each is read by what it holds."""

    model: str
    version: int
    predictions: list[msgspec.Raw]


class Model(msgspec.Struct, frozen=True):
    """A model that is served: what `GET /models/NAME` tells."""

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


class Models(msgspec.Struct, frozen=True):
    """Every model that the key may use."""

    models: list[Model]


class Entry(msgspec.Struct, frozen=True):
    """One prediction in history, with its evidence."""

    id: str
    at: int
    """UTC microseconds."""
    model: str
    version: int
    digest: str
    source: str
    request_id: str
    prediction: Prediction
    writer: str
    seq: int
    row: dict[str, Any] | None = None
    """As it was received; None once it was erased."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    withheld: tuple[str, ...] = ()

    @property
    def when(self) -> datetime:
        """The moment of the answer."""
        return datetime.fromtimestamp(self.at / 1e6, UTC)


class Page(msgspec.Struct, frozen=True):
    """Entries, newest first, and the cursor of the next page."""

    predictions: list[Entry]
    next: str | None = None


class Loaded(msgspec.Struct, frozen=True):
    """A version that a worker answers with."""

    model: str
    version: int
    digest: str
    seconds: float


class Worker(msgspec.Struct, frozen=True):
    """One process of the server."""

    worker: int
    state: str
    pid: int | None = None
    models: tuple[Loaded, ...] = ()
    generation: int = 0
    asked: int = 0
    reload_error: str = ""
    silent_seconds: float = 0.0


class Reload(msgspec.Struct, frozen=True):
    """Where every worker stands; `status` is ok, failed or pending."""

    status: str
    workers: tuple[Worker, ...]


class Health(msgspec.Struct, frozen=True):
    """Every part of the server; `status` is ok or degraded, and `checks` say what is wrong."""

    status: str
    ready: bool
    models: tuple[str, ...] = ()
    checks: dict[str, str] = {}
    workers: tuple[Worker, ...] = ()


class Ready(msgspec.Struct, frozen=True):
    """Whether models are loaded and proven."""

    ready: bool


class Problem(msgspec.Struct, frozen=True):
    """RFC 9457, as far as it is used here."""

    type: str = ""
    title: str = ""
    detail: str = ""
    instance: str = ""
    errors: list[ValueProblem] = []
