"""Scopes: the permissions of an API key."""

from __future__ import annotations

from typing import Literal

from rowcast.errors import SettingsError

Scope = Literal["predict", "read", "admin"]
SCOPES: tuple[Scope, ...] = ("predict", "read", "admin")


def parse_scopes(text: str) -> tuple[Scope, ...]:
    """Parse a list such as `predict,read`; raise SettingsError if it is empty or contains an unknown scope."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in SCOPES]
    available = ", ".join(SCOPES)
    if unknown:
        raise SettingsError(f"unknown scope {', '.join(map(repr, unknown))}; available scopes: {available}")
    if not names:
        raise SettingsError(f"no scope given; available scopes: {available}")
    return tuple(scope for scope in SCOPES if scope in names)
