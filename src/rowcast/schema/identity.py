"""Identity: canonical bytes to names. The prefix of a name is its rule's version and changes with the rule."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from rowcast.schema.encoding import EncodedRow, Plan

BUNDLE_RULE = "rb1-"
ROW_RULE = "rk1-"


def canonical_json(value: Any) -> bytes:
    """One spelling for one value: keys sorted, no blanks, UTF-8."""
    return msgspec.json.encode(msgspec.to_builtins(value), order="sorted")


def bundle_digest(serving: Any, files: Iterable[tuple[str, str]]) -> str:
    """The digest of what decides an answer: the serving part of `bundle.json` and the sha256 of each serving file."""
    named = [[name, sha256] for name, sha256 in sorted(files)]
    return BUNDLE_RULE + hashlib.sha256(canonical_json([serving, named])).hexdigest()


def row_key(digest: str, plan: Plan, row: EncodedRow) -> str:
    """Equal for two rows exactly when one model must answer both alike: bundle and encoded values, nothing else."""
    key = hashlib.sha256(digest.encode())
    for spec, piece in zip(plan, row.pieces, strict=True):
        if isinstance(piece, bytes):
            if spec.dtype in ("float32", "float64"):
                piece = _without_negative_zero(piece, "f" if spec.dtype == "float32" else "d")
            key.update(b"n" + struct.pack("<I", len(piece)) + piece)
        else:
            key.update(b"t" + struct.pack("<I", len(piece)))
            for text in piece:
                encoded = text.encode()
                key.update(struct.pack("<I", len(encoded)) + encoded)
    return ROW_RULE + key.hexdigest()


def _without_negative_zero(packed: bytes, code: str) -> bytes:
    form = f"<{len(packed) // struct.calcsize(code)}{code}"
    return struct.pack(form, *[number + 0.0 for number in struct.unpack(form, packed)])


def uuid7s(milliseconds: int, random: bytes) -> list[str]:
    """Lower-case UUIDv7 of one moment: three random bytes they share, then six for each id."""
    stamp, digits = f"{milliseconds:012x}", random.hex()
    shared = f"{stamp[:8]}-{stamp[8:]}-7{digits[:3]}-8{digits[3:6]}-"
    return [shared + digits[at : at + 12] for at in range(6, len(digits), 12)]


def uuid7_randomness(count: int) -> int:
    """How many random bytes `uuid7s` needs for so many ids."""
    return 3 + 6 * count
