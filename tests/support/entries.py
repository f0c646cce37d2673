"""History entries for tests: drafts, as the recorder creates them, and sealed entries, as a journal stores them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from rowcast.history.chain import Chain, Draft, Entry, SealedEntry, encode_head
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Prediction


def identifier(number: int) -> str:
    """Return the ID of the entry with this number; IDs sort in the order of their numbers."""
    return uuid7s(1_700_000_000_000 + number, number.to_bytes(uuid7_randomness(1)))[0]


def draft(
    number: int,
    model: str = "loans",
    row: bytes | None = None,
    *,
    version: int = 1,
    label: str = "Approved",
    tenant: str = "",
    entity: str = "",
) -> Draft:
    """Return a draft of one prediction."""
    reply = msgspec.json.encode(Prediction(identifier(number), model, version, label, 0.75))
    at = 1_700_000_000_000_000 + number
    head = encode_head(Entry(at, "rb1-00", "native", f"r{number}", reply, "", tenant, entity))
    return Draft(head, number.to_bytes(16), row if row is not None else b'{"x":%d}' % number)


def drafts(start: int, end: int, model: str = "loans") -> list[Draft]:
    """Return one draft for each number in `range(start, end)`."""
    return [draft(number, model) for number in range(start, end)]


def extend(chain: Chain, entries: Sequence[Draft]) -> list[bytes]:
    """Append entries to a chain and return their links."""
    return [chain.extend(entry.head, entry.salt, entry.row) for entry in entries]


def sealed(writer: str, entries: Sequence[Draft]) -> list[SealedEntry]:
    """Seal entries as the complete chain of a writer."""
    chain = Chain(writer)
    return [chain.seal(entry) for entry in entries]


def draft_at(moment: datetime, number: int = 0) -> Draft:
    """Return a draft of a prediction at this time."""
    milliseconds = int(moment.timestamp() * 1000)
    (prediction_id,) = uuid7s(milliseconds, number.to_bytes(uuid7_randomness(1)))
    reply = msgspec.json.encode(Prediction(prediction_id, "loans", 1, "Approved", 0.75))
    return Draft(encode_head(Entry(milliseconds * 1000, "rb1-00", "native", "r", reply)), bytes(16), b"{}")


def utc(*parts: int) -> datetime:
    """Return a time in UTC."""
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


MIXED = [
    draft(
        number,
        "loans" if number % 2 else "iris",
        version=1 + number % 3,
        label="Approved" if number % 4 else "Rejected",
        tenant="" if number % 5 else "bank",
        entity="" if number % 3 else f"customer-{number % 6}",
    )
    for number in range(60)
]
"""Sixty drafts with different values, for filter tests."""
