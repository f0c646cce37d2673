"""Canonical bytes, digests and ids. A digest's prefix identifies the version of the rule that produced the digest."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

import msgspec

from rowcast.schema.encoding import EncodedRow, Plan

BUNDLE_RULE = "rb1-"
ROW_RULE = "rk2-"


def canonical_json(value: Any) -> bytes:
    """Return the value as UTF-8 JSON with sorted keys and no whitespace; equal values produce identical bytes."""
    return msgspec.json.encode(msgspec.to_builtins(value), order="sorted")


def bundle_digest(serving: Any, files: Iterable[tuple[str, str]]) -> str:
    """Return the digest of everything that affects predictions.

    The digest covers the serving part of `bundle.json` and the sha256 of each serving file.
    """
    named = [[name, sha256] for name, sha256 in sorted(files)]
    return BUNDLE_RULE + hashlib.sha256(canonical_json([serving, named])).hexdigest()


def row_key(digest: str, plan: Plan, row: EncodedRow, tenant: str) -> str:
    """Return the cache key of a row.

    Two keys are equal if and only if the bundles, the encoded values and the tenants are equal. Keys depend on the
    tenant because a cache hit would otherwise reveal that another tenant has sent the same row.
    """
    owner = tenant.encode()
    key = hashlib.sha256(digest.encode() + struct.pack("<I", len(owner)) + owner)
    for spec, values in zip(plan, row.inputs, strict=True):
        if isinstance(values, bytes):
            if spec.dtype in ("float32", "float64"):
                values = _without_negative_zero(values, "f" if spec.dtype == "float32" else "d")
            key.update(b"n" + struct.pack("<I", len(values)) + values)
        else:
            key.update(b"t" + struct.pack("<I", len(values)))
            for text in values:
                encoded = text.encode()
                key.update(struct.pack("<I", len(encoded)) + encoded)
    return ROW_RULE + key.hexdigest()


def _without_negative_zero(packed: bytes, code: str) -> bytes:
    form = f"<{len(packed) // struct.calcsize(code)}{code}"
    return struct.pack(form, *[number + 0.0 for number in struct.unpack(form, packed)])


def uuid7s(milliseconds: int, random: bytes) -> list[str]:
    """Return lowercase UUIDv7s with the same timestamp.

    The ids share three random bytes, and each id has six more random bytes of its own.
    """
    stamp, digits = f"{milliseconds:012x}", random.hex()
    shared = f"{stamp[:8]}-{stamp[8:]}-7{digits[:3]}-8{digits[3:6]}-"
    return [shared + digits[at : at + 12] for at in range(6, len(digits), 12)]


def uuid7_randomness(count: int) -> int:
    """Return the number of random bytes that `uuid7s` needs for `count` ids."""
    return 3 + 6 * count
