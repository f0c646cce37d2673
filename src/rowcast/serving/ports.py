"""The ports of this package: a cache of scores, and the destination of a reply.

Every cache adapter passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from rowcast.schema.prediction import Score


class Cache(Protocol):
    """Stores scores by row key. Entries may disappear at any time.

    Methods never raise an exception. If the cache fails, lookups return misses.
    """

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """Return the cached scores in the order of the keys, with None for misses."""
        ...

    def put(self, scores: Mapping[str, Score], seconds: float | None = None) -> None:
        """Store scores in the background; `seconds` overrides the default time to live."""
        ...


class Answer(Protocol):
    """The destination of a request's result: an `asyncio.Future`, or a cheaper object on the quick path.

    While `done` returns False, delivery never raises an exception, so that the batcher can answer the other requests.
    """

    def done(self) -> bool:
        """Return whether the request is finished or canceled."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Deliver the reply, or the list of replies."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Deliver the error."""
        ...
