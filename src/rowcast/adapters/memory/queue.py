"""A queue in the memory of one process, for tests and for trying out a worker without Redis."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

import msgspec

from rowcast.errors import Overloaded
from rowcast.serving.ports import Delivery

LIFE_SECONDS = 3.0
"""A worker that sends no heartbeat for this long is considered dead."""
WAIT_SECONDS = 0.3
"""How long `take` waits for messages."""


class ParkedDelivery(msgspec.Struct, frozen=True):
    """A message that no worker can score, and the reason."""

    delivery: Delivery
    reason: str


class MemoryQueue:
    """The server's side of the queue. It holds the messages of all servers and workers in this process."""

    def __init__(self, max_messages: int = 1000, clock: Callable[[], float] | None = None) -> None:
        self.messages: dict[str, Delivery] = {}
        """The unanswered messages, keyed by id, oldest first."""
        self.owners: dict[str, str] = {}
        """Maps the id of each taken message to the worker that took it."""
        self.alive: dict[str, float] = {}
        """The time at which each worker is considered dead, unless it sends another heartbeat first."""
        self.digests: dict[str, list[str]] = {}
        """Maps each worker to the digests of its models."""
        self.parked: list[ParkedDelivery] = []
        self.clock = clock or (lambda: asyncio.get_running_loop().time())
        self._max_messages = max_messages
        self._numbers = count(1)
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._readers: deque[asyncio.Future[None]] = deque()

    @property
    def workers(self) -> int:
        """The number of live workers."""
        return len(self.alive)

    def send(self, body: bytes, digest: str, seconds: float) -> asyncio.Future[bytes]:
        """Send a message; return a future for the reply."""
        if len(self.messages) >= self._max_messages:
            raise Overloaded(f"the workers are overloaded: {self._max_messages} messages are waiting; retry after 1 s")
        number = str(next(self._numbers))
        reply: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[number] = reply
        reply.add_done_callback(lambda _: self._waiting.pop(number, None))
        self.add(Delivery(number, digest, body, "memory", number, str(self.clock() + seconds), deliveries=0))
        return reply

    def add(self, delivery: Delivery) -> None:
        """Put a message at the end of the queue."""
        identity = f"m{next(self._numbers)}"
        self.messages[identity] = msgspec.structs.replace(delivery, id=identity)
        while self._readers:
            reader = self._readers.popleft()
            if not reader.done():
                reader.set_result(None)
                return

    async def wait(self) -> None:
        """Wait a limited time for a message. The worker that has waited longest is woken first."""
        reader: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._readers.append(reader)
        await asyncio.wait((reader,), timeout=WAIT_SECONDS)
        reader.cancel()

    def finish(self, delivery: Delivery, reply: bytes | None) -> bool:
        """Remove a message and send its reply, if any; return whether the message was still in the queue."""
        if self.messages.pop(delivery.id, None) is None:
            return False
        del self.owners[delivery.id]
        waiting = self._waiting.get(delivery.number)
        if reply is not None and waiting is not None and not waiting.done():
            waiting.set_result(reply)
        return True


class MemoryQueueReader:
    """A worker's side of the queue."""

    def __init__(self, queue: MemoryQueue, name: str) -> None:
        self._queue = queue
        self._name = name
        self._interrupted = asyncio.Event()

    async def beat(self, digests: Sequence[str]) -> None:
        """Report that this worker is alive."""
        self._queue.alive[self._name] = self._queue.clock() + LIFE_SECONDS
        self._queue.digests[self._name] = list(digests)

    async def take(self, most: int) -> Sequence[Delivery]:
        """Wait for messages, and take up to `most`."""
        if self._interrupted.is_set():
            return []
        free = [identity for identity in self._queue.messages if identity not in self._queue.owners][:most]
        if not free:
            await self._queue.wait()
            return []
        return self._valid([self._own(identity) for identity in free])

    def interrupt(self) -> None:
        """Take no further messages."""
        self._interrupted.set()

    async def adopt(self) -> Delivery | None:
        """Take one message from a dead worker."""
        now = self._queue.clock()
        for identity, owner in list(self._queue.owners.items()):
            if owner != self._name and self._queue.alive.get(owner, 0.0) <= now:
                return next(iter(self._valid([self._own(identity)])), None)
        return None

    async def answer(self, answers: Sequence[tuple[Delivery, bytes]]) -> int:
        """Send replies and remove their messages."""
        return sum(self._queue.finish(delivery, reply) for delivery, reply in answers)

    async def hand_back(self, delivery: Delivery) -> None:
        """Put a message at the end of the queue."""
        if self._queue.finish(delivery, None):
            self._queue.add(msgspec.structs.replace(delivery, returns=delivery.returns + 1, deliveries=0))

    async def park(self, delivery: Delivery, reason: str, reply: bytes) -> None:
        """Move a message to the parked messages."""
        if self._queue.finish(delivery, reply):
            self._queue.parked.append(ParkedDelivery(delivery, reason))

    async def leave(self) -> None:
        """Unregister this worker."""
        self._queue.alive.pop(self._name, None)

    def _own(self, identity: str) -> Delivery:
        old = self._queue.messages[identity]
        taken = msgspec.structs.replace(old, deliveries=old.deliveries + 1)
        self._queue.messages[identity], self._queue.owners[identity] = taken, self._name
        return taken

    def _valid(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Drop the expired messages."""
        now = self._queue.clock()
        for delivery in deliveries:
            if float(delivery.expires) < now:
                self._queue.finish(delivery, None)
        return [delivery for delivery in deliveries if delivery.id in self._queue.messages]
