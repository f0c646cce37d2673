"""Hot path. The rows of concurrent requests are scored in one model call and recorded in one journal write.

There is no timer: the first request schedules a callback on the event loop, and every request that arrives before the
callback runs joins the batch. Requests for a slow model are queued and scored in a thread, one batch at a time.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from rowcast.access.context import RequestContext
from rowcast.errors import NoAnswer, Overloaded, TooLate, Unavailable
from rowcast.history.blocks import Block, BlockColumn
from rowcast.serving.cache import ScoreCache
from rowcast.serving.interface import ModelInterface
from rowcast.serving.recorder import Recorder
from rowcast.serving.requests import EXPIRED, PendingRequest, expire
from rowcast.serving.scorer import ScoredBatch, Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rowcast.serving.live_models import LiveModel

MAX_TURNS = 8
"""The maximum number of event-loop iterations for which a batch waits for more requests."""


class QueueState(NamedTuple):
    """The number of rows in the queue, and the age of the oldest request in seconds."""

    rows: int
    seconds: float


class _Place(msgspec.Struct):
    """A request in a slow model's queue."""

    request: PendingRequest
    timer: asyncio.TimerHandle | None = None
    expired: bool = False


class _Line(msgspec.Struct):
    """A slow model's queue, and the number of the model's batches that are being scored."""

    places: deque[_Place]
    batches: int = 0


class Batcher:
    """Collects requests into batches, and scores, records and answers them. Not thread-safe: runs on one event loop."""

    def __init__(
        self,
        scorer: Scorer,
        recorder: Recorder,
        *,
        max_waiting: int = 10_000,
        cache: ScoreCache | None = None,
    ) -> None:
        self._scorer = scorer
        self._recorder = recorder
        self._cache = cache
        self._max_waiting = max_waiting
        self._refusal: str | None = None
        self._waiting: list[PendingRequest] = []
        self._last_batch = 0
        self._rows_waiting = 0
        self._rows_in_lines = 0
        self._lines: dict[ModelInterface, _Line] = {}
        # The arrival time of the first request in the batch, and of each request in the slow models' queues, in order.
        self._first_arrival = 0.0
        self._arrivals: dict[int, float] = {}
        # Cache the loop: on Python 3.11, asyncio.get_running_loop makes a system call.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context = Context()

    def submit(self, request: PendingRequest, *, is_alone: bool = False) -> None:
        """Add a request to the next batch; raise Overloaded or Unavailable if it cannot be accepted. Hot path.

        If no other client is sending requests (`is_alone`), the request is processed immediately instead of in the next
        event-loop iteration.
        """
        self.check_capacity()
        waiting = self._waiting
        if not waiting:
            self._first_arrival = time.perf_counter()
            if is_alone:
                self._last_batch = 1
                self._context.run(self._process, request.model, [request])
                return
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            # Use a separate context, so that a batch's log lines do not contain the first request's ids.
            self._loop.call_soon(self._gather, 0, MAX_TURNS, context=self._context)
        waiting.append(request)
        self._rows_waiting += len(request.rows)

    def record_block(
        self,
        model: LiveModel,
        tensors: Mapping[str, NDArray[Any]],
        columns: Sequence[BlockColumn],
        body: bytes,
        context: RequestContext,
    ) -> Block:
        """Score the rows of one request and record them as one block, without batching. Hot path."""
        self.check_capacity()
        if context.deadline < time.perf_counter():
            raise TooLate(EXPIRED)
        output, outside = model.run(tensors), model.ranges.find(tensors)
        return self._recorder.record_block(model, output, columns, body, context, outside=outside)

    def check_capacity(self) -> None:
        """Raise Overloaded if too many rows are waiting, or Unavailable if new predictions are being rejected."""
        if self._rows_waiting >= self._max_waiting:
            raise Overloaded(f"the server is overloaded: {self._rows_waiting} rows are waiting; retry after 1 s")
        if self._refusal is not None:
            raise Unavailable(self._refusal, slug="disk-low")

    def refuse(self, reason: str | None) -> None:
        """Reject new predictions with this reason; pass None to accept them again."""
        self._refusal = reason

    def queue(self) -> QueueState:
        """Return the state of the queue. Thread-safe."""
        arrivals = list(self._arrivals.values())[:1]
        if self._waiting:
            arrivals.append(self._first_arrival)
        age = max(0.0, time.perf_counter() - min(arrivals)) if arrivals else 0.0
        return QueueState(self._rows_waiting, age)

    def _gather(self, seen: int, turns: int) -> None:
        """Wait for further event-loop iterations as long as more requests arrive, then process the batch.

        A full batch costs a third less per row than two half-full batches and, at 32 connections, finishes sooner. A
        lone request that follows a batch of one request does not wait.
        """
        count = len(self._waiting)
        if count > seen and turns and (count > 1 or self._last_batch > 1):
            assert self._loop is not None
            self._loop.call_soon(self._gather, count, turns - 1, context=self._context)
        else:
            self._last_batch = count
            self._tick()

    def _tick(self) -> None:
        waiting, self._waiting, self._rows_waiting = self._waiting, [], self._rows_in_lines
        now = time.perf_counter()
        by_model: dict[ModelInterface, list[PendingRequest]] = {}
        for request in waiting:
            if not expire(request, now):
                by_model.setdefault(request.model, []).append(request)
        for model, requests in by_model.items():
            self._process(model, requests)

    def _process(self, model: ModelInterface, requests: list[PendingRequest]) -> None:
        """Score, record and answer requests for one model; queue them if the model is slow."""
        if model.is_slow:
            requests = self._queue_slow(model, requests)
        if requests:
            try:
                batch = self._scorer.score(model, [request.rows for request in requests])
                self._finish(model, requests, batch)
            except Exception as error:  # the error must reach every request in the batch
                _fail(requests, error)

    def _finish(self, model: ModelInterface, requests: Sequence[PendingRequest], batch: ScoredBatch) -> None:
        """Record the scores and answer all requests in the batch."""
        scores = batch.scores
        if batch.errors:
            for number, error in batch.errors.items():
                _fail([requests[number]], NoAnswer(error.rows, alone=requests[number].is_single))
            requests = [request for number, request in enumerate(requests) if number not in batch.errors]
            if not requests:
                return
        rows = [row for request in requests for row in request.rows]
        contexts = [request.context for request in requests for _ in request.rows]
        if self._cache is not None:  # first, so that a retry after a failed write does not need the model
            self._cache.store(rows, scores)
        replies = self._recorder.record(model, rows, contexts, scores)
        self._recorder.when_durable(partial(_answer, requests, replies))
        self._recorder.announce(model, rows, scores)

    def _queue_slow(self, model: ModelInterface, requests: list[PendingRequest]) -> list[PendingRequest]:
        """Queue the requests that need a slow model; return the requests whose rows are all in the cache."""
        known: list[PendingRequest] = []
        unknown: list[PendingRequest] = []
        for request in requests:
            (known if all(row.cached_score is not None for row in request.rows) else unknown).append(request)
        if not unknown:
            return known
        rows = sum(len(request.rows) for request in unknown)
        self._rows_in_lines += rows
        self._rows_waiting += rows
        self._arrivals.update((id(request), self._first_arrival) for request in unknown)
        places = [self._place(request) for request in unknown]
        line = self._lines.setdefault(model, _Line(deque()))
        line.places.extend(places)
        self._score_next(model)
        return known

    def _place(self, request: PendingRequest) -> _Place:
        """Return the queue entry for a request. The entry expires at the request's deadline."""
        place = _Place(request)
        if request.context.deadline < math.inf:
            left = request.context.deadline - time.perf_counter()
            place.timer = asyncio.get_running_loop().call_later(left, self._expire, place)
        return place

    def _expire(self, place: _Place) -> None:
        """Fail an expired request with TooLate, and remove all expired entries from the head of the queue."""
        expire(place.request, math.inf)
        self._leave_line(place.request)
        place.expired = True
        places = self._lines[place.request.model].places
        while places and places[0].expired:
            places.popleft()

    def _score_next(self, model: ModelInterface) -> None:
        """Score the first requests in a slow model's queue, unless too many of its batches are already being scored."""
        line = self._lines[model]
        while line.places and line.batches < self._scorer.max_batches:
            batch = self._next_batch(line.places)
            if batch:
                line.batches += 1
                scoring = self._scorer.score_later(model, batch)
                scoring.add_done_callback(partial(self._slow_scored, model, batch))
        if not line.places and not line.batches:
            del self._lines[model]

    def _next_batch(self, places: deque[_Place]) -> list[PendingRequest]:
        """Remove the requests of the next batch from a slow model's queue."""
        batch: list[PendingRequest] = []
        count = 0
        while places and (not batch or count + len(places[0].request.rows) <= self._scorer.max_rows):
            place = places.popleft()
            if place.expired:
                continue
            if place.timer is not None:
                place.timer.cancel()
            request = place.request
            if expire(request, time.perf_counter()):
                self._leave_line(request)
                continue
            batch.append(request)
            count += len(request.rows)
        return batch

    def _slow_scored(
        self, model: ModelInterface, requests: list[PendingRequest], scoring: asyncio.Future[ScoredBatch]
    ) -> None:
        """Record and answer a slow model's batch on the event loop, then score the next batch."""
        self._lines[model].batches -= 1
        for request in requests:
            self._leave_line(request)
        try:
            self._finish(model, *_still_waiting(requests, scoring.result()))
        except Exception as error:
            _fail(requests, error)
        self._score_next(model)

    def _leave_line(self, request: PendingRequest) -> None:
        self._rows_in_lines -= len(request.rows)
        self._rows_waiting -= len(request.rows)
        del self._arrivals[id(request)]


def _still_waiting(requests: Sequence[PendingRequest], batch: ScoredBatch) -> tuple[list[PendingRequest], ScoredBatch]:
    """Drop the requests that were canceled while a slow model was scoring them, so that they are not recorded."""
    remaining: list[PendingRequest] = []
    kept = ScoredBatch([], {})
    scores = iter(batch.scores)
    for number, request in enumerate(requests):
        error = batch.errors.get(number)
        own = [] if error is not None else [next(scores) for _ in request.rows]
        if request.answer.done():
            continue
        if error is not None:
            kept.errors[len(remaining)] = error
        kept.scores.extend(own)
        remaining.append(request)
    return remaining, kept


def _answer(requests: Sequence[PendingRequest], replies: Sequence[bytes], error: Exception | None) -> None:
    """Deliver each request's replies, or the error."""
    if error is not None:
        _fail(requests, error)
        return
    start = 0
    for request in requests:
        end = start + len(request.rows)
        if not request.answer.done():
            _deliver(request, replies[start] if request.is_single else replies[start:end])
        start = end


def _deliver(request: PendingRequest, reply: Any) -> None:
    try:
        result = reply if request.render is None else request.render(reply)
    except Exception as error:  # the failure of one request must not affect other requests
        request.answer.set_exception(error)
    else:
        request.answer.set_result(result)


def _fail(requests: Sequence[PendingRequest], error: Exception) -> None:
    for request in requests:
        if not request.answer.done():
            request.answer.set_exception(error)
