"""Implements `rowcast worker`: takes messages from the queue, scores their rows and sends the replies.

Messages for the same model are scored in one call. A message is acknowledged together with its reply, so that another
worker scores it if this one dies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import structlog

from rowcast.errors import NoAnswer
from rowcast.events import Listener, MessagesFinished, RowsTaken
from rowcast.schema.encoding import EncodedRow
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel
from rowcast.serving.ports import Delivery, QueueReader
from rowcast.serving.queue_messages import Malformed, decode_rows, encode_problem, encode_scores

MAX_MESSAGES: Final = 64
"""The maximum number of messages that a worker takes at once."""
MAX_DELIVERIES: Final = 3
"""The maximum number of deliveries. A message that is delivered more often is parked, because it seems to kill
workers."""
MAX_RETURNS: Final = 100
"""A message is parked after workers without its model have returned it this many times."""
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 1.0
"""The first and the longest pause, in seconds, before a message is returned again. Each pause is twice as long as the
previous pause."""
BEAT_SECONDS: Final = 0.5

log = structlog.get_logger("rowcast.worker")


class ModelSource(Protocol):
    """The models of a worker."""

    def loaded(self) -> Sequence[LiveModel]:
        """Return the loaded models."""
        ...

    async def find(self, digest: str) -> LiveModel | None:
        """Return the model with this digest; load it if the registry has it. Return None if it cannot be used."""
        ...


class QueueWorker:
    """Scores messages from the queue. It starts and stops with the process."""

    def __init__(
        self,
        reader: QueueReader,
        source: ModelSource,
        listen: Listener,
        *,
        concurrency: int,
        drain_seconds: float,
    ) -> None:
        self._reader = reader
        self._source = source
        self._listen = listen
        self._concurrency = concurrency
        self._drain_seconds = drain_seconds
        self._is_draining = False
        self._takers: list[asyncio.Task[None]] = []
        self._keeper: asyncio.Task[None] | None = None
        self._returns: set[asyncio.Task[None]] = set()
        self._locks: WeakKeyDictionary[LiveModel, asyncio.Lock] = WeakKeyDictionary()

    async def start(self) -> None:
        """Register this worker and begin to take messages."""
        await self._beat()
        self._takers = [asyncio.create_task(self._repeat(self._work)) for _ in range(self._concurrency)]
        self._takers.append(asyncio.create_task(self._repeat(self._adopt)))
        self._keeper = asyncio.create_task(self._keep_beating())

    def drain(self) -> None:
        """Take no more messages."""
        self._is_draining = True
        self._reader.interrupt()

    async def stop(self) -> None:
        """Finish the messages that this worker has taken, and unregister.

        Other workers adopt the messages that are not finished within `drain_seconds`.
        """
        self.drain()
        working = [*self._takers, *self._returns]
        if working:
            await asyncio.wait(working, timeout=self._drain_seconds)
        keeper = [] if self._keeper is None else [self._keeper]
        for task in [*working, *keeper]:
            task.cancel()
        await asyncio.gather(*working, *keeper, return_exceptions=True)
        await self._reader.leave()

    async def _repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        while not self._is_draining:
            try:
                await step()
            except Exception:  # one failure must not end the worker
                log.exception("a worker failed to process messages")
                await asyncio.sleep(FIRST_PAUSE)

    async def _keep_beating(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            try:
                await self._beat()
            except Exception:  # without further heartbeats, the other workers would consider this worker dead
                log.exception("a worker failed to send a heartbeat")

    async def _beat(self) -> None:
        await self._reader.beat([model.digest for model in self._source.loaded()])

    async def _work(self) -> None:
        deliveries = await self._reader.take(MAX_MESSAGES)
        if deliveries:
            await self._process(deliveries)

    async def _adopt(self) -> None:
        """Score the messages of dead workers one at a time, so that a message that kills this worker affects no other
        message."""
        delivery = await self._reader.adopt()
        if delivery is None:
            await asyncio.sleep(BEAT_SECONDS)
        elif delivery.deliveries > MAX_DELIVERIES:
            await self._park(delivery, f"{delivery.deliveries - 1} workers died while they had this message")
        else:
            log.warning("scoring a message that a dead worker had taken", message=delivery.id)
            await self._process([delivery])

    async def _process(self, deliveries: Sequence[Delivery]) -> None:
        by_digest: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            by_digest.setdefault(delivery.digest, []).append(delivery)
        # Messages for a model that must be loaded first do not delay the others.
        await asyncio.gather(*[self._process_group(digest, group) for digest, group in by_digest.items()])

    async def _process_group(self, digest: str, group: Sequence[Delivery]) -> None:
        model = await self._source.find(digest)
        if model is None:
            for delivery in group:
                self._hand_back_later(delivery)
            return
        answers = await self._score_group(model, group)
        if answers:
            sent = await self._reader.answer(answers)
            self._listen(MessagesFinished("answered", sent))
            self._listen(MessagesFinished("late", len(answers) - sent))

    async def _score_group(self, model: LiveModel, group: Sequence[Delivery]) -> list[tuple[Delivery, bytes]]:
        """Return the replies to messages for the same model; park the messages that cannot be scored."""
        readable: list[tuple[Delivery, list[list[EncodedRow]]]] = []
        for delivery in group:
            try:
                readable.append((delivery, decode_rows(delivery.body)))
            except Malformed as malformed:
                await self._park(delivery, str(malformed))
        if not readable:
            return []
        batches = [requests for _, requests in readable]
        self._listen(RowsTaken(sum(len(rows) for requests in batches for rows in requests), len(batches)))
        try:
            replies = await self._run(model, batches)
        except Exception:
            if len(readable) > 1:
                return [answer for delivery, _ in readable for answer in await self._score_group(model, [delivery])]
            log.exception("cannot score a message", message=readable[0][0].id, model=model.name)
            await self._park(readable[0][0], f"{model.name}@{model.version} failed unexpectedly")
            return []
        return [(delivery, reply) for (delivery, _), reply in zip(readable, replies, strict=True)]

    async def _run(self, model: LiveModel, batches: Sequence[list[list[EncodedRow]]]) -> list[bytes]:
        if not model.is_slow:
            return score_messages(model, batches)
        lock = self._locks.setdefault(model, asyncio.Lock())
        async with lock:  # only one thread at a time may use a graph
            return await asyncio.to_thread(score_messages, model, batches)

    def _hand_back_later(self, delivery: Delivery) -> None:
        """Return a message whose model this worker lacks. The pauses prevent workers without the model from passing it
        around in a busy loop."""
        task = asyncio.create_task(self._hand_back(delivery))
        self._returns.add(task)
        task.add_done_callback(self._returns.discard)

    async def _hand_back(self, delivery: Delivery) -> None:
        if delivery.returns >= MAX_RETURNS:
            await self._park(delivery, "no worker has the model for this message")
            return
        if delivery.returns and not self._is_draining:
            await asyncio.sleep(min(FIRST_PAUSE * 2 ** (delivery.returns - 1), LONGEST_PAUSE))
        await self._reader.hand_back(delivery)
        self._listen(MessagesFinished("returned", 1))

    async def _park(self, delivery: Delivery, reason: str) -> None:
        await self._reader.park(delivery, reason, encode_problem(reason))
        self._listen(MessagesFinished("parked", 1))
        log.error("parked a message", message=delivery.id, reason=reason)


def score_messages(model: LiveModel, batches: Sequence[list[list[EncodedRow]]]) -> list[bytes]:
    """Score the requests in several messages in one call, and return the reply to each message. Hot path."""
    try:
        scores = iter(model.score([row for requests in batches for rows in requests for row in rows]))
    except NoAnswer:
        return [encode_scores(*_score_separately(model, requests)) for requests in batches]
    return [encode_scores([next(scores) for rows in requests for _ in rows], {}) for requests in batches]


def _score_separately(
    model: LiveModel, requests: Sequence[Sequence[EncodedRow]]
) -> tuple[list[Score], dict[int, list[int]]]:
    """Score each request on its own, so that a failed row affects only its own request."""
    scores: list[Score] = []
    errors: dict[int, list[int]] = {}
    for number, rows in enumerate(requests):
        try:
            scores += model.score(rows)
        except NoAnswer as none:
            errors[number] = none.rows
    return scores, errors
