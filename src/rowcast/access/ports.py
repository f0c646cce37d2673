"""What access needs from the world: where keys are kept, and which requests were answered before.

Every implementation passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from rowcast.access.keys_and_quotas import Key


class KeyReader(Protocol):
    """The API keys, as a server follows them."""

    def all(self) -> Sequence[Key]:
        """Every key, revoked ones included; SettingsError when they cannot be read."""
        ...

    def mark(self) -> object:
        """Something cheap that differs once the keys have changed."""
        ...


class KeyWriter(KeyReader, Protocol):
    """Changes are atomic: readers see the keys before or after, whoever dies meanwhile."""

    def change(self, edit: Callable[[Sequence[Key]], Sequence[Key]]) -> None:
        """Replace all keys by what `edit` makes of them; one change at a time. Nothing changes if `edit` raises."""
        ...


IN_FLIGHT = "the first request with this Idempotency-Key is not answered yet; try again in a second"


OTHER_REQUEST = "this Idempotency-Key was used for another request; choose a new key for a new request"


class Repeats(Protocol):
    """Requests that may come again: the first one is answered, the others get its reply. Shared by all workers.

    A claim is its process's until it is kept or released; claims of dead processes, and those held for too long, are
    void. `now` is in seconds and the same clock for everyone.
    """

    def claim(self, key: str, fingerprint: bytes, now: float) -> bytes | None:
        """None: the caller answers, then keeps or releases. Else the reply that was kept. RepeatConflict while the
        first is in flight, or when it was another request; Unavailable when nothing can be claimed."""
        ...

    def keep(self, key: str, reply: bytes, now: float) -> None:
        """The reply that repeats get from now on."""
        ...

    def release(self, key: str) -> None:
        """Let the next one be the first."""
        ...

    def purge(self, before: float) -> None:
        """Forget what was claimed before that moment."""
        ...
