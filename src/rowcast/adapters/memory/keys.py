"""API keys in the memory of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rowcast.access.keys import Key


class MemoryKeys:
    """Keeps API keys until the process exits."""

    def __init__(self, keys: Sequence[Key] = ()) -> None:
        self._keys = tuple(keys)

    def all(self) -> Sequence[Key]:
        """Return every key."""
        return self._keys

    def revision(self) -> object:
        """Return the tuple of keys; every change creates a new tuple."""
        return self._keys

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys."""
        self._keys = tuple(edit(self._keys))
