"""The queue in Redis: lost connections, expired requests and keys."""

from __future__ import annotations

import uuid

import pytest

from rowcast.adapters.redis.queue_keys import LIFE_MS, QueueKeys, check_policy
from rowcast.errors import SettingsError, Unavailable
from rowcast.serving.ports import Delivery
from support.queues import redis_queue
from support.redis import RedisServer
from support.waiting import eventually_async

LONG = 60.0


async def test_a_message_that_was_delivered_to_a_lost_connection_is_delivered_again(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    keys = QueueKeys(prefix)
    async with redis_queue(redis_server, 10, prefix) as world:
        reader = world.reader("w")
        await reader.beat(["d"])
        await reader.take(1)  # opens the connection that is lost below
        reply = world.queue.send(b"x", "d", LONG)

        async def is_lost() -> bool:
            command = ("xreadgroup", "group", "workers", "w", "count", "1", "streams", keys.messages, ">")
            return "body" in redis_server.command(*command)

        await eventually_async(is_lost)
        redis_server.command("client", "kill", "type", "normal")
        await reader.take(1)

        async def adopted() -> Delivery | None:
            await reader.beat(["d"])
            return await reader.adopt()

        delivery = await eventually_async(adopted, LIFE_MS / 1000 + LONG)
        await reader.answer([(delivery, b"ok")])

        assert await _outcome(reply) in (b"ok", "queue-unavailable")
        assert redis_server.command("xlen", keys.messages) == "0"


async def _outcome(reply: object) -> object:
    try:
        return await reply  # type: ignore[misc]
    except Unavailable as error:
        return error.slug


async def test_a_canceled_request_leaves_the_queue(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    async with redis_queue(redis_server, 10, prefix) as world:
        reply = world.queue.send(b"x", "d", LONG)

        async def length() -> bool:
            return redis_server.command("xlen", QueueKeys(prefix).messages) == "1"

        async def is_empty() -> bool:
            return not await length()

        await eventually_async(length)
        reply.cancel()
        await eventually_async(is_empty)


async def test_replies_are_trimmed_after_they_are_read(redis_server: RedisServer) -> None:
    prefix = uuid.uuid4().hex
    async with redis_queue(redis_server, 10, prefix) as world:
        reader = world.reader("w")
        await reader.beat(["d"])
        for _ in range(20):
            reply = world.queue.send(b"x", "d", LONG)
            deliveries: list[Delivery] = []
            while not deliveries:
                deliveries += await reader.take(1)
            await reader.answer([(deliveries[0], b"ok")])
            await reply
        (name,) = redis_server.command("keys", f"{prefix}:queue1:replies:*").split()

        async def is_trimmed() -> bool:
            return int(redis_server.command("xlen", name)) <= 1

        await eventually_async(is_trimmed)


@pytest.mark.parametrize("policy", ["allkeys-lru", "allkeys-lfu", "allkeys-random"])
def test_a_policy_that_can_evict_messages_is_refused(policy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        check_policy(policy)

    assert refused.value.slug == "queue-evicts"


@pytest.mark.parametrize("policy", ["noeviction", "volatile-lru", "volatile-ttl", ""])
def test_a_policy_that_evicts_only_keys_with_a_lifetime_is_accepted(policy: str) -> None:
    check_policy(policy)
