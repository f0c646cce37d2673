"""The scorer that sends batches to workers, and the worker that scores them, with a queue in memory."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from rowcast.access.context import RequestContext
from rowcast.adapters.files.registry import FolderRegistry
from rowcast.adapters.memory.queue import MemoryQueue, MemoryQueueReader
from rowcast.errors import NoAnswer, TooLate, Unavailable
from rowcast.events import Event, MessagesFinished, RowsTaken
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel
from rowcast.serving.queue_messages import Malformed, decode_rows, encode_rows
from rowcast.serving.queue_scorer import BATCHES_PER_WORKER, QueueScorer
from rowcast.serving.queue_worker import MAX_DELIVERIES, QueueWorker
from rowcast.serving.remote_models import RemoteModel, load_remote
from rowcast.serving.requests import PendingRequest
from rowcast.serving.rows import Row
from support import models
from support.waiting import eventually_async


class Source:
    """The models that a worker has in these tests."""

    def __init__(self, *live: LiveModel) -> None:
        self.models = {model.digest: model for model in live}

    def loaded(self) -> Sequence[LiveModel]:
        return list(self.models.values())

    async def find(self, digest: str) -> LiveModel | None:
        return self.models.get(digest)


class World:
    """A queue with one worker, and a scorer that uses it."""

    def __init__(self, root: Path) -> None:
        registry = FolderRegistry(root)
        schema = models.number_columns(1)
        graph = models.picking_graph(3)
        reference = models.publish(registry, "list", graph, schema, models.REGRESSION, "values")
        self.live = models.loader(registry)(reference)
        self.model: RemoteModel = load_remote(reference, registry)
        self.queue = MemoryQueue()
        self.scorer = QueueScorer(self.queue)
        self.source = Source(self.live)
        self.events: list[Event] = []
        self.worker = self.new_worker("worker")

    def new_worker(self, name: str, source: Source | None = None, drain_seconds: float = 60) -> QueueWorker:
        return QueueWorker(
            MemoryQueueReader(self.queue, name),
            source or self.source,
            self.events.append,
            concurrency=1,
            drain_seconds=drain_seconds,
        )

    def request(self, *values: float, deadline: float = math.inf, cached: Score | None = None) -> PendingRequest:
        rows = [Row(self.model.encoder.read(b'{"x0":%r}' % value), b"", cached_score=cached) for value in values]
        context = RequestContext("test", "r", deadline=deadline)
        return PendingRequest(self.model, rows, context, asyncio.get_running_loop().create_future(), False)

    def finished(self, outcome: str) -> int:
        counted = [each for each in self.events if isinstance(each, MessagesFinished) and each.outcome == outcome]
        return sum(each.count for each in counted)


@pytest_asyncio.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path / "models")
    yield world
    await world.worker.stop()


def predictions(scores: Sequence[Score]) -> list[Any]:
    return [score.prediction for score in scores]


async def test_a_batch_is_one_message_and_each_request_gets_its_own_scores(world: World) -> None:
    await world.worker.start()

    batch = await world.scorer.score_later(world.model, [world.request(2), world.request(0, 1)])

    assert (predictions(batch.scores), batch.errors) == ([2, 0, 1], {})
    assert [each for each in world.events if isinstance(each, RowsTaken)] == [RowsTaken(3, 1)]


async def test_a_row_that_cannot_be_scored_fails_only_its_request(world: World) -> None:
    await world.worker.start()

    batch = await world.scorer.score_later(world.model, [world.request(1), world.request(0, 9), world.request(2)])

    assert predictions(batch.scores) == [1, 2]
    assert {number: error.rows for number, error in batch.errors.items()} == {1: [1]}
    assert isinstance(batch.errors[1], NoAnswer)


async def test_cached_rows_are_not_sent_and_keep_their_positions(world: World) -> None:
    await world.worker.start()
    cached = world.request(1, cached=Score(7.0)).rows
    mixed = PendingRequest(
        world.model, [*cached, *world.request(2).rows], RequestContext("t", "r"), asyncio.Future(), False
    )

    batch = await world.scorer.score_later(world.model, [mixed])

    assert predictions(batch.scores) == [7, 2]
    assert [each.rows for each in world.events if isinstance(each, RowsTaken)] == [1]


async def test_a_request_fails_at_its_own_deadline_while_the_others_wait(world: World) -> None:
    hasty = world.request(1, deadline=time.perf_counter() + 0.05)
    patient = world.request(2)
    scoring = world.scorer.score_later(world.model, [hasty, patient])

    with pytest.raises(TooLate):
        await hasty.answer  # type: ignore[misc]
    assert not patient.answer.done()
    await world.worker.start()

    assert predictions((await scoring).scores) == [1, 2]


async def test_a_batch_without_waiting_requests_is_abandoned(world: World) -> None:
    request = world.request(1, deadline=time.perf_counter() + 0.02)
    scoring = world.scorer.score_later(world.model, [request])

    await asyncio.wait_for(asyncio.shield(scoring), 10)

    assert isinstance(request.answer.exception(), TooLate)  # type: ignore[attr-defined]


async def test_an_unreadable_message_is_parked_and_its_sender_gets_an_error(world: World) -> None:
    await world.worker.start()
    reply = world.queue.send(b"not a message", world.model.digest, 60)
    await reply

    (parked,) = world.queue.parked
    assert "not valid" in parked.reason
    assert world.finished("parked") == 1


async def test_a_message_that_kills_its_workers_is_parked(world: World) -> None:
    scoring = world.scorer.score_later(world.model, [world.request(1)])
    for number in range(MAX_DELIVERIES):
        reader = MemoryQueueReader(world.queue, f"dead{number}")
        await (reader.take(1) if number == 0 else reader.adopt())

    await world.worker.start()

    with pytest.raises(Unavailable) as failed:
        await scoring
    assert failed.value.slug == "worker-failed"
    assert f"{MAX_DELIVERIES} workers died" in world.queue.parked[0].reason


async def test_the_message_of_a_dead_worker_is_scored_by_another(world: World) -> None:
    scoring = world.scorer.score_later(world.model, [world.request(2)])
    await MemoryQueueReader(world.queue, "dead").take(1)

    await world.worker.start()

    assert predictions((await scoring).scores) == [2]


async def test_a_message_for_a_model_that_a_worker_lacks_is_left_to_other_workers(world: World) -> None:
    world.source.models = {}
    await world.worker.start()
    scoring = world.scorer.score_later(world.model, [world.request(2)])

    async def is_returned() -> bool:
        return world.finished("returned") > 2

    await eventually_async(is_returned)
    other = world.new_worker("other", Source(world.live))
    await other.start()
    try:
        assert predictions((await scoring).scores) == [2]
    finally:
        await other.stop()


async def test_if_a_model_fails_unexpectedly_only_the_message_that_causes_the_failure_is_parked(world: World) -> None:
    score = world.live.score

    def fail_on_two(rows: Sequence[Any]) -> list[Score]:
        scores = score(rows)
        if any(each.prediction == 2 for each in scores):
            raise RuntimeError
        return scores

    world.live.score = fail_on_two  # type: ignore[method-assign]
    good, bad = (world.scorer.score_later(world.model, [world.request(value)]) for value in (1, 2))
    await world.worker.start()

    assert predictions((await good).scores) == [1]
    with pytest.raises(Unavailable):
        await bad
    assert len(world.queue.parked) == 1


async def test_a_stopping_worker_finishes_the_messages_that_it_has_taken(world: World) -> None:
    scoring = [world.scorer.score_later(world.model, [world.request(value)]) for value in (0, 1, 2)]
    await world.worker.start()
    await asyncio.wait([*scoring], return_when=asyncio.FIRST_COMPLETED)
    await world.worker.stop()

    assert not world.queue.owners
    assert "worker" not in world.queue.alive


async def test_messages_for_the_same_model_are_scored_in_one_call(world: World) -> None:
    scoring = [world.scorer.score_later(world.model, [world.request(value)]) for value in (0, 1, 2)]
    await world.worker.start()

    assert [predictions((await each).scores) for each in scoring] == [[0], [1], [2]]
    assert [each for each in world.events if isinstance(each, RowsTaken)] == [RowsTaken(3, 3)]


def test_a_message_in_another_format_is_refused(world: World) -> None:
    fields = msgspec.msgpack.decode(encode_rows([]))
    with pytest.raises(Malformed, match="format 99"):
        decode_rows(msgspec.msgpack.encode([99, *fields[1:]]))


async def test_the_number_of_unanswered_batches_grows_with_the_number_of_live_workers(world: World) -> None:
    assert world.scorer.max_batches == BATCHES_PER_WORKER

    for name in ("a", "b"):
        await MemoryQueueReader(world.queue, name).beat([])

    assert world.scorer.max_batches == 2 * BATCHES_PER_WORKER


class StuckSource(Source):
    """Never finds a model."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = asyncio.Event()

    async def find(self, digest: str) -> LiveModel | None:
        self.is_asked.set()
        await asyncio.Event().wait()
        return None


async def test_a_worker_that_cannot_finish_in_time_leaves_its_messages_to_others(world: World) -> None:
    source = StuckSource()
    stuck = world.new_worker("stuck", source, drain_seconds=0.05)
    await stuck.start()
    scoring = world.scorer.score_later(world.model, [world.request(2)])
    await asyncio.wait_for(source.is_asked.wait(), 10)
    await stuck.stop()

    await world.worker.start()

    assert predictions((await scoring).scores) == [2]
