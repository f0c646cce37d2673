"""Hot path. Scores the encoded rows of all requests in a batch with one call to the model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from rowcast.errors import NoAnswer
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row

THREADS = 4
"""The maximum number of slow models that can score rows at the same time."""


class ScoredBatch(NamedTuple):
    """The scores of the successful requests, in order, and the errors of the failed requests, by position."""

    scores: list[Score]
    errors: dict[int, NoAnswer]


class LocalScorer:
    """Runs fast models on the event loop and slow models in separate threads."""

    def __init__(self) -> None:
        self._threads: ThreadPoolExecutor | None = None

    def score(self, model: LiveModel, requests: Sequence[Sequence[Row]]) -> ScoredBatch:
        """Score all requests in one call. If a row cannot be scored, only its own request fails."""
        try:
            return ScoredBatch(_scores(model, [row for rows in requests for row in rows]), {})
        except NoAnswer:
            return _score_separately(model, requests)

    def score_later(self, model: LiveModel, requests: Sequence[Sequence[Row]]) -> asyncio.Future[ScoredBatch]:
        """In a separate thread, score all requests in one call."""
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, "score")
        return asyncio.get_running_loop().run_in_executor(self._threads, self.score, model, requests)


def _score_separately(model: LiveModel, requests: Sequence[Sequence[Row]]) -> ScoredBatch:
    batch = ScoredBatch([], {})
    for number, rows in enumerate(requests):
        try:
            batch.scores.extend(_scores(model, rows))
        except NoAnswer as none:
            scored_rows = [place for place, row in enumerate(rows) if row.cached_score is None]
            batch.errors[number] = NoAnswer([scored_rows[row] for row in none.rows])
    return batch


def _scores(model: LiveModel, rows: Sequence[Row]) -> list[Score]:
    """Return one score per row; the model scores only the rows without a cached score."""
    unknown = [row.encoded for row in rows if row.cached_score is None]
    scores = model.score(unknown) if unknown else []
    if len(scores) == len(rows):
        return scores
    fresh = iter(scores)
    return [next(fresh) if row.cached_score is None else row.cached_score for row in rows]
