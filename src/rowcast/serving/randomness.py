"""Buffered random bytes for ids and salts, so that most batches need no system call."""

from __future__ import annotations

import os

BLOCK_BYTES = 8192


class RandomBlocks:
    """A buffer of `os.urandom` bytes. Each byte is used once; a forked child discards the buffer that it inherits."""

    def __init__(self) -> None:
        self._block = b""
        self._position = 0
        os.register_at_fork(after_in_child=self._discard)

    def take(self, count: int) -> bytes:
        """Return `count` random bytes. Hot path."""
        start = self._position
        end = start + count
        if end > len(self._block):
            if count > BLOCK_BYTES:
                return os.urandom(count)
            self._block = os.urandom(BLOCK_BYTES)
            start, end = 0, count
        self._position = end
        return self._block[start:end]

    def _discard(self) -> None:
        self._block, self._position = b"", 0
