"""Waiting until the store has committed a journal's entries."""

from __future__ import annotations

import asyncio

from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import Unavailable
from rowcast.history.commit_waiter import CommitWaiter
from rowcast.history.ports import Position
from support.entries import drafts


class Callback:
    """A callback that records its calls."""

    def __init__(self) -> None:
        self.calls: list[Exception | None] = []
        self.event = asyncio.Event()

    def __call__(self, error: Exception | None) -> None:
        self.calls.append(error)
        self.event.set()

    async def error(self) -> Exception | None:
        await asyncio.wait_for(self.event.wait(), 5)
        return self.calls[0]


def journal_with(entries: int) -> MemoryJournal:
    journal = MemoryJournal(MemoryStore(), "w")
    if entries:
        journal.append(drafts(0, entries))
    return journal


async def test_the_callback_for_an_empty_journal_is_called_immediately() -> None:
    callback = Callback()

    CommitWaiter(lambda writer: None).when_stored(journal_with(0), callback)

    assert callback.calls == [None]


async def test_each_caller_waits_for_its_own_entries() -> None:
    stored = {"w": Position(-1, b"")}
    waiter = CommitWaiter(stored.get)
    first, second = Callback(), Callback()
    waiter.when_stored(journal_with(1), first)
    waiter.when_stored(journal_with(3), second)

    stored["w"] = Position(0, b"")
    assert await first.error() is None
    assert second.calls == []
    stored["w"] = Position(2, b"")
    assert await second.error() is None


async def test_waiting_for_an_unavailable_store_times_out() -> None:
    def fail(writer: str) -> Position | None:
        raise Unavailable("the database is unreachable")

    callback = Callback()
    CommitWaiter(fail, timeout=0.01).when_stored(journal_with(1), callback)

    error = await callback.error()
    assert isinstance(error, Unavailable)
    assert error.slug == "not-stored"
    assert len(callback.calls) == 1
