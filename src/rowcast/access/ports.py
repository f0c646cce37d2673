"""Ports of the access package: a store of API keys, and a store of replies to requests with an Idempotency-Key.

Every adapter passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from rowcast.access.keys import Key
from rowcast.errors import Unavailable

IN_FLIGHT = "the first request with this Idempotency-Key is still in progress; retry in 1 s"
OTHER_REQUEST = "this Idempotency-Key was used for a different request; use a new key for each request"
LEASE_SECONDS = 20.0
"""The time until a claim expires unless its owner renews it. It is long enough that a process can be suspended for
several seconds without losing its claims."""


def idempotency_unavailable(reason: str) -> Unavailable:
    """Return the error to raise if the store of replies cannot be used."""
    message = f"cannot process a request with an Idempotency-Key: {reason}; retry later"
    return Unavailable(message, slug="idempotency-unavailable")


class KeyReader(Protocol):
    """Reads the API keys. A running server detects changes by comparing revisions."""

    def all(self) -> Sequence[Key]:
        """Return every key, including revoked keys; raise SettingsError or Unavailable if they cannot be read."""
        ...

    def revision(self) -> object:
        """Return a value that changes whenever the keys change.

        A server calls this method twice a second on its event loop. If an adapter's implementation can block, the
        server must call it in a thread (`runtime/key_follower.py`).
        """
        ...


class KeyWriter(KeyReader, Protocol):
    """Changes the API keys. A change is atomic: readers see either all of it or none of it, even if the writer dies."""

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys with the result of `edit`. Changes are serialized. If `edit` fails, nothing changes."""
        ...


class IdempotencyStore(Protocol):
    """Stores replies by idempotency key for all server processes, so that a repeated request receives the first reply.

    A process claims the key of a new request. The claim is a lease: it lasts until the process saves a reply, releases
    the key or lets the lease expire. The process renews the lease while the request is in progress. A store can void a
    dead process's claim before the lease expires. Each store object is a separate owner of claims. `now` is a Unix
    timestamp in seconds.
    """

    lease_seconds: float
    """The time until a claim expires unless it is renewed."""

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """Return the saved reply, or claim the key and return None.

        A caller that receives None must save a reply or release the key. Raise RepeatConflict if the key is already
        claimed, or if `fingerprint` differs from the first request's fingerprint. If the store cannot be used, raise
        Unavailable with the slug `idempotency-unavailable`.
        """
        ...

    def renew(self, keys: Collection[str], now: float) -> None:
        """Extend the leases of these claims. Claims that this owner has lost are not changed."""
        ...

    def save_reply(self, key: str, reply: bytes, now: float) -> None:
        """Save the reply for later requests with this key. This has no effect if this owner has lost the claim."""
        ...

    def release(self, key: str) -> None:
        """Release one of this owner's claims, so that the next request with this key is treated as a new request."""
        ...

    def purge(self, before: float) -> None:
        """Delete all claims and replies that were stored before this time."""
        ...

    def trim(self, max_bytes: int) -> None:
        """Delete replies until the remaining replies have at most `max_bytes` in total.

        The owners with the most data lose their oldest replies. The owner of a key is the text before its first colon.
        """
        ...

    def check(self) -> None:
        """Check the store without creating or changing anything; raise Unavailable if it cannot be used."""
        ...
