"""What serving needs from the world: a cache of outcomes.

Every implementation passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from rowcast.schema.prediction import Score


class Cache(Protocol):
    """Outcomes by row key. It may forget anything at any time, and a part that fails knows nothing: it never raises."""

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """What is known, in order of the keys."""
        ...

    def put(self, found: Mapping[str, Score], seconds: float | None = None) -> None:
        """Remember, for so long if it is said, without making anybody wait."""
        ...
