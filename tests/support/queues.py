"""Queues in memory and in Redis, for tests."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

from rowcast.adapters.memory.queue import MemoryQueue, MemoryQueueReader
from rowcast.adapters.redis.link import RedisLink
from rowcast.adapters.redis.queue import RedisQueue
from rowcast.adapters.redis.queue_keys import QueueKeys, verify_queue
from rowcast.adapters.redis.queue_reader import RedisQueueReader
from rowcast.serving.ports import Queue, QueueReader
from support.redis import RedisServer
from support.sharing import until

LONG = 60.0


class QueueUnderTest:
    """A queue with its sender; `reader` returns the reader for a worker."""

    def __init__(
        self, queue: Queue, reader: Callable[[str], QueueReader], kill: Callable[[str], None], parked: Callable[[], Any]
    ) -> None:
        self.queue = queue
        self.reader = reader
        self.kill = kill
        """Makes a worker's heartbeats expire."""
        self.parked = parked
        """Returns the reasons why messages were parked."""


@contextlib.asynccontextmanager
async def memory_queue(max_messages: int) -> AsyncIterator[QueueUnderTest]:
    """Run a queue in memory during a `with` block."""
    queue = MemoryQueue(max_messages)
    yield QueueUnderTest(
        queue,
        lambda name: MemoryQueueReader(queue, name),
        lambda name: queue.alive.pop(name) and None,
        lambda: [parked.reason for parked in queue.parked],
    )


@contextlib.asynccontextmanager
async def redis_queue(server: RedisServer, max_messages: int, prefix: str = "") -> AsyncIterator[QueueUnderTest]:
    """Run a queue in Redis during a `with` block."""
    prefix = prefix or uuid.uuid4().hex
    keys = QueueKeys(prefix)
    async with contextlib.AsyncExitStack() as stack:
        links = [await stack.enter_async_context(_linked(server.url, prefix)) for _ in range(2)]
        queue = RedisQueue(links[0], prefix, max_messages=max_messages, max_seconds=LONG)
        await queue.start()
        stack.push_async_callback(queue.stop)
        yield QueueUnderTest(
            queue,
            lambda name: RedisQueueReader(links[1], prefix, name, lambda event: None),
            lambda name: server.command("del", keys.alive + name) and None,
            lambda: server.command("xrange", keys.parked, "-", "+").splitlines()[-1:],
        )


@contextlib.asynccontextmanager
async def _linked(url: str, prefix: str) -> AsyncIterator[RedisLink]:
    link = RedisLink(
        url,
        "queue",
        seconds=LONG,
        verify=verify_queue(QueueKeys(prefix)),
        fallback="tests fail",
        listen=lambda event: None,
    )
    await link.start()
    try:
        await until(lambda: link.is_available)
        yield link
    finally:
        await link.stop()
