"""Counts events for the metrics, which `prometheus.py` renders.

Events increment counter cells (0.3 µs per request; the client library's own counter and histogram take 0.9 µs, or 2.6
µs in multi-process mode). The cells are in the memory of one process or in shared memory (`shared_counters.py`). The
metrics under the names of other systems (`old_names.py`) use the same cells. This module does not import the client
library, which takes 15 ms: the first scrape imports it.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rowcast.events import (
    Event,
    MessagesFinished,
    ModelLoaded,
    RedisFailed,
    RedisSwitched,
    ReloadFinished,
    RequestAnswered,
    RequestFailed,
    RowsScored,
    RowsTaken,
)
from rowcast.schema.prediction import label_text
from rowcast.serving.fleet import CounterCells, Counters
from rowcast.serving.ports import QueueStatus

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
BOUNDS = (*map(str, BUCKETS), "+Inf")
REQUESTS, PREDICTIONS, LOADS, RELOADS = "requests", "predictions", "loads", "reloads"
PROBLEMS, HITS, MISSES, LATEST = "problems", "hits", "misses", "latest"
REDIS_ERRORS, REDIS_AWAY = "redis-errors", "redis-away"
TAKEN_ROWS, TAKEN_BATCHES, MESSAGES = "taken-rows", "taken-batches", "messages"
STATES = ("starting", "ready", "draining", "stale", "dead")
PLAIN: Mapping[str, tuple[str, str, tuple[str, ...]]] = {
    PREDICTIONS: ("rowcast_predictions", "Rows scored and recorded.", ("model", "version", "label")),
    PROBLEMS: ("rowcast_problems", "Error responses, by problem slug.", ("slug",)),
    HITS: ("rowcast_cache_hits", "Rows whose score was in the cache.", ("model",)),
    MISSES: ("rowcast_cache_misses", "Rows whose score was not in the cache.", ("model",)),
    LOADS: ("rowcast_model_loads", "Model versions loaded and checked.", ("model", "version")),
    RELOADS: ("rowcast_reloads", "Reloads of a server process, by outcome.", ("outcome",)),
    REDIS_ERRORS: ("rowcast_redis_errors", "Failed calls to Redis, by use and kind.", ("use", "kind")),
    TAKEN_ROWS: ("rowcast_worker_rows", "Rows that workers scored for servers.", ()),
    TAKEN_BATCHES: ("rowcast_worker_batches", "Model calls by workers; each call can score several messages.", ()),
    MESSAGES: ("rowcast_worker_messages", "Messages that workers finished, by outcome.", ("outcome",)),
}
"""Counters that store one value per label set. Maps each metric family to its name, help text and labels."""


class Metrics:
    """Counts the events in this process."""

    def __init__(
        self,
        counts: Counters,
        backlog: Callable[[], int],
        *,
        old_names: bool = False,
    ) -> None:
        self.counts = counts
        self.backlog = backlog
        self.old_names = old_names
        self.queue_status: Callable[[], QueueStatus] | None = None
        # Requests per duration bucket, requests above the last bucket, and the sum of all durations.
        self._answers: dict[tuple[str, str, int], CounterCells] = {}
        self._predictions: dict[tuple[str, int, object], CounterCells] = {}
        # The time and value of the most recent prediction.
        self._latest = counts.cells((LATEST,), 2)
        self._count: dict[type[Event], Callable[[Any], None]] = {
            RequestAnswered: self._answered,
            RowsScored: self._scored,
            RequestFailed: self._failed,
            ModelLoaded: self._loaded,
            ReloadFinished: self._reloaded,
            RedisFailed: self._redis_failed,
            RedisSwitched: self._redis_switched,
            RowsTaken: self._rows_taken,
            MessagesFinished: self._messages_finished,
        }

    def listen(self, event: Event) -> None:
        """Count one event."""
        self._count[type(event)](event)

    def _answered(self, event: RequestAnswered) -> None:
        key = event.route, event.method, event.status
        cells = self._answers.get(key)
        if cells is None:
            cells = self.counts.cells((REQUESTS, event.route, event.method, str(event.status)), len(BUCKETS) + 2)
            self._answers[key] = cells
        cells[bisect_left(BUCKETS, event.seconds)] += 1
        cells[-1] += event.seconds

    def _scored(self, event: RowsScored) -> None:
        if event.rows == 1 and event.labels:
            counts: Iterable[tuple[Any, int]] = ((next(iter(event.labels)), 1),)  # creating a `Counter` would take 3 µs
        else:
            counts = Counter(event.labels).items() if event.labels else (("", event.rows),)
        for label, count in counts:
            key = event.model, event.version, label
            cells = self._predictions.get(key)
            if cells is None:
                labels = (PREDICTIONS, event.model, str(event.version), label_text(label))
                cells = self._predictions[key] = self.counts.cells(labels, 1)
            cells[0] += count
        if event.hits or event.misses:
            self.counts.cells((HITS, event.model), 1)[0] += event.hits
            self.counts.cells((MISSES, event.model), 1)[0] += event.misses
        if self.old_names:
            self._latest[1] = event.latest
            self._latest[0] = time.monotonic()

    def _failed(self, event: RequestFailed) -> None:
        self.counts.cells((PROBLEMS, event.slug), 1)[0] += 1

    def _loaded(self, event: ModelLoaded) -> None:
        self.counts.cells((LOADS, event.model, str(event.version)), 1)[0] += 1

    def _reloaded(self, event: ReloadFinished) -> None:
        self.counts.cells((RELOADS, "failed" if event.error else "ok"), 1)[0] += 1

    def _redis_failed(self, event: RedisFailed) -> None:
        self.counts.cells((REDIS_ERRORS, event.use, event.kind), 1)[0] += 1

    def _redis_switched(self, event: RedisSwitched) -> None:
        self.counts.cells((REDIS_AWAY, event.use), 1)[0] = 0 if event.is_available else 1

    def _rows_taken(self, event: RowsTaken) -> None:
        self.counts.cells((TAKEN_ROWS,), 1)[0] += event.rows
        self.counts.cells((TAKEN_BATCHES,), 1)[0] += 1

    def _messages_finished(self, event: MessagesFinished) -> None:
        self.counts.cells((MESSAGES, event.outcome), 1)[0] += event.count

    def watch_queue(self, status: Callable[[], QueueStatus]) -> None:
        """Also render the status of the queue between servers and workers."""
        self.queue_status = status
