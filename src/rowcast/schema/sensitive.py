"""Sensitive columns are scored, and then hashed or dropped before the row is kept. Whoever reads history sees neither.

A hash is keyed with a secret of its history: equal values can be counted and joined, and nobody can try out all values.
"""

from __future__ import annotations

import hmac
from typing import Literal

import msgspec

from rowcast.schema.encoding import decode_json
from rowcast.schema.identity import canonical_json
from rowcast.schema.schema import Schema

How = Literal["hash", "drop"]
HASH_RULE = "rs1-"


class Guard:
    """Rows as they may be kept."""

    def __init__(self, how: How, key: bytes) -> None:
        self._how = how
        self._key = key

    def withheld(self, schema: Schema) -> tuple[str, ...]:
        """The columns that are not kept as they came."""
        return tuple(column.name for column in schema.columns if column.sensitive)

    def guarded(self, schema: Schema, row: bytes) -> bytes:
        """A valid row without what is sensitive; everything else stays as it was written."""
        cells = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
        for column in schema.columns:
            if not column.sensitive or column.name not in cells:
                continue
            if self._how == "drop":
                del cells[column.name]
                continue
            value = column.parse(decode_json(cells[column.name]))
            if value is not None:
                said = hmac.digest(self._key, canonical_json([column.name, value]), "sha256").hex()
                cells[column.name] = msgspec.Raw(f'"{HASH_RULE}{said}"'.encode())
        return msgspec.json.encode(cells)
