"""The server's side of a queue in Redis: sends messages and reads the replies to this process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Collection
from functools import partial
from typing import Final

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.link import RedisLink
from rowcast.adapters.redis.queue_keys import QueueKeys, read_status
from rowcast.adapters.redis.resp import parse_entries
from rowcast.adapters.redis.scripts import Script
from rowcast.errors import Overloaded, Unavailable
from rowcast.serving.ports import QueueStatus

BLOCK_SECONDS: Final = 1.0
"""How long one call waits for replies."""
MAX_REPLIES: Final = 200
"""The maximum number of entries read in one call."""
TRIM_EVERY: Final = 100
"""Replies are deleted each time this many have been read, and when no more replies arrive."""
STATUS_SECONDS: Final = 0.5
PATIENCE_SECONDS: Final = 3.0
"""If no worker has had a model for this long, requests for the model fail immediately."""
RETRY_SECONDS: Final = 0.05

_send = Script("queue_send.lua")


class RedisQueue:
    """Sends messages and receives replies. The server starts the connection before this object and stops the connection
    after it.
    """

    def __init__(self, link: RedisLink, prefix: str, *, max_messages: int, max_seconds: float) -> None:
        self._link = link
        self._keys = QueueKeys(prefix)
        self._max_messages = max_messages
        self._max_seconds = max_seconds
        self._sender = uuid.uuid4().hex
        self._count = 0
        self._waiting: dict[str, asyncio.Future[bytes]] = {}
        self._served: dict[str, float] = {}
        """The most recent time at which each model was available on a live worker."""
        self._started = 0.0
        self._tasks: list[asyncio.Task[None]] = []
        self.status = QueueStatus(0, 0.0, ())

    async def start(self) -> None:
        """Start reading replies and monitoring the workers."""
        self._started = asyncio.get_running_loop().time()
        await self._refresh()
        self._tasks = [self._link.run(self._read_replies()), self._link.run(self._watch())]

    async def stop(self) -> None:
        """Fail the requests that are still waiting, and delete the unread replies."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_all("the server is shutting down")
        await self._link.call(lambda client: client.execute("DEL", self._keys.replies(self._sender)))

    def send(self, body: bytes, digest: str, seconds: float) -> asyncio.Future[bytes]:
        """Send a message; return a future for the reply. Raise Unavailable or Overloaded if the message cannot be
        accepted.
        """
        self._check(digest)
        loop = asyncio.get_running_loop()
        self._count += 1
        number = str(self._count)
        reply: asyncio.Future[bytes] = loop.create_future()
        self._waiting[number] = reply
        reply.add_done_callback(lambda _: self._waiting.pop(number, None))
        self._link.run(self._add(number, reply, body, digest, seconds))
        return reply

    @property
    def workers(self) -> int:
        """The number of live workers at the most recent check."""
        return len(self.status.workers)

    def problem(self) -> str | None:
        """Return why messages cannot be sent, or None."""
        return self._link.problem()

    def is_served(self, digest: str) -> bool:
        """Return whether a live worker had this model at the most recent check."""
        return any(digest in worker.digests for worker in self.status.workers)

    def _check(self, digest: str) -> None:
        if not self._link.is_available:
            raise Unavailable(f"the queue is not available: {self._link.problem()}", slug="queue-unavailable")
        if not self.is_served(digest):
            missing = asyncio.get_running_loop().time() - self._served.get(digest, self._started)
            if missing > PATIENCE_SECONDS:
                raise Unavailable("no live worker serves this model; start one with `rowcast worker`", slug="no-worker")
        if self.status.seconds > self._max_seconds:
            raise Overloaded(
                f"the workers are overloaded: the oldest message has been waiting for {self.status.seconds:.1f} s; "
                "retry after 1 s"
            )

    async def _add(self, number: str, reply: asyncio.Future[bytes], body: bytes, digest: str, seconds: float) -> None:
        fields: list[str | bytes] = ["sender", self._sender, "number", number, "digest", digest, "body", body]
        arguments = [self._max_messages, max(1, round(seconds * 1000)), *fields]

        async def add(client: RedisClient) -> tuple[bytes | None]:
            return (await _send.run(client, [self._keys.messages], arguments),)

        added = await self._link.call(add)
        if added is None:
            _fail(reply, Unavailable("the queue does not respond", slug="queue-unavailable"))
        elif added[0] is None:
            message = f"the workers are overloaded: {self._max_messages} messages are waiting; retry after 1 s"
            _fail(reply, Overloaded(message))
        else:
            reply.add_done_callback(partial(self._withdraw, added[0]))

    def _withdraw(self, message: bytes, reply: asyncio.Future[bytes]) -> None:
        """Delete a message whose request has been canceled, so that it does not take up space in the queue."""
        if reply.cancelled() and self._link.is_available:
            self._link.run(self._link.call(lambda client: client.execute("XDEL", self._keys.messages, message)))

    async def _read_replies(self) -> None:
        name, last, untrimmed = self._keys.replies(self._sender), "0-0", 0
        while True:
            streams = await self._link.call(lambda client, last=last: _read(client, name, last), blocks=BLOCK_SECONDS)  # type: ignore[misc]
            if streams is None:
                self._fail_all("the connection to the queue was lost")
                await asyncio.sleep(RETRY_SECONDS)
                continue
            untrimmed += len(streams)
            if untrimmed >= TRIM_EVERY or (untrimmed and not streams):
                await self._link.call(lambda client, last=last: client.execute("XTRIM", name, "MINID", last))  # type: ignore[misc]
                untrimmed = 0
            for entry, fields in streams:
                last = entry.decode()
                for number, body in fields.items():
                    reply = self._waiting.get(number.decode())
                    if reply is not None and not reply.done():
                        reply.set_result(body)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(STATUS_SECONDS)
            await self._refresh()

    async def _refresh(self) -> None:
        status = await self._link.call(lambda client: read_status(client, self._keys))
        if status is not None:
            self.status = status
            now = asyncio.get_running_loop().time()
            self._served.update((digest, now) for worker in status.workers for digest in worker.digests)

    def _fail_all(self, reason: str) -> None:
        for reply in list(self._waiting.values()):
            _fail(reply, Unavailable(f"no reply from the workers: {reason}", slug="queue-unavailable"))


def _fail(reply: asyncio.Future[bytes], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)
        reply.exception()  # otherwise, asyncio logs the exception if no request is waiting for it


async def _read(client: RedisClient, name: str, last: str) -> Collection[tuple[bytes, dict[bytes, bytes]]]:
    """Wait for further replies."""
    streams = await client.wait(
        "XREAD", "COUNT", MAX_REPLIES, "BLOCK", round(BLOCK_SECONDS * 1000), "STREAMS", name, last
    )
    return parse_entries(streams[0][1]) if streams else []
