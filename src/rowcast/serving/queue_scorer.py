"""Scores batches in workers: sends one message per batch to the queue and waits for the reply."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from typing import Final

from rowcast.errors import NoAnswer
from rowcast.schema.prediction import Score
from rowcast.serving.interface import ModelInterface
from rowcast.serving.ports import Queue
from rowcast.serving.queue_messages import decode_scores, encode_rows
from rowcast.serving.requests import PendingRequest, expire
from rowcast.serving.rows import Row
from rowcast.serving.scorer import ScoredBatch

BATCHES_PER_WORKER: Final = 2
"""The maximum number of unanswered batches of a model per live worker. Further rows wait and form larger batches.

A higher limit makes batches smaller, so each row costs more CPU time (`make bench-queue`).
"""
MAX_ROWS: Final = 256
FOREVER: Final = 3600.0
"""The lifetime, in seconds, of a message without a deadline."""


class QueueScorer:
    """Sends batches to workers. A request whose deadline passes is answered without waiting for a worker."""

    max_rows = MAX_ROWS

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    @property
    def max_batches(self) -> int:
        """The maximum number of unanswered batches of a model."""
        return BATCHES_PER_WORKER * max(1, self._queue.workers)

    def score(self, model: ModelInterface, requests: Sequence[Sequence[Row]]) -> ScoredBatch:
        """Return the cached scores. The batcher calls this method only if every row has a cached score."""
        return ScoredBatch([row.cached_score for rows in requests for row in rows if row.cached_score is not None], {})

    def score_later(self, model: ModelInterface, requests: Sequence[PendingRequest]) -> asyncio.Future[ScoredBatch]:
        """Send the rows without a cached score; return a future for the scores of all rows."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[ScoredBatch] = loop.create_future()
        seconds = max(request.context.deadline for request in requests) - time.perf_counter()
        unknown = [[row.encoded for row in request.rows if row.cached_score is None] for request in requests]
        try:
            reply = self._queue.send(encode_rows(unknown), model.digest, min(max(seconds, 0.001), FOREVER))
        except Exception as error:  # the error must reach every request in the batch
            result.set_exception(error)
            return result
        batch = _Batch(requests, reply, result)
        batch.watch()
        reply.add_done_callback(batch.finish)
        return result


class _Batch:
    """A batch whose reply has not arrived."""

    def __init__(
        self, requests: Sequence[PendingRequest], reply: asyncio.Future[bytes], result: asyncio.Future[ScoredBatch]
    ) -> None:
        self._requests = requests
        self._reply = reply
        self._result = result
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Fail the requests whose deadline has passed. If no request is left, stop waiting for the reply."""
        now = time.perf_counter()
        waiting = [request for request in self._requests if not expire(request, now)]
        if not waiting:
            self._reply.cancel()
            return
        next_deadline = min(request.context.deadline for request in waiting)
        if next_deadline < math.inf:
            # Both clocks are rounded, so add a millisecond: the timer must not fire before the deadline.
            self._timer = asyncio.get_running_loop().call_later(next_deadline - now + 0.001, self.watch)

    def finish(self, reply: asyncio.Future[bytes]) -> None:
        """Pass the scores or the error on to the batcher."""
        if self._timer is not None:
            self._timer.cancel()
        if self._result.done():
            return
        if reply.cancelled():
            self._result.set_result(ScoredBatch([], {number: NoAnswer([0]) for number in range(len(self._requests))}))
            return
        try:
            self._result.set_result(self._merge(reply.result()))
        except Exception as error:
            self._result.set_exception(error)

    def _merge(self, reply: bytes) -> ScoredBatch:
        """Combine the scores from the worker with the cached scores."""
        message = decode_scores(reply)
        batch = ScoredBatch([], {})
        fresh = iter(message.scores)
        for number, request in enumerate(self._requests):
            failed = message.errors.get(number)
            if failed is not None:
                sent = [place for place, row in enumerate(request.rows) if row.cached_score is None]
                batch.errors[number] = NoAnswer([sent[row] for row in failed])
                continue
            batch.scores.extend([_score(row, fresh) for row in request.rows])
        return batch


def _score(row: Row, fresh: Iterator[Score]) -> Score:
    return next(fresh) if row.cached_score is None else row.cached_score
