"""Stores replies by idempotency key in the memory of one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from rowcast.access.fair_shares import fair_share
from rowcast.access.ports import IN_FLIGHT, LEASE_SECONDS, OTHER_REQUEST
from rowcast.errors import RepeatConflict


class MemoryIdempotencyStore:
    """Keeps claims and replies until the process exits."""

    def __init__(self, lease_seconds: float = LEASE_SECONDS) -> None:
        self.lease_seconds = lease_seconds
        self._claims: dict[str, tuple[bytes, float, bytes | None]] = {}
        """Maps each key to a fingerprint, a timestamp, and the saved reply or None."""

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """Return the saved reply, or claim the key and return None."""
        first, at, reply = self._claims.get(key, (fingerprint, now, None))
        if first != fingerprint:
            raise RepeatConflict(OTHER_REQUEST, slug="repeat-differs")
        if reply is None and key in self._claims and now < at + self.lease_seconds:
            raise RepeatConflict(IN_FLIGHT)
        if reply is None:
            self._claims[key] = (fingerprint, now, None)
        return reply

    def renew(self, keys: Collection[str], now: float) -> None:
        """Extend the leases of these claims."""
        for key in keys:
            if key in self._claims and self._claims[key][2] is None:
                self._claims[key] = (self._claims[key][0], now, None)

    def save_reply(self, key: str, reply: bytes, now: float) -> None:
        """Save the reply for later requests."""
        self._claims[key] = (self._claims[key][0], now, reply)

    def release(self, key: str) -> None:
        """Release a claim."""
        if key in self._claims and self._claims[key][2] is None:
            del self._claims[key]

    def purge(self, before: float) -> None:
        """Delete old claims and replies."""
        self._claims = {key: claim for key, claim in self._claims.items() if claim[1] >= before}

    def trim(self, max_bytes: int) -> None:
        """Delete the oldest replies of the owners that use the most space."""
        sizes: Counter[str] = Counter()
        for key, (_, _, reply) in self._claims.items():
            sizes[_owner(key)] += len(reply or b"")
        share, kept = fair_share(sizes.values(), max_bytes), Counter[str]()
        for key, (_, _, reply) in sorted(self._claims.items(), key=lambda item: item[1][1], reverse=True):
            kept[_owner(key)] += len(reply or b"")
            if reply is not None and kept[_owner(key)] > share:
                del self._claims[key]

    def check(self) -> None:
        """Do nothing: memory is always available."""


def _owner(key: str) -> str:
    return key[: key.find(":") + 1]
