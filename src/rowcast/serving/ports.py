"""The ports of this package: a cache of scores, the queue to the workers, and the destination of a reply.

Every cache or queue adapter passes the contract tests in `tests/contracts/`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from rowcast.schema.prediction import Score


class Cache(Protocol):
    """Stores scores by row key. Entries may disappear at any time.

    Methods never raise an exception. If the cache fails, lookups return misses.
    """

    async def get(self, keys: Sequence[str]) -> Sequence[Score | None]:
        """Return the cached scores in the order of the keys, with None for misses."""
        ...

    def put(self, scores: Mapping[str, Score], seconds: float | None = None) -> None:
        """Store scores in the background; `seconds` overrides the default time to live."""
        ...


class Queue(Protocol):
    """A server's side of the queue. A message is delivered to one worker, whose reply is delivered to the sender."""

    @property
    def workers(self) -> int:
        """The number of live workers, as far as this process knows."""
        ...

    def send(self, body: bytes, digest: str, seconds: float) -> asyncio.Future[bytes]:
        """Send a message for the model with this digest; return a future for the reply.

        The message expires after `seconds`: workers then drop it without a reply. A caller that cancels the future
        ignores the reply. Raise Unavailable if the queue cannot be used, and Overloaded if the queue is full. The
        future can raise the same errors later.
        """
        ...


class WorkerInfo(msgspec.Struct, frozen=True):
    """The description that a worker publishes with each heartbeat."""

    name: str
    digests: list[str]
    """The digests of the worker's models."""


class QueueStatus(NamedTuple):
    """The number of messages, the age of the oldest message that is waiting for a worker, and the live workers."""

    messages: int
    seconds: float
    workers: tuple[WorkerInfo, ...]


class Delivery(msgspec.Struct, frozen=True):
    """A message that a worker has taken from the queue."""

    id: str
    """The message's id in the queue."""
    digest: str
    body: bytes
    sender: str
    """The process that is waiting for the reply."""
    number: str
    """The number that the sender assigned to the message."""
    expires: str
    """When the message expires, according to the queue's clock."""
    deliveries: int = 1
    """The number of workers that have taken the message, including this one."""
    returns: int = 0
    """The number of times that workers without the model have returned the message."""


class QueueReader(Protocol):
    """A worker's side of the queue. A message belongs to the worker that has taken it until that worker finishes it. If
    a worker's heartbeats stop, the other workers adopt its messages. Methods do not raise an exception if the queue
    fails: nothing is taken, and a message whose reply cannot be sent stays in the queue. Every change is atomic.
    """

    async def beat(self, digests: Sequence[str]) -> None:
        """Report that this worker is alive and has the models with these digests."""
        ...

    async def take(self, most: int) -> Sequence[Delivery]:
        """Wait for messages for a limited time, and take up to `most` of them. Expired messages are dropped."""
        ...

    def interrupt(self) -> None:
        """Make the current call to `take` and all later calls return without waiting."""
        ...

    async def adopt(self) -> Delivery | None:
        """Take one message from a dead worker, or return None if there is none. Expired messages are dropped."""
        ...

    async def answer(self, answers: Sequence[tuple[Delivery, bytes]]) -> int:
        """Send replies and remove their messages; return the number of replies sent.

        A message that another worker has finished gets no second reply.
        """
        ...

    async def hand_back(self, delivery: Delivery) -> None:
        """Put a message back at the end of the queue for other workers, and count how often this has happened."""
        ...

    async def park(self, delivery: Delivery, reason: str, reply: bytes) -> None:
        """Park a message, record the reason, and send the reply."""
        ...

    async def leave(self) -> None:
        """Unregister this worker. Other workers adopt its unfinished messages."""
        ...


class Answer(Protocol):
    """The destination of a request's result: an `asyncio.Future`, or a cheaper object on the quick path.

    While `done` returns False, delivery never raises an exception, so that the batcher can answer the other requests.
    """

    def done(self) -> bool:
        """Return whether the request is finished or canceled."""
        ...

    def set_result(self, result: Any, /) -> None:
        """Deliver the reply, or the list of replies."""
        ...

    def set_exception(self, error: Exception, /) -> None:
        """Deliver the error."""
        ...
