"""The fields of an entry that a store copies into columns, so that queries can filter entries."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from rowcast.history.chain import decode_head
from rowcast.schema.prediction import Label, searchable_label


class CopiedFields(NamedTuple):
    """The copied fields of one entry."""

    id: str
    model: str
    version: int
    label: str
    tenant: str
    entity: str


class ReplyColumns(msgspec.Struct, gc=False):
    """The reply fields that are copied."""

    id: str
    model: str
    version: int
    prediction: Label
    probability: float | msgspec.UnsetType = msgspec.UNSET


_decode_columns = msgspec.json.Decoder(ReplyColumns).decode


def copied_fields(encoded_head: bytes) -> CopiedFields:
    """Return the copied fields of an entry; raise msgspec.MsgspecError if the entry is damaged."""
    head = decode_head(encoded_head)
    reply = _decode_columns(head.reply)
    label = searchable_label(reply.prediction, reply.probability)
    return CopiedFields(reply.id, reply.model, reply.version, label, head.tenant, head.entity)
