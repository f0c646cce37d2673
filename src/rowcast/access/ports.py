"""Ports of the access package: a store of API keys, and a store of replies to requests with an Idempotency-Key.

Every adapter passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rowcast.access.keys import Key

IN_FLIGHT = "the first request with this Idempotency-Key is still in progress; retry in 1 s"
OTHER_REQUEST = "this Idempotency-Key was used for a different request; use a new key for each request"


class KeyReader(Protocol):
    """Reads the API keys. A running server detects changes by comparing revisions."""

    def all(self) -> Sequence[Key]:
        """Return every key, including revoked keys; raise SettingsError if the keys cannot be read."""
        ...

    def revision(self) -> object:
        """Return a value that changes whenever the keys change. This must be cheap enough to call every second."""
        ...


class KeyWriter(KeyReader, Protocol):
    """Changes the API keys. A change is atomic: readers see either all of it or none of it, even if the writer dies."""

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys with the result of `edit`. Changes run one at a time; if `edit` raises, nothing changes."""
        ...


class IdempotencyStore(Protocol):
    """Stores replies by idempotency key for all server processes, so that a repeated request receives the first reply.

    A claim belongs to the process that made it until that process saves a reply or releases the key. Claims of dead
    processes and claims older than the store's limit are void. `now` is in UTC seconds.
    """

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """Return the saved reply, or None if the caller now owns the key and must save a reply or release the key.

        Raise RepeatConflict while another process owns the key, or if `fingerprint` differs from that of the first
        request. Raise Unavailable if the store cannot be used.
        """
        ...

    def save_reply(self, key: str, reply: bytes, now: float) -> None:
        """Save the reply that later requests with this key receive."""
        ...

    def release(self, key: str) -> None:
        """Release a claim, so that the next request with this key is treated as the first."""
        ...

    def purge(self, before: float) -> None:
        """Delete claims and replies that are older than this time."""
        ...

    def check(self) -> None:
        """Raise Unavailable if the store cannot be used. This does not create or change anything."""
        ...
