"""Operations that change which versions are live: promote, roll back and delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rowcast.app.history import history
from rowcast.app.models import registry
from rowcast.registry import lifecycle
from rowcast.registry.ports import Reference

if TYPE_CHECKING:
    from rowcast.settings import Settings


def promote(settings: Settings, reference: str, *, alias: str, reason: str) -> Reference:
    """Point an alias at a version, and return the version."""
    return lifecycle.promote(registry(settings), reference, alias=alias, reason=reason)


def roll_back(settings: Settings, name: str, *, reason: str) -> Reference:
    """Make the previous champion the champion again, and return its version."""
    return lifecycle.roll_back(registry(settings), name, reason=reason)


def delete(settings: Settings, reference: str, *, force: bool) -> Reference:
    """Delete a version that no alias points to; without `force`, only if it has no recorded predictions."""
    return lifecycle.delete(
        registry(settings), reference, is_recorded=lambda version: _is_recorded(settings, version), force=force
    )


def _is_recorded(settings: Settings, version: Reference) -> bool:
    """Return whether the store or a journal contains a prediction made by this version."""
    from rowcast.history.chain import decode_head
    from rowcast.history.entry_filter import Selection
    from rowcast.history.records import decode_reply

    recorded = history(settings)
    if recorded.page(1, Selection(model=version.name, version=version.version)).predictions:
        return True
    if not recorded.catch_up(0):
        return False
    entries = recorded.entries(version.name)
    return any(decode_reply(decode_head(entry.head).reply).version == version.version for _, entry in entries)
