"""The batcher: when it collects requests into batches, which requests fail, and which requests it rejects.

`tests/properties/test_batching.py` tests the properties that hold for any sequence of requests.
"""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rowcast.access.context import RequestContext
from rowcast.adapters.memory.cache import MemoryCache
from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import NoAnswer, Overloaded, TooLate, Unavailable
from rowcast.events import Event
from rowcast.history.chain import Draft
from rowcast.history.commit_waiter import CommitWaiter
from rowcast.history.ports import Position
from rowcast.schema.prediction import Score
from rowcast.serving.batcher import Batcher
from rowcast.serving.cache import ScoreCache
from rowcast.serving.live_models import LiveModel
from rowcast.serving.recorder import Recorder
from rowcast.serving.requests import EXPIRED, PendingRequest
from rowcast.serving.rows import Row
from rowcast.serving.scorer import MAX_SLOW_ROWS, LocalScorer, ScoredBatch
from support import models
from support.serving import Serving
from support.waiting import eventually_async

BODY = b'{"x0":1,"x1":2}'


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    schema = models.number_columns(2)
    return models.live(tmp_path / "models", "m", models.sum_graph(2), schema, models.REGRESSION, "values")


class CountingJournal(MemoryJournal):
    """A journal that records the number of entries in each write."""

    def __init__(self) -> None:
        super().__init__(MemoryStore(), "w")
        self.writes: list[int] = []

    def append(self, drafts: Sequence[Draft]) -> None:
        self.writes.append(len(drafts))
        super().append(drafts)


class SynchronousAnswer:
    """An answer whose result is available immediately; a future's callbacks run in the next event-loop iteration."""

    def __init__(self) -> None:
        self.result: Any = None

    def done(self) -> bool:
        return self.result is not None

    def set_result(self, result: Any, /) -> None:
        self.result = result

    def set_exception(self, error: Exception, /) -> None:
        self.result = error


class RemoteScorer(LocalScorer):
    """Scores two batches of a slow model concurrently; the test decides when each batch is finished."""

    max_batches = 2
    max_rows = 3

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[tuple[list[int], asyncio.Future[ScoredBatch]]] = []

    def score_later(self, model: Any, requests: Sequence[PendingRequest]) -> asyncio.Future[ScoredBatch]:
        scoring: asyncio.Future[ScoredBatch] = asyncio.get_running_loop().create_future()
        self.batches.append(([len(request.rows) for request in requests], scoring))
        return scoring


async def test_a_scorer_limits_the_batches_in_progress_and_their_rows(model: LiveModel) -> None:
    scorer, answers = RemoteScorer(), []
    batcher = Batcher(scorer, Recorder(CountingJournal(), lambda event: None))
    model.is_slow = True
    row = Row(model.encoder.read(BODY), BODY)
    for rows in (2, 1, 3, 1, 1, 1):
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        answers.append(answer)
        batcher.submit(PendingRequest(model, [row] * rows, RequestContext("test", "r"), answer, False))

    await eventually_async(_holds(lambda: len(scorer.batches) == 2))
    assert [sizes for sizes, _ in scorer.batches] == [[2, 1], [3]]
    scorer.batches[1][1].set_result(ScoredBatch([Score(3.0)] * 3, {}))
    await answers[2]

    assert [sizes for sizes, _ in scorer.batches[2:]] == [[1, 1, 1]]
    for sizes, scoring in (scorer.batches[0], scorer.batches[2]):
        scoring.set_result(ScoredBatch([Score(3.0)] * sum(sizes), {}))
    await asyncio.gather(*answers)
    assert batcher.queue().rows == 0


def _holds(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return condition()

    return holds


async def test_a_single_request_is_answered_in_the_next_iteration_of_the_event_loop(model: LiveModel) -> None:
    serving = Serving(CountingJournal())

    for _ in range(3):
        answer = SynchronousAnswer()
        context = RequestContext("test", "r", deadline=math.inf)
        row = Row(model.encoder.read(BODY), BODY)
        serving.batcher.submit(PendingRequest(model, (row,), context, answer, is_single=True))
        assert not answer.done()
        await asyncio.sleep(0)
        assert isinstance(answer.result, bytes)


async def test_the_only_client_is_answered_immediately_unless_other_requests_are_waiting(model: LiveModel) -> None:
    journal = CountingJournal()
    serving = Serving(journal)
    row, context = Row(model.encoder.read(BODY), BODY), RequestContext("test", "r", deadline=math.inf)

    def submit() -> SynchronousAnswer:
        answer = SynchronousAnswer()
        serving.batcher.submit(PendingRequest(model, (row,), context, answer, is_single=True), is_alone=True)
        return answer

    assert submit().done()
    waiting = serving.predict(model, row)
    joining = submit()
    assert not joining.done()
    await waiting

    assert isinstance(joining.result, bytes)
    assert journal.writes == [1, 2]
    assert serving.queue().rows == 0


async def test_a_burst_is_scored_in_one_call_and_recorded_in_one_write(model: LiveModel) -> None:
    journal = CountingJournal()
    serving = Serving(journal)
    row = Row(model.encoder.read(BODY), BODY)

    answers = [serving.predict(model, row) for _ in range(2)]
    for _ in range(3):
        await asyncio.sleep(0)
        answers += [serving.predict(model, row) for _ in range(4)]
    await asyncio.gather(*answers)

    assert journal.writes == [14]


async def test_continuous_arrivals_delay_the_first_request_by_at_most_a_few_iterations(model: LiveModel) -> None:
    serving = Serving(CountingJournal())
    row = Row(model.encoder.read(BODY), BODY)
    first = serving.predict(model, row)
    answers, turns = [serving.predict(model, row)], 0

    while not first.done():
        answers.append(serving.predict(model, row))
        await asyncio.sleep(0)
        turns += 1

    assert turns == 9
    await asyncio.gather(*answers)


async def test_rows_beyond_the_queue_limit_are_rejected(model: LiveModel) -> None:
    serving = Serving(CountingJournal(), max_waiting=2)
    row = Row(model.encoder.read(BODY), BODY)
    waiting = serving.predict_all(model, [row, row])

    with pytest.raises(Overloaded):
        serving.predict(model, row)

    await waiting
    await serving.predict(model, row)


async def test_requests_are_rejected_with_the_given_reason_until_the_rejection_is_lifted(model: LiveModel) -> None:
    serving = Serving(CountingJournal())
    row = Row(model.encoder.read(BODY), BODY)
    serving.batcher.refuse("the disk is full")

    with pytest.raises(Unavailable) as refused:
        serving.predict(model, row)

    assert (refused.value.slug, refused.value.message) == ("disk-low", "the disk is full")
    serving.batcher.refuse(None)
    await serving.predict(model, row)


async def test_a_request_past_its_deadline_is_not_scored(model: LiveModel) -> None:
    journal = CountingJournal()
    serving = Serving(journal)
    row = Row(model.encoder.read(BODY), BODY)

    late = serving.predict(model, row, deadline=time.perf_counter() - 1)
    await serving.predict(model, row)

    assert isinstance(late.exception(), TooLate)
    assert journal.writes == [1]


async def test_rows_that_cannot_be_recorded_are_not_announced(model: LiveModel) -> None:
    class FullJournal(MemoryJournal):
        def append(self, drafts: object) -> None:
            raise ZeroDivisionError

    events: list[Event] = []
    serving = Serving(FullJournal(MemoryStore(), "w"), events.append)

    with pytest.raises(ZeroDivisionError):
        await serving.predict(model, Row(model.encoder.read(BODY), BODY))

    assert events == []


async def test_the_score_of_a_row_that_cannot_be_recorded_is_in_the_cache_for_the_next_attempt(
    model: LiveModel,
) -> None:
    class FullJournal(MemoryJournal):
        def append(self, drafts: object) -> None:
            raise Unavailable("the disk is full")

    cache = ScoreCache(MemoryCache(10, 60.0))
    serving = Serving(FullJournal(MemoryStore(), "w"))
    serving.batcher = Batcher(LocalScorer(), serving.recorder, cache=cache)
    row = Row(model.encoder.read(BODY), BODY, uses_cache=True)
    (missed,) = await cache.look_up(model, [row], "")

    with pytest.raises(Unavailable):
        await serving.predict(model, missed)

    (found,) = await cache.look_up(model, [row], "")
    assert (missed.cached_score is None, found.cached_score is None) == (True, False)


async def test_a_request_that_waits_for_a_slow_batch_fails_at_its_deadline(model: LiveModel) -> None:
    gate = threading.Event()
    score = model.score
    model.is_slow = True
    model.score = lambda rows: score(rows) if gate.wait(10) else []  # type: ignore[method-assign]
    serving = Serving(CountingJournal())
    row = Row(model.encoder.read(BODY), BODY)
    try:
        first = serving.predict_all(model, [row] * MAX_SLOW_ROWS)
        hasty = serving.predict(
            model, row, deadline=time.perf_counter() + 0.01
        )  # submitted in the same event-loop iteration

        with pytest.raises(TooLate):  # even though the gate is still closed
            await asyncio.wait_for(hasty, 5)
        assert not first.done()
    finally:
        gate.set()
    assert len(await first) == MAX_SLOW_ROWS


async def test_requests_canceled_in_the_queue_of_a_slow_model_are_neither_recorded_nor_counted(
    model: LiveModel,
) -> None:
    begun, gate = threading.Event(), threading.Event()
    score = model.score

    def wait_and_score(rows: Any) -> Any:
        begun.set()
        return score(rows) if gate.wait(10) else []

    model.is_slow = True
    model.score = wait_and_score  # type: ignore[method-assign]
    journal = CountingJournal()
    serving = Serving(journal)
    row = Row(model.encoder.read(BODY), BODY)
    first, canceled = serving.predict(model, row), serving.predict(model, row)
    try:
        assert await asyncio.to_thread(begun.wait, 10)
        full = serving.predict_all(model, [row] * MAX_SLOW_ROWS)  # scored after the first batch
        waiting = serving.predict(model, row)
        for _ in range(100):  # until all requests are in the queue
            await asyncio.sleep(0)
        canceled.cancel()
        waiting.cancel()
    finally:
        gate.set()

    await asyncio.gather(first, full)
    assert serving.queue().rows == 0
    assert journal.writes == [1, MAX_SLOW_ROWS]


async def test_a_canceled_request_is_not_scored_and_does_not_affect_other_requests(model: LiveModel) -> None:
    journal = CountingJournal()
    serving = Serving(journal)
    row = Row(model.encoder.read(BODY), BODY)
    gone = serving.predict(model, row)
    others = [serving.predict(model, row) for _ in range(2)]

    gone.cancel()

    assert len(await asyncio.gather(*others)) == 2
    assert journal.writes == [2]


async def test_a_response_waits_for_the_store_if_durability_is_set_to_store(model: LiveModel) -> None:
    kept, stored = MemoryStore(), {"seq": -1}
    until = CommitWaiter(lambda writer: Position(stored["seq"], b""))
    serving = Serving(MemoryJournal(kept, "w"), commits=until)
    row = Row(model.encoder.read(BODY), BODY)

    async def is_recorded() -> bool:
        return kept.count() == 1

    first = serving.predict(model, row)
    await eventually_async(is_recorded)
    assert not first.done()
    second = serving.predict_all(model, [row, row])
    stored["seq"] = 0
    await asyncio.wait_for(first, 5)
    assert not second.done()
    stored["seq"] = 2

    assert len(await asyncio.wait_for(second, 5)) == 2


async def test_a_request_fails_if_the_store_is_unavailable_even_though_the_prediction_is_recorded(
    model: LiveModel,
) -> None:
    kept = MemoryStore()

    def away(writer: str) -> Position | None:
        raise Unavailable("the store is unavailable")

    until = CommitWaiter(away, timeout=0.05)
    serving = Serving(MemoryJournal(kept, "w"), commits=until)
    gone = serving.predict(model, Row(model.encoder.read(BODY), BODY), "gone")
    gone.cancel()
    asked = serving.predict(model, Row(model.encoder.read(BODY), BODY))

    with pytest.raises(Unavailable) as refused:
        await asyncio.wait_for(asked, 5)

    assert refused.value.slug == "not-stored"
    assert kept.count() == 1


async def test_a_reply_that_cannot_be_rendered_affects_only_its_own_request(model: LiveModel) -> None:
    serving = Serving(MemoryJournal(MemoryStore(), "w"))
    row = Row(model.encoder.read(BODY), BODY)

    def broken(reply: bytes) -> bytes:
        raise ZeroDivisionError

    answers = [serving.predict(model, row, render=render) for render in (None, broken, len, None)]  # type: ignore[arg-type]
    results = await asyncio.gather(*answers, return_exceptions=True)

    assert [type(result) for result in results] == [bytes, ZeroDivisionError, int, bytes]


async def test_a_request_canceled_while_it_waits_for_the_store_does_not_shift_the_replies(model: LiveModel) -> None:
    kept, stored = MemoryStore(), {"seq": -1}
    until = CommitWaiter(lambda writer: Position(stored["seq"], b""))
    serving = Serving(MemoryJournal(kept, "w"), commits=until)
    rows = [Row(model.encoder.read(body), body) for body in (b'{"x0":%d,"x1":0}' % number for number in range(5))]
    gone = [serving.predict_all(model, rows[:2]), serving.predict(model, rows[2])]
    others = [serving.predict(model, rows[3]), serving.predict(model, rows[4])]

    async def are_recorded() -> bool:
        return kept.count() == 5

    await eventually_async(are_recorded)
    for request in gone:
        request.cancel()
    stored["seq"] = 4

    replies = await asyncio.wait_for(asyncio.gather(*others), 5)
    assert [msgspec.json.decode(reply)["prediction"] for reply in replies] == [3, 4]


class SlowModel:
    """Makes a model slow: it scores nothing until its gate opens, and fails for rows with negative sums."""

    def __init__(self, model: LiveModel) -> None:
        model.is_slow = True
        self._score = model.score
        self.begun, self.gate = threading.Event(), threading.Event()
        model.score = self  # type: ignore[method-assign,assignment]

    def __call__(self, rows: Any) -> Any:
        self.begun.set()
        assert self.gate.wait(10)
        scores = self._score(rows)
        failed = [number for number, score in enumerate(scores) if score.prediction < 0]  # type: ignore[operator]
        if failed:
            raise NoAnswer(failed)
        return scores

    async def is_busy(self) -> None:
        """Wait until the model is scoring."""
        assert await asyncio.to_thread(self.begun.wait, 10)


async def settle() -> None:
    """Let the event loop process all pending callbacks."""
    for _ in range(20):
        await asyncio.sleep(0)


def row_of(model: LiveModel, x0: float, **fields: Any) -> Row:
    body = b'{"x0":%r,"x1":0}' % x0
    return Row(model.encoder.read(body), body, **fields)


def predicted(reply: bytes) -> Any:
    return msgspec.json.decode(reply)["prediction"]


async def test_a_slow_model_scores_at_most_64_rows_at_a_time_unless_one_request_has_more(model: LiveModel) -> None:
    slow, journal = SlowModel(model), CountingJournal()
    serving = Serving(journal)
    row = row_of(model, 1)
    requests = [serving.predict(model, row)]
    await settle()
    await slow.is_busy()
    requests += [serving.predict_all(model, [row] * count) for count in (65, 63, 1, 1, 64, 60, 5)]
    await settle()

    slow.gate.set()
    await asyncio.gather(*requests)

    assert journal.writes == [1, 65, 64, 1, 64, 60, 5]


async def test_the_queue_reports_the_waiting_rows_and_the_age_of_the_oldest_request(
    model: LiveModel, tmp_path: Path
) -> None:
    fast = models.live(tmp_path, "f", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    slow, serving = SlowModel(model), Serving(CountingJournal())
    assert serving.queue() == (0, 0.0)

    def age_is_between(earliest: float, latest: float) -> bool:
        before = time.perf_counter()
        age = serving.queue().seconds
        return before - latest <= age <= time.perf_counter() - earliest

    earliest = time.perf_counter()
    requests = [serving.predict(model, row_of(model, 1)), serving.predict(fast, row_of(fast, 1))]
    latest = time.perf_counter()
    assert serving.queue().rows == 2
    assert age_is_between(earliest, latest)
    await settle()
    await slow.is_busy()
    later = time.perf_counter()
    requests.append(serving.predict_all(model, [row_of(model, 1)] * 2))
    assert serving.queue().rows == 3
    assert age_is_between(earliest, latest)
    await settle()
    assert serving.queue().rows == 3
    assert age_is_between(earliest, latest)
    requests.append(serving.predict(fast, row_of(fast, 1)))
    await requests[-1]
    assert serving.queue().rows == 3

    slow.gate.set()
    await requests[0]
    assert serving.queue().rows in (0, 2)
    assert serving.queue().seconds <= time.perf_counter() - later
    await asyncio.gather(*requests)
    assert serving.queue() == (0, 0.0)


async def test_rows_in_the_queue_of_a_slow_model_count_toward_the_queue_limit(model: LiveModel) -> None:
    slow = SlowModel(model)
    serving = Serving(CountingJournal(), max_waiting=3)
    waiting = [serving.predict(model, row_of(model, 1))]
    await settle()
    waiting.append(serving.predict_all(model, [row_of(model, 1)] * 2))
    await settle()

    with pytest.raises(Overloaded) as refused:
        serving.predict(model, row_of(model, 1))

    assert refused.value.message == "the server is overloaded: 3 rows are waiting; retry after 1 s"
    slow.gate.set()
    await asyncio.gather(*waiting)
    assert predicted(await serving.predict(model, row_of(model, 1))) == 1.0


async def test_expired_and_canceled_requests_do_not_split_the_batch_of_a_slow_model(model: LiveModel) -> None:
    slow, journal = SlowModel(model), CountingJournal()
    serving = Serving(journal)
    first = serving.predict(model, row_of(model, 1))
    await settle()
    await slow.is_busy()
    ahead, canceled = serving.predict(model, row_of(model, 2)), serving.predict(model, row_of(model, 3))
    hasty = serving.predict(model, row_of(model, 4), deadline=time.perf_counter() + 0.01)
    behind = serving.predict(model, row_of(model, 5))
    await settle()
    canceled.cancel()
    with pytest.raises(TooLate):
        await asyncio.wait_for(hasty, 5)
    assert serving.queue().rows == 4

    slow.gate.set()

    assert [predicted(reply) for reply in await asyncio.gather(first, ahead, behind)] == [1, 2, 5]
    assert journal.writes == [1, 2]
    assert serving.queue() == (0, 0.0)


async def test_an_expired_request_is_not_kept_in_memory_while_a_slow_model_is_busy(model: LiveModel) -> None:
    slow, serving = SlowModel(model), Serving(CountingJournal())
    first = serving.predict(model, row_of(model, 1))
    await settle()
    await slow.is_busy()
    hasty = [serving.predict(model, row_of(model, 2), deadline=time.perf_counter() + 0.01) for _ in range(2)]

    async def are_expired() -> bool:
        return all(request.done() for request in hasty)

    await eventually_async(are_expired)
    assert all(isinstance(request.exception(), TooLate) for request in hasty)
    references = [weakref.ref(request) for request in hasty]
    hasty.clear()
    gc.collect()

    assert [reference() for reference in references] == [None, None]
    slow.gate.set()
    await first


async def test_a_request_that_a_slow_model_scores_in_time_does_not_expire_later(model: LiveModel) -> None:
    slow, serving = SlowModel(model), Serving(CountingJournal())
    slow.gate.set()
    deadline = time.perf_counter() + 0.2
    answered = predicted(await serving.predict(model, row_of(model, 1), deadline=deadline))

    async def has_passed() -> bool:
        return time.perf_counter() > deadline + 0.01

    await eventually_async(has_passed)
    assert answered == 1.0
    assert serving.queue() == (0, 0.0)


async def test_cached_rows_do_not_wait_for_a_slow_model(model: LiveModel) -> None:
    slow, serving = SlowModel(model), Serving(CountingJournal())
    known, new = row_of(model, 1, cached_score=Score(1.0)), row_of(model, 2)
    cached = serving.predict_all(model, [known, known])
    mixed, fresh = serving.predict_all(model, [known, new]), serving.predict(model, new)

    assert [predicted(reply) for reply in await asyncio.wait_for(cached, 5)] == [1.0, 1.0]
    assert not mixed.done()
    assert serving.queue().rows == 3

    slow.gate.set()
    assert [predicted(reply) for reply in [*await mixed, await fresh]] == [1.0, 2.0, 2.0]


async def test_a_slow_model_that_fails_answers_the_next_request(model: LiveModel) -> None:
    def fail(rows: Any) -> Any:
        raise ZeroDivisionError

    score, model.is_slow = model.score, True
    serving = Serving(CountingJournal())
    model.score = fail  # type: ignore[method-assign]
    with pytest.raises(ZeroDivisionError):
        await serving.predict(model, row_of(model, 1))

    model.score = score  # type: ignore[method-assign]

    assert predicted(await asyncio.wait_for(serving.predict(model, row_of(model, 1)), 5)) == 1.0
    assert serving.queue() == (0, 0.0)


@pytest.mark.parametrize("is_slow", [False, True])
async def test_rows_without_a_score_and_canceled_requests_do_not_affect_other_requests(
    model: LiveModel, *, is_slow: bool
) -> None:
    slow, journal = SlowModel(model), CountingJournal()
    model.is_slow = is_slow
    serving = Serving(journal)
    good = serving.predict(model, row_of(model, 1))
    canceled = [serving.predict(model, row_of(model, -1)), serving.predict(model, row_of(model, 2))]
    bad = serving.predict(model, row_of(model, -2))
    partly = serving.predict_all(model, [row_of(model, 3), row_of(model, -3)])
    last = serving.predict_all(model, [row_of(model, 4), row_of(model, 5)])
    if is_slow:
        await settle()
        await slow.is_busy()
    for request in canceled:
        request.cancel()
    slow.gate.set()

    results = await asyncio.gather(good, bad, partly, last, return_exceptions=True)

    assert predicted(results[0]) == 1.0
    assert [predicted(reply) for reply in results[3]] == [4.0, 5.0]
    assert [(error.rows, error.problems[0].row) for error in results[1:3]] == [([0], msgspec.UNSET), ([1], 1)]
    assert journal.writes == [3]


async def test_a_batch_without_any_score_is_not_recorded(model: LiveModel) -> None:
    slow, journal = SlowModel(model), CountingJournal()
    model.is_slow = False
    slow.gate.set()

    with pytest.raises(NoAnswer):
        await Serving(journal).predict(model, row_of(model, -1))

    assert journal.writes == []


async def test_a_single_request_waits_one_more_iteration_only_after_a_batch_of_several_requests(
    model: LiveModel,
) -> None:
    serving, row = Serving(CountingJournal()), row_of(model, 1)

    async def iterations() -> int:
        answer = SynchronousAnswer()
        context = RequestContext("test", "r", deadline=math.inf)
        serving.batcher.submit(PendingRequest(model, (row,), context, answer, is_single=True))
        count = 0
        while not answer.done():
            await asyncio.sleep(0)
            count += 1
        return count

    after_nothing = await iterations()
    await asyncio.gather(serving.predict(model, row), serving.predict(model, row))
    after_two, after_one = await iterations(), await iterations()
    await asyncio.gather(serving.predict(model, row), serving.predict(model, row))
    alone = SynchronousAnswer()
    context = RequestContext("test", "r", deadline=math.inf)
    serving.batcher.submit(PendingRequest(model, (row,), context, alone, is_single=True), is_alone=True)
    after_alone = await iterations()

    assert (after_nothing, after_two, after_one, after_alone) == (1, 2, 1, 1)


async def test_rows_that_are_not_scored_in_time_are_not_recorded_as_a_block(model: LiveModel) -> None:
    serving, deadline = Serving(CountingJournal()), time.perf_counter() - 1

    with pytest.raises(TooLate) as refused:
        serving.batcher.record_block(model, {}, [], b"", RequestContext("v2", "r", deadline=deadline))

    assert refused.value.message == EXPIRED
