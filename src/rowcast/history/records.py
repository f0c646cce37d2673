"""Decoded history entries, as shown by the API, the client and the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar

import msgspec

from rowcast.history.chain import decode_head
from rowcast.schema.prediction import Prediction

if TYPE_CHECKING:
    from rowcast.history.ports import StoredEntry

JOB_SOURCE = "job"
"""The `source` of entries that a job has recorded."""
JOB_LABEL = "job"
"""The `prediction` in the entry that records a job as a whole. This entry has no row."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
P = TypeVar("P")
R = TypeVar("R")
RawObject = Annotated[msgspec.Raw, msgspec.Meta(extra_json_schema={"type": "object"})]

decode_reply = msgspec.json.Decoder(Prediction).decode


class RecordFields(msgspec.Struct, Generic[P, R], frozen=True, omit_defaults=True):
    """One history entry. The server keeps the prediction and the row as raw JSON; the client decodes them."""

    id: str
    at: datetime
    """The time of the prediction; in JSON, an RFC 3339 timestamp with microseconds."""
    model: str
    version: int
    digest: str
    source: str
    request_id: str
    prediction: P
    writer: str
    seq: int
    row: R | None = None
    """The row as received, or None if it has been erased."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    withheld: tuple[str, ...] = ()
    """The sensitive columns that were hashed or dropped before the row was recorded."""


class Record(RecordFields[RawObject, RawObject], frozen=True, omit_defaults=True):
    """One history entry, with the exact bytes of `prediction` and `row`; `row` is absent if it has been erased."""


class PageFields(msgspec.Struct, Generic[R], frozen=True):
    """A page of history entries, newest first."""

    predictions: list[R]
    next: str | None = None
    """The cursor for the next page; None on the last page."""


class HistoryPage(PageFields[Record], frozen=True):
    """A page of history entries, newest first, and the cursor for the next page."""


def to_time(microseconds: int) -> datetime:
    """Convert a Unix timestamp in microseconds into a UTC time, without rounding."""
    return EPOCH + timedelta(microseconds=microseconds)


def to_record(stored: StoredEntry) -> Record:
    """Decode an entry; the reply and the row keep their original bytes."""
    entry = decode_head(stored.sealed.head)
    reply = decode_reply(entry.reply)
    row = stored.sealed.row
    return Record(
        id=reply.id,
        at=to_time(entry.at),
        model=reply.model,
        version=reply.version,
        digest=entry.digest,
        source=entry.source,
        request_id=entry.request_id,
        prediction=msgspec.Raw(entry.reply),
        writer=stored.writer,
        seq=stored.sealed.seq,
        row=None if row is None else msgspec.Raw(row),
        key_id=entry.key_id,
        tenant=entry.tenant,
        entity=entry.entity,
        withheld=entry.withheld,
    )
