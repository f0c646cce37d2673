"""Reply structs that only the client uses.

The client and the server share the structs of all other native replies: see `serving/model_descriptions.py`,
`serving/fleet.py`, `serving/health.py` and `history/records.py`. These modules import neither numpy nor HTTP code.

Decoding ignores unknown fields, so an older client can read the replies of a newer server. Fields that a newer server
may omit have defaults.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from rowcast.errors import ValueProblem
from rowcast.history.records import PageFields, RecordFields
from rowcast.schema.encoding import RowWarning
from rowcast.schema.prediction import Label


class PredictionReply(msgspec.Struct, frozen=True):
    """The prediction for one row.

    It differs from `schema.prediction.Prediction`, which the server encodes, in two ways: values that do not apply to
    the task are None instead of unset, and `request_id` is taken from the response header.
    """

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | None = None
    """The probability of the predicted label."""
    score: float | None = None
    """The probability of the positive class; binary models only."""
    probabilities: dict[str, float] | None = None
    warnings: tuple[RowWarning, ...] = ()
    cached: bool = False
    request_id: str = ""
    """The id of the request in the server's log."""


class RowErrors(msgspec.Struct, frozen=True):
    """The problems in an invalid row. With `partial=True`, they replace the row's prediction."""

    problems: tuple[ValueProblem, ...] = msgspec.field(name="errors")


class BatchReply(msgspec.Struct, frozen=True):
    """The reply to a batch of rows. Each item of `predictions` is a prediction or a row's errors, as JSON text."""

    model: str
    version: int
    predictions: list[msgspec.Raw]


class HistoryEntry(RecordFields[PredictionReply, dict[str, Any]], frozen=True):
    """One recorded prediction. `row` is the row as the server received it, or None if it has been erased."""

    @property
    def when(self) -> datetime:
        """Return the time of the prediction in UTC."""
        return self.at


class HistoryList(PageFields[HistoryEntry], frozen=True):
    """A page of history entries, newest first, with the cursor for the next page."""


class ProblemDetails(msgspec.Struct, frozen=True):
    """The fields that the client reads from an RFC 9457 problem document."""

    type: str = ""
    title: str = ""
    detail: str = ""
    instance: str = ""
    errors: list[ValueProblem] = []
