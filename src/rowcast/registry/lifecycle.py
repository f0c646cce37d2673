"""Promote, roll back and delete published versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from rowcast.errors import ModelNotFound, RegistryError
from rowcast.registry import bundle
from rowcast.registry.alias_log import previous_version
from rowcast.registry.ports import Reference, RegistryWriter
from rowcast.registry.resolve import CHAMPION, resolve

MAX_REASON: Final = 500
CHALLENGER = "challenger"
"""The alias of a trained version that has not replaced the champion."""


def promote(registry: RegistryWriter, text: str, *, alias: str = CHAMPION, reason: str = "") -> Reference:
    """Point the alias at a version, and return the version. A reference without a version means the challenger.

    Raise BundleError if any of the version's files is damaged.
    """
    reason = _check_reason(reason)
    reference = resolve(text if "@" in text else f"{text}@{CHALLENGER}", registry)
    bundle.verify(registry.folder(reference))
    registry.point(reference, alias, reason=reason)
    return reference


def roll_back(registry: RegistryWriter, name: str, *, reason: str = "") -> Reference:
    """Point the champion alias at the previous champion, as recorded in the log, and return that version."""
    reason = _check_reason(reason)
    current = registry.aliases(name).get(CHAMPION)
    if current is None:
        raise ModelNotFound(f"model {name!r} has no champion; promote a version with `rowcast models promote`")
    published = registry.models().get(name, ())
    previous = previous_version(registry.log(name), CHAMPION, current, published)
    if previous is None:
        raise RegistryError(
            f"the log records no champion of {name!r} before version {current}; promote a version with `rowcast models "
            f"promote {name}@VERSION`",
            slug="no-previous-champion",
        )
    reference = Reference(name, previous)
    bundle.verify(registry.folder(reference))
    registry.point(reference, CHAMPION, reason=reason, expected=current, rollback=True)
    return reference


def delete(
    registry: RegistryWriter, text: str, *, is_recorded: Callable[[Reference], bool], force: bool = False
) -> Reference:
    """Delete a version that no alias points to.

    Without `force`, raise RegistryError if the history contains predictions made by the version, because those
    predictions could no longer be replayed.
    """
    if "@" not in text:
        raise RegistryError(f"{text!r} lacks a version; write {text}@3, for example")
    reference = resolve(text, registry)
    registry.require_unused(reference)
    if not force and is_recorded(reference):
        raise RegistryError(
            f"the history contains predictions made by {reference}, which could no longer be replayed; to delete the "
            "version anyway, use --force",
            slug="version-recorded",
        )
    registry.delete(reference)
    return reference


def _check_reason(reason: str) -> str:
    """Return the reason as one line; raise RegistryError if it is too long or contains control characters."""
    line = " ".join(reason.split())
    if len(line) > MAX_REASON or not line.isprintable():
        raise RegistryError(
            f"the reason must be at most {MAX_REASON} characters long and must not contain control characters"
        )
    return line
