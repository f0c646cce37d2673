"""The connections of one process: their number is limited, and expired connections are closed."""

from __future__ import annotations

import asyncio

import pytest

from rowcast.runtime import connections
from rowcast.runtime.connections import ALONE_SECONDS, ROOM_SHARE, ConnectionLimits, ConnectionPool
from support.waiting import eventually_async


class Client:
    """A connection that counts how often it is told to expire."""

    def __init__(self, due: float = 1e9, *, idle: bool = True) -> None:
        self.loop = asyncio.get_running_loop()
        self.due = due
        self.idle = idle
        self.expirations = 0

    def expire(self) -> None:
        self.expirations += 1
        self.due = 1e9


@pytest.mark.parametrize("is_reversed", [False, True])
async def test_the_connections_that_have_been_idle_longest_are_closed_to_make_room(is_reversed: bool) -> None:
    pool = ConnectionPool(ConnectionLimits(max_connections=2 * ROOM_SHARE))
    clients = [Client(due=1e6 + number) for number in range(2 * ROOM_SHARE)]
    for client in reversed(clients) if is_reversed else clients:
        assert pool.add(client)

    assert pool.add(Client())

    assert [client.expirations for client in clients] == [1, 1] + [0] * (2 * ROOM_SHARE - 2)


async def test_a_busy_connection_stays_open_even_if_it_is_due_before_the_idle_connections() -> None:
    pool = ConnectionPool(ConnectionLimits(max_connections=3))
    busy, idle, later = Client(due=1e6, idle=False), Client(due=1e6 + 1), Client(due=1e6 + 2)
    for client in (busy, later, idle):
        pool.add(client)

    assert pool.add(Client())

    assert [client.expirations for client in (busy, idle, later)] == [0, 1, 0]


async def test_busy_connections_are_never_closed_to_make_room() -> None:
    pool = ConnectionPool(ConnectionLimits(max_connections=1))
    busy = Client(idle=False)
    pool.add(busy)

    assert not pool.add(Client())
    assert busy.expirations == 0


async def test_a_closed_connection_makes_room_for_a_new_connection() -> None:
    pool = ConnectionPool(ConnectionLimits(max_connections=1))
    first = Client(idle=False)
    pool.add(first)
    pool.remove(first)

    assert pool.add(Client())


async def test_a_connection_expires_at_its_due_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "SWEEP_SECONDS", 0.001)
    pool = ConnectionPool(ConnectionLimits())
    overdue, other = Client(due=0.0), Client()
    pool.add(overdue)
    pool.add(other)

    async def is_expired() -> bool:
        return overdue.expirations == 1

    await eventually_async(is_expired, every=0)
    assert other.expirations == 0


async def test_a_client_is_the_only_sender_if_no_other_client_has_sent_a_request_recently() -> None:
    pool = ConnectionPool(ConnectionLimits())
    one, other = Client(), Client()
    after = ALONE_SECONDS * 1.5

    assert not pool.is_only_sender(one, 0.0)
    assert pool.is_only_sender(one, after)
    assert not pool.is_only_sender(other, after)
    assert not pool.is_only_sender(one, 2 * after)
    assert pool.is_only_sender(one, 3 * after + ALONE_SECONDS)
    pool.remove(one)
    assert not pool.is_only_sender(other, 9.0)
