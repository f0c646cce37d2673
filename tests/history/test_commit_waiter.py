"""Waiting until the store has committed a journal's entries."""

from __future__ import annotations

import asyncio

import pytest

from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import Unavailable
from rowcast.history.commit_waiter import POLL_SECONDS, CommitWaiter
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


async def test_a_waiter_can_be_used_again_after_all_entries_are_stored() -> None:
    stored = {"w": Position(0, b"")}
    waiter = CommitWaiter(stored.get)
    callbacks = [Callback(), Callback()]

    for callback in callbacks:
        waiter.when_stored(journal_with(1), callback)
        assert await callback.error() is None
        await asyncio.sleep(2 * POLL_SECONDS)  # the waiter stops polling

    assert [callback.calls for callback in callbacks] == [[None], [None]]


async def test_the_store_is_polled_every_five_milliseconds_for_all_callers_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    rounds: list[str] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(seconds)

    def position(writer: str) -> Position | None:
        rounds.append(writer)
        return Position(0, b"") if len(rounds) == 3 else None

    monkeypatch.setattr(asyncio, "sleep", note)
    waiter, callbacks = CommitWaiter(position), [Callback(), Callback()]
    for callback in callbacks:
        waiter.when_stored(journal_with(1), callback)
    for callback in callbacks:
        assert await callback.error() is None

    assert rounds == ["w"] * 3
    assert set(pauses) == {0.005}


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock can be advanced."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


def test_a_prediction_that_is_not_stored_within_ten_seconds_is_reported() -> None:
    async def wait(loop: SkippingLoop) -> None:
        callback = Callback()
        CommitWaiter(lambda writer: None).when_stored(journal_with(1), callback)
        loop.skipped = 5.0
        await asyncio.sleep(4 * POLL_SECONDS)
        assert callback.calls == []

        loop.skipped = 10.0
        error = await callback.error()
        assert isinstance(error, Unavailable)
        assert "within 10 s" in error.message

    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, SkippingLoop)
        runner.run(wait(loop))
