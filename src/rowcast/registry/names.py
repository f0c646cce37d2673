"""The rules for the names of models and aliases."""

from __future__ import annotations

import re

from rowcast.errors import RegistryError

NAME_RULE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
ALIAS_RULE = re.compile(r"[a-z][a-z0-9_-]{0,31}")
RESERVED = frozenset({"info", "reload"})
"""Names that conflict with the HTTP paths `/models/info` and `/models/reload`."""


def check_name(name: str) -> str:
    """Return the name; raise RegistryError if it is not a valid model name."""
    if not NAME_RULE.fullmatch(name):
        raise RegistryError(
            f"invalid model name {name!r}; use 1 to 64 characters from a-z, 0-9, '.', '_' and '-', starting with a "
            "letter or a digit"
        )
    if name in RESERVED:
        raise RegistryError(f"model name {name!r} is reserved; choose another name")
    return name


def name_from(text: str) -> str:
    """Convert any text into a valid model name: `Loan data 2026` becomes `loan-data-2026`."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")[:64] or "model"


def check_alias(alias: str) -> str:
    """Return the alias; raise RegistryError if it is not valid."""
    if not ALIAS_RULE.fullmatch(alias):
        raise RegistryError(f"invalid alias {alias!r}; use a-z, 0-9, '_' and '-', starting with a letter")
    return alias
