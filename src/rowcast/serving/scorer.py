"""Hot path. Scores the encoded rows of all requests in a batch with one call to the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

from rowcast.errors import NoAnswer
from rowcast.schema.prediction import Score
from rowcast.serving.interface import ModelInterface
from rowcast.serving.requests import PendingRequest
from rowcast.serving.rows import Row

MAX_SLOW_ROWS = 64
"""The maximum number of rows in a slow model's batch. Every row waits until the whole batch is scored.

A single request with more rows forms its own batch.
"""
THREADS = 4
"""The maximum number of slow models that can score rows at the same time."""


class ScoredBatch(NamedTuple):
    """The scores of the successful requests, in order, and the errors of the failed requests, by position."""

    scores: list[Score]
    errors: dict[int, NoAnswer]


class Scorer(Protocol):
    """Computes the scores of a batch."""

    @property
    def max_batches(self) -> int:
        """The maximum number of batches of one slow model that are scored at the same time."""
        ...

    max_rows: int
    """The maximum number of rows in a slow model's batch, unless a single request has more."""

    def score(self, model: ModelInterface, requests: Sequence[Sequence[Row]]) -> ScoredBatch:
        """Return the scores of a fast model, or the cached scores of any model."""
        ...

    def score_later(self, model: ModelInterface, requests: Sequence[PendingRequest]) -> asyncio.Future[ScoredBatch]:
        """Score a slow model's batch without blocking the event loop."""
        ...


class LocalScorer:
    """Runs fast models on the event loop and slow models in threads. Every model is a LiveModel."""

    max_batches = 1
    max_rows = MAX_SLOW_ROWS

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def score(self, model: Any, requests: Sequence[Sequence[Row]]) -> ScoredBatch:
        """Score all requests in one call. If a row cannot be scored, only its own request fails."""
        try:
            return ScoredBatch(_scores(model, [row for rows in requests for row in rows]), {})
        except NoAnswer:
            return _score_separately(model, requests)

    def score_later(self, model: Any, requests: Sequence[PendingRequest]) -> asyncio.Future[ScoredBatch]:
        """Score all requests in one call, in a thread."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "score")
        rows = [request.rows for request in requests]
        return asyncio.get_running_loop().run_in_executor(self._threads, self.score, model, rows)


def _score_separately(model: Any, requests: Sequence[Sequence[Row]]) -> ScoredBatch:
    batch = ScoredBatch([], {})
    for number, rows in enumerate(requests):
        try:
            batch.scores.extend(_scores(model, rows))
        except NoAnswer as none:
            scored_rows = [place for place, row in enumerate(rows) if row.cached_score is None]
            batch.errors[number] = NoAnswer([scored_rows[row] for row in none.rows])
    return batch


def _scores(model: Any, rows: Sequence[Row]) -> list[Score]:
    """Return one score per row; the model scores only the rows without a cached score."""
    unknown = [row.encoded for row in rows if row.cached_score is None]
    scores = model.score(unknown) if unknown else []
    if len(scores) == len(rows):
        return scores
    fresh = iter(scores)
    return [next(fresh) if row.cached_score is None else row.cached_score for row in rows]
