"""The contract of the queue between servers and workers: in memory, and in Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from rowcast.errors import Overloaded
from rowcast.serving.ports import Delivery, QueueReader
from support.queues import QueueUnderTest, memory_queue, redis_queue
from support.redis import RedisServer
from support.waiting import eventually_async

MAX_MESSAGES = 5
LONG = 60.0


@pytest_asyncio.fixture(params=["memory", "redis"])
async def world(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[QueueUnderTest]:
    if request.param == "memory":
        async with memory_queue(MAX_MESSAGES) as queue:
            yield queue
    else:
        async with redis_queue(redis_server, MAX_MESSAGES) as queue:
            yield queue


async def take(reader: QueueReader, most: int = 10) -> list[Delivery]:
    async def taken() -> list[Delivery]:
        return list(await reader.take(most))

    return await eventually_async(taken, LONG)


async def live_reader(world: QueueUnderTest, name: str) -> QueueReader:
    reader = world.reader(name)
    await reader.beat(["d"])
    return reader


async def test_a_reply_reaches_the_sender_of_its_message(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    first, second = world.queue.send(b"one", "d", LONG), world.queue.send(b"two", "d", LONG)

    deliveries: list[Delivery] = []
    while len(deliveries) < 2:
        deliveries += await take(reader)
    sent = await reader.answer([(delivery, delivery.body.upper()) for delivery in reversed(deliveries)])

    assert sent == 2
    assert {delivery.digest for delivery in deliveries} == {"d"}
    assert (await first, await second) == (b"ONE", b"TWO")


async def test_a_message_is_delivered_to_only_one_worker(world: QueueUnderTest) -> None:
    readers = [await live_reader(world, name) for name in ("a", "b")]
    for number in range(MAX_MESSAGES):
        world.queue.send(b"%d" % number, "d", LONG)

    taken: list[bytes] = []
    while len(taken) < MAX_MESSAGES:
        taken += [delivery.body for delivery in await readers[len(taken) % 2].take(1)]

    assert sorted(taken) == [b"%d" % number for number in range(MAX_MESSAGES)]
    assert [list(await reader.take(1)) for reader in readers] == [[], []]


async def test_a_worker_takes_no_more_messages_than_it_asks_for(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    for _ in range(3):
        world.queue.send(b"x", "d", LONG)

    assert len(await take(reader, 2)) <= 2


async def test_an_expired_message_is_dropped(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    expired = world.queue.send(b"late", "d", 0.001)
    await asyncio.sleep(0.01)
    later = world.queue.send(b"now", "d", LONG)

    (delivery,) = await take(reader)
    await reader.answer([(delivery, b"ok")])

    assert (delivery.body, await later, expired.done()) == (b"now", b"ok", False)


async def test_the_messages_of_a_dead_worker_are_adopted_one_by_one_and_their_deliveries_are_counted(
    world: QueueUnderTest,
) -> None:
    dead, other = await live_reader(world, "dead"), await live_reader(world, "other")
    replies = [world.queue.send(body, "d", LONG) for body in (b"1", b"2")]
    taken = 0
    while taken < 2:
        taken += len(await take(dead))
    assert await other.adopt() is None

    world.kill("dead")
    adopted = [await other.adopt(), await other.adopt(), await other.adopt()]

    assert adopted[2] is None
    assert sorted((each.body, each.deliveries) for each in adopted if each) == [(b"1", 2), (b"2", 2)]
    assert await other.answer([(each, b"ok") for each in adopted if each]) == 2
    assert await asyncio.gather(*replies) == [b"ok", b"ok"]


async def test_a_slow_worker_with_heartbeats_keeps_its_messages(world: QueueUnderTest) -> None:
    slow, other = await live_reader(world, "slow"), await live_reader(world, "other")
    world.queue.send(b"x", "d", LONG)
    await take(slow)

    for _ in range(3):
        await slow.beat(["d"])
        assert await other.adopt() is None


async def test_only_the_first_reply_counts(world: QueueUnderTest) -> None:
    stopped, other = await live_reader(world, "stopped"), await live_reader(world, "other")
    reply = world.queue.send(b"x", "d", LONG)
    (old,) = await take(stopped)
    world.kill("stopped")
    adopted = await other.adopt()
    assert adopted is not None

    assert await other.answer([(adopted, b"first")]) == 1
    await stopped.beat(["d"])
    assert await stopped.answer([(old, b"second")]) == 0
    await stopped.hand_back(old)
    await stopped.park(old, "too late", b"third")

    assert await reply == b"first"
    assert (list(await other.take(1)), world.parked()) == ([], [])


async def test_a_message_that_is_handed_back_is_delivered_again_and_its_returns_are_counted(
    world: QueueUnderTest,
) -> None:
    reader = await live_reader(world, "w")
    reply = world.queue.send(b"x", "d", LONG)

    for returns in range(3):
        (delivery,) = await take(reader)
        assert (delivery.body, delivery.returns, delivery.deliveries) == (b"x", returns, 1)
        await reader.hand_back(delivery)
    (delivery,) = await take(reader)
    await reader.answer([(delivery, b"ok")])

    assert await reply == b"ok"


async def test_a_parked_message_is_answered_and_kept_with_its_reason(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    reply = world.queue.send(b"x", "d", LONG)
    (delivery,) = await take(reader)

    await reader.park(delivery, "the reason", b"sorry")

    assert await reply == b"sorry"
    assert world.parked() == ["the reason"]
    assert list(await reader.take(1)) == []


async def test_a_full_queue_refuses_messages_until_one_is_finished(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    for _ in range(MAX_MESSAGES):
        world.queue.send(b"x", "d", LONG)
    taken: list[Delivery] = []
    while len(taken) < MAX_MESSAGES:
        taken += await take(reader)

    async def refused() -> bool:
        try:
            await asyncio.wait_for(world.queue.send(b"more", "d", LONG), 0.05)
        except Overloaded:
            return True
        except TimeoutError:
            pass
        return False

    assert await eventually_async(refused)
    await reader.answer([(delivery, b"ok") for delivery in taken])
    accepted = world.queue.send(b"again", "d", LONG)
    delivery = (await take(reader))[-1]
    await reader.answer([(delivery, b"ok")])
    assert await accepted == b"ok"


async def test_a_canceled_message_gets_no_reply_and_does_not_affect_later_messages(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    cancelled = world.queue.send(b"x", "d", LONG)
    (delivery,) = await take(reader)
    cancelled.cancel()
    await reader.answer([(delivery, b"ok")])

    kept = world.queue.send(b"y", "d", LONG)
    (delivery,) = await take(reader)
    await reader.answer([(delivery, b"kept")])

    assert await kept == b"kept"


async def test_an_interrupted_worker_takes_no_more_messages(world: QueueUnderTest) -> None:
    reader = await live_reader(world, "w")
    reader.interrupt()
    world.queue.send(b"x", "d", LONG)

    assert list(await reader.take(1)) == []


async def test_other_workers_adopt_the_messages_of_a_worker_that_leaves(world: QueueUnderTest) -> None:
    leaving, other = await live_reader(world, "leaving"), await live_reader(world, "other")
    world.queue.send(b"x", "d", LONG)
    await take(leaving)
    await leaving.leave()

    adopted = await other.adopt()

    assert adopted is not None
    assert adopted.body == b"x"
