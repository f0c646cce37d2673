"""The reply structs of the native API that only the client uses.

Every other reply has one struct, which the server fills and the client decodes: `serving/model_descriptions.py`,
`serving/fleet.py`, `serving/health.py` and `history/records.py`. None of these modules imports numpy or HTTP code.

Decoding ignores unknown fields, so an older client understands the replies of a newer server. Fields that a newer
server may omit have defaults.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from rowcast.errors import ValueProblem
from rowcast.history.records import PageFields, RecordFields
from rowcast.schema.encoding import RowWarning
from rowcast.schema.prediction import Label


class PredictionReply(msgspec.Struct, frozen=True):
    """The prediction for one row.

    It differs from `schema.prediction.Prediction`, which the server encodes: values that do not apply to the task are
    None instead of unset, and the request id from the response header is included.
    """

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | None = None
    """Probability of the predicted label."""
    score: float | None = None
    """Probability of the positive class, for binary models only."""
    probabilities: dict[str, float] | None = None
    warnings: tuple[RowWarning, ...] = ()
    cached: bool = False
    request_id: str = ""
    """The id by which the server's log identifies the request."""


class RowErrors(msgspec.Struct, frozen=True):
    """The problems of an invalid row, which replace its prediction in batches sent with `partial=True`."""

    problems: tuple[ValueProblem, ...] = msgspec.field(name="errors")


class BatchReply(msgspec.Struct, frozen=True):
    """The reply to a batch of rows. Each item is the JSON of a prediction or the errors of a row."""

    model: str
    version: int
    predictions: list[msgspec.Raw]


class HistoryEntry(RecordFields[PredictionReply, dict[str, Any]], frozen=True):
    """One recorded prediction. `row` is the row as the server received it, or None after it has been erased."""

    @property
    def when(self) -> datetime:
        """Return the time of the prediction in UTC."""
        return datetime.fromtimestamp(self.at / 1e6, UTC)


class HistoryList(PageFields[HistoryEntry], frozen=True):
    """One page of history, newest entry first, and the cursor of the next page."""


class ProblemDetails(msgspec.Struct, frozen=True):
    """The fields of an RFC 9457 problem document that the client uses."""

    type: str = ""
    title: str = ""
    detail: str = ""
    instance: str = ""
    errors: list[ValueProblem] = []
