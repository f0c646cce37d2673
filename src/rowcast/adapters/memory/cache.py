"""A score cache in the memory of one process."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from rowcast.schema.prediction import Score


class MemoryCache:
    """Holds up to `entries` scores for up to `seconds` each; a full cache evicts the least recently used score."""

    def __init__(self, entries: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._entries = entries
        self._seconds = seconds
        self._clock = clock
        self._scores: OrderedDict[str, tuple[float, Score]] = OrderedDict()

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """Return the cached score for each key, or None for each key that is not cached."""
        now, cached = self._clock(), self._scores
        scores: list[Score | None] = []
        for key in keys:
            until, score = cached.get(key, (now, None))
            if score is not None and now < until:
                cached.move_to_end(key)
                scores.append(score)
            else:
                scores.append(None)
        return scores

    def put(self, scores: Mapping[str, Score], seconds: float | None = None) -> None:
        """Cache scores by key for `seconds`, or for the default time if `seconds` is None."""
        until = self._clock() + (self._seconds if seconds is None else seconds)
        for key, score in scores.items():
            self._scores[key] = (until, score)
            self._scores.move_to_end(key)
        while len(self._scores) > self._entries:
            self._scores.popitem(last=False)
