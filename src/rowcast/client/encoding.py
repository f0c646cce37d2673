"""Encodes rows as JSON, including values from numpy, pandas and polars. This module imports none of these libraries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rowcast.client.errors import BadCall


def encode(value: Any, subject: str) -> bytes:
    """Return the value as JSON; if this is not possible, raise BadCall with a message about `subject`."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        reason = type(error).__name__  # the error's own message may contain a value from the row
        raise BadCall(f"cannot encode {subject} as JSON ({reason}); use JSON-compatible values") from None


def _to_plain(value: Any) -> Any:
    """Convert a mapping, or a numpy or pandas scalar, to a built-in type."""
    if isinstance(value, Mapping):
        return dict(value)
    match type(value).__name__:
        case "NAType" | "NaTType":
            return None
        case "Timestamp":
            return value.isoformat(timespec="microseconds")
        case "datetime64":  # `item` would return nanoseconds as a number
            return value.astype("datetime64[us]").item()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError


_ENCODER = msgspec.json.Encoder(enc_hook=_to_plain, decimal_format="number")
