"""History entries in readable form."""

from __future__ import annotations

import msgspec

from rowcast.history.chain import Entry, decode_head
from rowcast.history.ports import StoredEntry
from rowcast.schema.prediction import Prediction

decode_reply = msgspec.json.Decoder(Prediction).decode


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """One history entry as the API and the command line show it. `row` is absent once erased."""

    id: str
    at: int
    """UTC microseconds."""
    model: str
    version: int
    digest: str
    source: str
    request_id: str
    prediction: msgspec.Raw
    """The reply, byte for byte as sent."""
    writer: str
    seq: int
    row: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """The row, byte for byte as received."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    withheld: tuple[str, ...] = ()
    """Sensitive columns that were hashed or dropped before the row was recorded."""


class HistoryPage(msgspec.Struct, frozen=True):
    """A page of entries, newest first, and the cursor of the next page; None after the last page."""

    predictions: list[Record]
    next: str | None


def to_record(stored: StoredEntry) -> Record:
    """Decode an entry; the reply and the row keep their original bytes."""
    entry: Entry = decode_head(stored.sealed.head)
    reply = decode_reply(entry.reply)
    row = stored.sealed.row
    return Record(
        id=reply.id,
        at=entry.at,
        model=reply.model,
        version=reply.version,
        digest=entry.digest,
        source=entry.source,
        request_id=entry.request_id,
        prediction=msgspec.Raw(entry.reply),
        writer=stored.writer,
        seq=stored.sealed.seq,
        row=msgspec.UNSET if row is None else msgspec.Raw(row),
        key_id=entry.key_id,
        tenant=entry.tenant,
        entity=entry.entity,
        withheld=entry.withheld,
    )
