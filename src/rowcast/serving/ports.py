"""What serving needs from the world: a cache of scores, and somewhere to deliver answers.

Every cache passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rowcast.schema.prediction import Score


class Cache(Protocol):
    """Scores by row key. A cache may forget anything at any time. It never raises: a failing cache knows nothing."""

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """Return the known scores, in the order of the keys."""
        ...

    def put(self, scores: Mapping[str, Score], seconds: float | None = None) -> None:
        """Store scores without making the caller wait; `seconds` overrides the cache's own time to live."""
        ...


class Answer(Protocol):
    """Where the result of one request goes. `asyncio.Future` is one; the HTTP server has a cheaper one.

    Delivering raises nothing while `done` returns False: the batcher must reach the other requests of a batch.
    """

    def done(self) -> bool:
        """Return whether nobody waits for the result any more."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Deliver the reply, or the list of replies."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Deliver the error."""
        ...
