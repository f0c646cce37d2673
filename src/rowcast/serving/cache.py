"""Looks up and stores scores in the cache. Only this module calls the `Cache` port."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from rowcast.schema.identity import row_key
from rowcast.schema.prediction import Score
from rowcast.serving.interface import ModelInterface
from rowcast.serving.ports import Cache
from rowcast.serving.rows import Row


class ScoreCache:
    """Looks up scores before rows are batched, and stores new scores."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache

    async def look_up(self, model: ModelInterface, rows: Sequence[Row], tenant: str) -> list[Row]:
        """Return the rows with their cache keys and, for cache hits, their scores. Tenants never share scores."""
        plan, digest = model.encoder.plan, model.digest
        keys = [row_key(digest, plan, row.encoded, tenant) for row in rows if row.uses_cache]
        known = zip(keys, await self._cache.get(keys), strict=True)
        result = []
        for row in rows:
            if row.uses_cache:
                key, score = next(known)
                row = msgspec.structs.replace(row, cache_key=key, cached_score=score)
            result.append(row)
        return result

    def store(self, rows: Sequence[Row], scores: Sequence[Score]) -> None:
        """Store the new scores, each with the time to live that its request specifies."""
        fresh: dict[int, dict[str, Score]] = {}
        for row, score in zip(rows, scores, strict=True):
            if row.cache_key and row.cached_score is None:
                fresh.setdefault(row.cache_seconds, {})[row.cache_key] = score
        for seconds, by_key in fresh.items():
            self._cache.put(by_key, seconds or None)
