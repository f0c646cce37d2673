"""HOT PATH. Every door asks here: rows in, scored and recorded predictions out.

Requests that wait for the same tick of the event loop share one call of the model and one write of the journal. There
is no timer: whoever arrives first asks for the tick, whoever arrives before it runs takes part. Nothing is answered
before the journal has it. A slow model is scored on a thread, one batch after the other, and recorded in a tick of the
loop like any other.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from rowcast.errors import NoAnswer, Overloaded, TooLate, Unavailable
from rowcast.events import Listener, RowsScored
from rowcast.history.blocks import SEED_BYTES, Block, BlockColumn
from rowcast.history.chain import SALT_BYTES, Draft, Entry, encode_head
from rowcast.history.commit_waiter import CommitWaiter
from rowcast.history.ports import Journal
from rowcast.schema.identity import row_key, uuid7_randomness, uuid7s
from rowcast.schema.prediction import Score
from rowcast.schema.scores import non_finite_rows
from rowcast.schema.sensitive import Redactor
from rowcast.serving.live_models import Deployment, LiveModel
from rowcast.serving.ports import Cache
from rowcast.serving.rows import Row
from rowcast.serving.waiting import (
    TIME_IS_UP,
    Ask,
    Attempt,
    Render,
    Waiting,
    answer_all,
    answer_when_stored,
    answerable,
    attempt,
    fail,
    is_over,
)

MOST_TURNS = 8
"""Turns of the loop that the first of a batch waits at most."""
MOST_SLOW_ROWS = 64
"""Rows of a slow model that are scored at once, unless one request has more: the first must not wait for the last."""
SLOW_THREADS = 4


class Queue(NamedTuple):
    """What waits to be answered."""

    rows: int
    seconds: float
    """How long the oldest of them has waited."""


class _Place(msgspec.Struct):
    """A request in the line of a slow model; whose time is up while it stands there is told at once."""

    asked: Waiting
    timer: asyncio.TimerHandle | None = None
    given_up: bool = False


class Predictor:
    """Scores, records and answers; one for each process, used from its event loop."""

    def __init__(
        self,
        deployment: Deployment,
        journal: Journal,
        listen: Listener,
        *,
        max_waiting: int = 10_000,
        cache: Cache | None = None,
        guard: Redactor | None = None,
        stored: CommitWaiter | None = None,
        now: Callable[[], int] = time.time_ns,
    ) -> None:
        self.deployment = deployment
        self.caching = cache is not None
        self._cache = cache
        self._journal = journal
        self._listen = listen
        self._max_waiting = max_waiting
        self._guard = guard
        self._stored = stored
        self._now = now
        self._held: str | None = None
        self._waiting: list[Waiting] = []
        self._rows_waiting = 0
        self._rows_in_lines = 0
        self._lines: dict[LiveModel, deque[_Place]] = {}
        # When the first of this tick came, and each who waits for a slow model, in order.
        self._first = 0.0
        self._since: dict[int, float] = {}
        self._threads: ThreadPoolExecutor | None = None

    async def recall(self, model: LiveModel, rows: Sequence[Row]) -> list[Row]:
        """The rows with their cache keys, and with their outcomes where the cache knows them."""
        if self._cache is None:
            return list(rows)
        plan, digest = model.encoder.plan, model.digest
        keys = [row_key(digest, plan, row.encoded) for row in rows]
        found = await self._cache.get(keys)
        return [
            Row(row.encoded, row.received, key, known, row.ttl)
            for row, key, known in zip(rows, keys, found, strict=True)
        ]

    def predict(self, model: LiveModel, row: Row, ask: Ask, render: Render | None = None) -> asyncio.Future[bytes]:
        """The reply to one row as JSON, once it is in the journal; cancelling harms nobody else. `render` is called in
        the tick, where it costs half of what it does a request at a time (bench/serve.py)."""
        return self._wait(model, (row,), ask, True, render)

    def predict_all(self, model: LiveModel, rows: Sequence[Row], ask: Ask) -> asyncio.Future[list[bytes]]:
        """The replies to many rows, in order."""
        return self._wait(model, rows, ask, False)

    def takes_blocks(self, model: LiveModel) -> bool:
        """Whether many rows may be recorded as one block: nothing must be asked or changed row by row."""
        if not model.is_ours or self.caching or model.slow or self._stored is not None:
            return False
        return self._guard is None or not self._guard.withheld_columns(model.schema)

    def predict_block(
        self,
        model: LiveModel,
        tensors: Mapping[str, NDArray[Any]],
        columns: Sequence[BlockColumn],
        body: bytes,
        ask: Ask,
    ) -> Block:
        """Score the graph's tensors and record them with the columns they were made of, in one block. HOT"""
        self._check_room()
        if ask.deadline < time.perf_counter():
            raise TooLate(TIME_IS_UP)
        output = model.run(tensors)
        if not np.isfinite(output).all():
            raise NoAnswer(non_finite_rows(output))
        decision = model.manifest.decision
        block = Block(
            self._now(),
            model.digest,
            ask.source,
            ask.request_id,
            ask.key_id,
            ask.tenant,
            ask.entity,
            model.name,
            model.version,
            decision,
            len(output),
            tuple(columns),
            body,
            np.ascontiguousarray(output, "<f4").tobytes(),
            os.urandom(SEED_BYTES),
        )
        self._journal.append_block(block)
        labels, latest = model.tally(output)
        self._listen(RowsScored(model.name, model.version, block.rows, labels, latest))
        return block

    def hold(self, reason: str | None) -> None:
        """Refuse what comes from now on, and say why; None ends it."""
        self._held = reason

    def queue(self) -> Queue:
        """What waits now; may be asked from any thread."""
        since = list(self._since.values())[:1]
        if self._waiting:
            since.append(self._first)
        return Queue(self._rows_waiting, max(0.0, time.perf_counter() - min(since)) if since else 0.0)

    def _wait(
        self, model: LiveModel, rows: Sequence[Row], ask: Ask, alone: bool, render: Render | None = None
    ) -> asyncio.Future[Any]:
        self._check_room()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            self._first = time.perf_counter()
            loop.call_soon(self._gather, 0, MOST_TURNS)
        self._waiting.append(Waiting(model, rows, ask, answer, alone, render))
        self._rows_waiting += len(rows)
        return answer

    def _check_room(self) -> None:
        if self._rows_waiting >= self._max_waiting:
            raise Overloaded(f"{self._rows_waiting} rows are waiting; try again in a second")
        if self._held is not None:
            raise Unavailable(self._held, slug="disk-low")

    def _gather(self, seen: int, turns: int) -> None:
        """Let the loop turn once more while it brings further requests: a full batch costs a third less a row, and at
        32 connections it is answered sooner than two half ones (bench/serve.py)."""
        count = len(self._waiting)
        if count > seen and turns:
            asyncio.get_running_loop().call_soon(self._gather, count, turns - 1)
        else:
            self._tick()

    def _tick(self) -> None:
        waiting, self._waiting, self._rows_waiting = self._waiting, [], self._rows_in_lines
        by_model: dict[LiveModel, list[Waiting]] = {}
        now = time.perf_counter()
        for asked in waiting:
            if not is_over(asked, now):
                by_model.setdefault(asked.model, []).append(asked)
        for model, together in by_model.items():
            if model.slow:
                together = self._stand_in_line(model, together)
                if not together:
                    continue
            try:
                together, outcomes = answerable(attempt(model, together))
                replies = self._record(model, together, outcomes) if together else []
            except Exception as error:  # whatever it was, every caller of this tick must hear of it
                fail(together, error)
            else:
                self._send(together, replies)

    def _stand_in_line(self, model: LiveModel, waiting: list[Waiting]) -> list[Waiting]:
        """Queue what a slow model must score, and give back what the cache knows already."""
        known: list[Waiting] = []
        together: list[Waiting] = []
        for asked in waiting:
            (known if all(row.known is not None for row in asked.rows) else together).append(asked)
        if not together:
            return known
        rows = sum(len(asked.rows) for asked in together)
        self._rows_in_lines += rows
        self._rows_waiting += rows
        self._since.update((id(asked), self._first) for asked in together)
        line = self._lines.get(model)
        if line is not None:  # its thread is at work; what waits is taken when it is done
            line.extend([self._place(asked) for asked in together])
        else:
            self._lines[model] = deque(_Place(asked) for asked in together)
            self._score_next(model)
        return known

    def _place(self, asked: Waiting) -> _Place:
        """A place in a line that does not move yet."""
        place = _Place(asked)
        if asked.ask.deadline < math.inf:
            left = asked.ask.deadline - time.perf_counter()
            place.timer = asyncio.get_running_loop().call_later(left, self._give_up, place)
        return place

    def _give_up(self, place: _Place) -> None:
        """The time is up: told, and counted out. Places go when the line comes to them, or at once at its head."""
        is_over(place.asked, math.inf)
        self._leave_line(place.asked)
        place.given_up = True
        line = self._lines[place.asked.model]
        while line and line[0].given_up:
            line.popleft()

    def _score_next(self, model: LiveModel) -> None:
        """Send the head of a slow model's line to a thread; at most one batch of a model is scored at a time."""
        line = self._lines[model]
        batch: list[Waiting] = []
        count = 0
        while line and (not batch or count + len(line[0].asked.rows) <= MOST_SLOW_ROWS):
            place = line.popleft()
            if place.given_up:
                continue
            if place.timer is not None:
                place.timer.cancel()
            asked = place.asked
            if is_over(asked, time.perf_counter()):
                self._leave_line(asked)
                continue
            batch.append(asked)
            count += len(asked.rows)
        if not batch:
            del self._lines[model]
            return
        if self._threads is None:
            self._threads = ThreadPoolExecutor(SLOW_THREADS, "score")
        scoring = asyncio.get_running_loop().run_in_executor(self._threads, attempt, model, batch)
        scoring.add_done_callback(lambda scored: self._scored(model, batch, scored))

    def _scored(self, model: LiveModel, batch: list[Waiting], scored: asyncio.Future[Attempt]) -> None:
        """Back on the loop: record and answer those who still wait, then let the next ones go."""
        for asked in batch:
            self._leave_line(asked)
        try:
            able, found_all = answerable(scored.result())
            outcomes = iter(found_all)
            made = [(asked, [next(outcomes) for _ in asked.rows]) for asked in able]
            still = [(asked, found) for asked, found in made if not asked.answer.cancelled()]
            together = [asked for asked, _ in still]
            if together:
                kept = [one for _, found in still for one in found]
                self._send(together, self._record(model, together, kept))
        except Exception as error:
            fail(batch, error)
        self._score_next(model)

    def _send(self, together: list[Waiting], replies: list[bytes]) -> None:
        """Answer; with `durability=store`, once the store has them."""
        if self._stored is None:
            answer_all(together, replies)
        else:
            self._stored.when_stored(self._journal, partial(answer_when_stored, together, replies))

    def _leave_line(self, asked: Waiting) -> None:
        self._rows_in_lines -= len(asked.rows)
        self._rows_waiting -= len(asked.rows)
        del self._since[id(asked)]

    def _record(self, model: LiveModel, together: list[Waiting], outcomes: list[Score]) -> list[bytes]:
        rows = [row for asked in together for row in asked.rows]
        encoded = [row.encoded for row in rows]
        hits = misses = 0
        if self._cache is not None:
            _remember(self._cache, rows, outcomes)
            hits = sum(row.known is not None for row in rows)
            misses = sum(bool(row.key) for row in rows) - hits
        count, digest = len(rows), model.digest
        nanoseconds = self._now()
        at = nanoseconds // 1_000
        ids = uuid7s(nanoseconds // 1_000_000, os.urandom(uuid7_randomness(count)))
        salts = os.urandom(count * SALT_BYTES)
        cached = [row.known is not None for row in rows] if self.caching else repeat(False, count)
        replies = model.replies(ids, outcomes, encoded, cached)
        asks = [asked.ask for asked in together for _ in asked.rows]
        received, withheld = self._keepable(model, rows)
        drafts = [
            Draft(
                encode_head(
                    Entry(at, digest, ask.source, ask.request_id, reply, ask.key_id, ask.tenant, ask.entity, withheld)
                ),
                salts[number * SALT_BYTES : (number + 1) * SALT_BYTES],
                row,
            )
            for number, (ask, row, reply) in enumerate(zip(asks, received, replies, strict=True))
        ]
        self._journal.append(drafts)
        labels = [outcome.prediction for outcome in outcomes] if model.classifies else []
        latest = model.number(outcomes[-1])
        self._listen(RowsScored(model.name, model.version, count, labels, latest, hits, misses))
        return replies

    def _keepable(self, model: LiveModel, rows: Sequence[Row]) -> tuple[list[bytes], tuple[str, ...]]:
        """The rows as they may be kept, and the columns that were withheld from them."""
        withheld = self._guard.withheld_columns(model.schema) if self._guard is not None else ()
        if self._guard is None or not withheld:
            return [row.received for row in rows], ()
        return [self._guard.redact(model.schema, row.received) for row in rows], withheld


def _remember(cache: Cache, rows: Sequence[Row], outcomes: Sequence[Score]) -> None:
    """Keep what was scored, each as long as its caller said."""
    fresh: dict[int, dict[str, Score]] = {}
    for row, outcome in zip(rows, outcomes, strict=True):
        if row.key and row.known is None:
            fresh.setdefault(row.ttl, {})[row.key] = outcome
    for ttl, found in fresh.items():
        cache.put(found, ttl or None)
