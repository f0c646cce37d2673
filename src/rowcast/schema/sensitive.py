"""Hash or drop the values of sensitive columns before a row is recorded. The model still receives the original values.

Hashes are keyed with a secret. Equal values in a column have equal hashes, so hashed values can be counted and joined.
Without the secret, nobody can check whether a hash matches a guessed value.
"""

from __future__ import annotations

import hmac
from typing import Literal

import msgspec

from rowcast.schema.encoding import decode_json
from rowcast.schema.identity import canonical_json
from rowcast.schema.schema import Schema

Redaction = Literal["hash", "drop"]
HASH_RULE = "rs1-"


class Redactor:
    """Hashes or drops sensitive values in rows."""

    def __init__(self, redaction: Redaction, key: bytes) -> None:
        self._redaction = redaction
        self._key = key

    def withheld_columns(self, schema: Schema) -> tuple[str, ...]:
        """Return the names of the columns that are hashed or dropped."""
        return tuple(column.name for column in schema.columns if column.sensitive)

    def redact(self, schema: Schema, row: bytes) -> bytes:
        """Hash or drop the sensitive values in a valid row; all other values remain exactly as sent."""
        cells = msgspec.json.decode(row, type=dict[str, msgspec.Raw])
        for column in schema.columns:
            if not column.sensitive or column.name not in cells:
                continue
            if self._redaction == "drop":
                del cells[column.name]
                continue
            value = column.parse(decode_json(cells[column.name]))
            if value is not None:
                digest = hmac.digest(self._key, canonical_json([column.name, value]), "sha256").hex()
                cells[column.name] = msgspec.Raw(f'"{HASH_RULE}{digest}"'.encode())
        return msgspec.json.encode(cells)
