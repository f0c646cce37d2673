"""History entries for tests: drafts as a predictor makes them, and sealed entries as a journal keeps them."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowcast.history.chain import Chain, Draft, Entry, Sealed, encode_head, row_hash
from rowcast.schema.identity import uuid7_randomness, uuid7s
from rowcast.schema.prediction import Prediction


def identifier(number: int) -> str:
    """The id of the entry of this number; ids ascend with numbers."""
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
    """One prediction, not sealed yet."""
    reply = msgspec.json.encode(Prediction(identifier(number), model, version, label, 0.75))
    at = 1_700_000_000_000_000 + number
    head = encode_head(Entry(at, "rb1-00", "native", f"r{number}", reply, "", tenant, entity))
    return Draft(head, number.to_bytes(16), row if row is not None else b'{"x":%d}' % number)


def drafts(start: int, end: int, model: str = "loans") -> list[Draft]:
    """Predictions of the numbers from `start` up to `end`."""
    return [draft(number, model) for number in range(start, end)]


def extended(chain: Chain, found: Sequence[Draft]) -> list[bytes]:
    """The links of these entries."""
    return [chain.extend(one.head, one.salt, one.row) for one in found]


def sealed(writer: str, found: list[Draft]) -> list[Sealed]:
    """A writer's whole chain."""
    return [
        Sealed(seq, one.head, one.salt, one.row, row_hash(one.salt, one.row), link)
        for seq, (one, link) in enumerate(zip(found, extended(Chain(writer), found), strict=True))
    ]
