"""History entries for tests: drafts as serving creates them, and sealed entries as a journal stores them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowcast.history.chain import Chain, Draft, Entry, Sealed, encode_head, row_hash
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Prediction


def identifier(number: int) -> str:
    """Return the id of the entry with this number; ids are in the order of their numbers."""
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
    """Return the draft of one prediction."""
    reply = msgspec.json.encode(Prediction(identifier(number), model, version, label, 0.75))
    at = 1_700_000_000_000_000 + number
    head = encode_head(Entry(at, "rb1-00", "native", f"r{number}", reply, "", tenant, entity))
    return Draft(head, number.to_bytes(16), row if row is not None else b'{"x":%d}' % number)


def drafts(start: int, end: int, model: str = "loans") -> list[Draft]:
    """Return drafts with the numbers from `start` up to, but not including, `end`."""
    return [draft(number, model) for number in range(start, end)]


def extend(chain: Chain, drafts: Sequence[Draft]) -> list[bytes]:
    """Append drafts to a chain and return their links."""
    return [chain.extend(draft.head, draft.salt, draft.row) for draft in drafts]


def sealed(writer: str, drafts: list[Draft]) -> list[Sealed]:
    """Return the complete chain of a writer."""
    return [
        Sealed(seq, draft.head, draft.salt, draft.row, row_hash(draft.salt, draft.row), link)
        for seq, (draft, link) in enumerate(zip(drafts, extend(Chain(writer), drafts), strict=True))
    ]
