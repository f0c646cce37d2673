"""A worker's side of a queue in Redis: takes messages from a stream and replies to them.

If a worker stops sending heartbeats, its key expires, and another worker adopts its messages. If a call that takes
messages fails, Redis may have delivered messages that this process has not received. The worker then continues under
another name, so that other workers adopt the messages that were delivered under its former name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.link import RedisLink
from rowcast.adapters.redis.queue_keys import GROUP, LIFE_MS, REPLIES_MS, QueueKeys, read_status
from rowcast.adapters.redis.resp import parse_entries
from rowcast.adapters.redis.scripts import Script
from rowcast.events import Listener, MessagesFinished
from rowcast.serving.ports import Delivery, QueueStatus, WorkerInfo

BLOCK_SECONDS: Final = 1.0
"""How long one call waits for messages."""
RETRY_SECONDS: Final = 0.05

_answer = Script("queue_answer.lua")
_move = Script("queue_move.lua")
_adopt = Script("queue_adopt.lua")


class RedisQueueReader:
    """Takes messages for the worker `name`."""

    def __init__(self, link: RedisLink, prefix: str, name: str, listen: Listener) -> None:
        self._link = link
        self._keys = QueueKeys(prefix)
        self._base = name
        self._name = name
        self._failures = 0
        self._digests: list[str] = []
        self._listen = listen
        self._clock_offset = 0.0
        """The Redis server's time minus this machine's time, in milliseconds."""
        self._interrupted = asyncio.Event()
        self.status = QueueStatus(0, 0.0, ())
        """The status at the most recent heartbeat."""

    async def beat(self, digests: Sequence[str]) -> None:
        """Renew this worker's key and description."""
        self._digests = list(digests)
        name, info = self._name, msgspec.msgpack.encode(WorkerInfo(self._base, self._digests))

        async def renew(client: RedisClient) -> Any:
            replies = await client.execute_atomically(
                ("SET", self._keys.alive + name, b"", "PX", LIFE_MS),
                ("HSET", self._keys.workers, name, info),
                ("TIME",),
            )
            return replies[2]

        now = await self._link.call(renew)
        self.status = await self._link.call(lambda client: read_status(client, self._keys)) or self.status
        if now is not None:
            self._clock_offset = int(now[0]) * 1000 + int(now[1]) / 1000 - time.time() * 1000

    async def take(self, most: int) -> Sequence[Delivery]:
        """Wait for messages, and take up to `most`."""
        if self._interrupted.is_set():
            return []

        name = self._name

        async def read(client: RedisClient) -> Any:
            block = ("BLOCK", round(BLOCK_SECONDS * 1000))
            reply = await client.wait(
                *("XREADGROUP", "GROUP", GROUP, name, "COUNT", most), *block, "STREAMS", self._keys.messages, ">"
            )
            return parse_entries(reply[0][1]) if reply else []

        entries = await self._link.call(read, blocks=BLOCK_SECONDS)
        if entries is None:
            await self._rename(name)
        return await self._valid([_delivery(entry, 1) for entry in entries or ()])

    def interrupt(self) -> None:
        """Take no further messages. A call that is waiting ends within BLOCK_SECONDS."""
        self._interrupted.set()

    async def adopt(self) -> Delivery | None:
        """Take one message from a worker whose key has expired."""
        keys = [self._keys.messages, self._keys.workers]
        arguments = [GROUP, self._name, self._keys.alive]
        adopted = await self._link.call(lambda client: _adopt.run(client, keys, arguments))
        if not adopted:
            return None
        claimed, deliveries = adopted
        delivery = _delivery(parse_entries([claimed])[0], int(deliveries))
        return next(iter(await self._valid([delivery])), None)

    async def answer(self, answers: Sequence[tuple[Delivery, bytes]]) -> int:
        """Send replies and remove their messages."""
        keys = [self._keys.messages, *[self._keys.replies(delivery.sender) for delivery, _ in answers]]
        arguments: list[str | bytes | int] = [GROUP, REPLIES_MS]
        for delivery, reply in answers:
            arguments += [delivery.id, delivery.number, reply]
        return int(await self._link.call(lambda client: _answer.run(client, keys, arguments)) or 0)

    async def hand_back(self, delivery: Delivery) -> None:
        """Put a message at the end of the queue."""
        fields = _fields(msgspec.structs.replace(delivery, returns=delivery.returns + 1))
        await self._move(delivery, [self._keys.messages], b"", fields)

    async def park(self, delivery: Delivery, reason: str, reply: bytes) -> None:
        """Move a message to the parked messages, and send the reply."""
        targets = [self._keys.parked, self._keys.replies(delivery.sender)]
        await self._move(delivery, targets, reply, [*_fields(delivery), "reason", reason])

    async def leave(self) -> None:
        """Delete this worker's key and description."""

        async def forget(client: RedisClient) -> Any:
            return await client.execute_atomically(
                ("DEL", self._keys.alive + self._name), ("HDEL", self._keys.workers, self._name)
            )

        await self._link.call(forget)

    async def _rename(self, failed: str) -> None:
        """Continue under another name as soon as Redis responds."""
        if self._name == failed:
            self._failures += 1
            self._name = f"{self._base}-{self._failures}"
        await asyncio.sleep(RETRY_SECONDS)
        if self._link.is_available:
            await self.beat(self._digests)

    async def _move(
        self, delivery: Delivery, targets: Sequence[str], reply: bytes, fields: Sequence[str | bytes]
    ) -> None:
        keys = [self._keys.messages, *targets]
        arguments = [GROUP, delivery.id, REPLIES_MS, delivery.number, reply, *fields]
        await self._link.call(lambda client: _move.run(client, keys, arguments))

    async def _valid(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Drop the expired messages."""
        now = time.time() * 1000 + self._clock_offset
        expired = [delivery for delivery in deliveries if float(delivery.expires) < now]
        if not expired:
            return deliveries
        ids = [delivery.id for delivery in expired]

        async def drop(client: RedisClient) -> Any:
            return await client.execute_atomically(
                ("XACK", self._keys.messages, GROUP, *ids), ("XDEL", self._keys.messages, *ids)
            )

        await self._link.call(drop)
        self._listen(MessagesFinished("expired", len(expired)))
        return [delivery for delivery in deliveries if delivery not in expired]


def _delivery(entry: tuple[bytes, dict[bytes, bytes]], deliveries: int) -> Delivery:
    identity, fields = entry
    return Delivery(
        id=identity.decode(),
        digest=fields.get(b"digest", b"").decode(errors="replace"),
        body=fields.get(b"body", b""),
        sender=fields.get(b"sender", b"").decode(errors="replace"),
        number=fields.get(b"number", b"0").decode(errors="replace"),
        expires=fields.get(b"expires", b"inf").decode(errors="replace"),
        deliveries=deliveries,
        returns=int(fields.get(b"returns", b"0")),
    )


def _fields(delivery: Delivery) -> list[str | bytes]:
    return [
        *("expires", delivery.expires, "sender", delivery.sender, "number", delivery.number),
        *("digest", delivery.digest, "body", delivery.body, "returns", str(delivery.returns)),
    ]
