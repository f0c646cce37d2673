"""The stored API keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rowcast.access.ports import KeyWriter
    from rowcast.settings import Settings


def keys(settings: Settings) -> KeyWriter:
    """Return the store of API keys in this home folder."""
    from rowcast.adapters.files.keys import FileKeys

    return FileKeys(settings.keys_file)


def has_key(settings: Settings) -> bool:
    """Return whether any API key exists; if so, callers must send a key."""
    return settings.api_key is not None or bool(keys(settings).all())
