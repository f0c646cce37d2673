"""`rowcast models promote`, `rollback` and `delete`: change which versions are live, and print the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowcast.app import lifecycle
from rowcast.cli import output
from rowcast.registry.lifecycle import CHALLENGER
from rowcast.registry.resolve import CHAMPION

if TYPE_CHECKING:
    from rowcast.registry.ports import Reference
    from rowcast.settings import Settings

KNOWN_ALIASES = (CHAMPION, CHALLENGER)


def promote(settings: Settings, model: str, *, alias: str, reason: str, as_json: bool) -> None:
    """Point an alias at a version, and print the version."""
    _print_alias(lifecycle.promote(settings, model, alias=alias, reason=reason), alias, as_json=as_json)


def roll_back(settings: Settings, name: str, *, reason: str, as_json: bool) -> None:
    """Make the previous champion the champion again, and print its version."""
    _print_alias(lifecycle.roll_back(settings, name, reason=reason), CHAMPION, as_json=as_json)


def delete(settings: Settings, model: str, *, force: bool, as_json: bool) -> None:
    """Delete a version, and print its name."""
    deleted = lifecycle.delete(settings, model, force=force)
    if as_json:
        output.print_json({"model": deleted.name, "version": deleted.version})
    else:
        output.say(f"deleted {deleted}")


def _print_alias(reference: Reference, alias: str, *, as_json: bool) -> None:
    if as_json:
        output.print_json({"model": reference.name, "version": reference.version, "alias": alias})
    else:
        output.say(describe_move(alias, str(reference)))


def describe_move(alias: str, version: str) -> str:
    """Return a sentence that says which version an alias points to now."""
    return f"{version} is now the {alias}" if alias in KNOWN_ALIASES else f"the alias {alias} now points to {version}"
