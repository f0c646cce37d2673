"""Polling for a lone client's next request: the length of a poll, and the frequency after unsuccessful polls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rowcast.runtime import busy_poll
from rowcast.runtime.busy_poll import MAX_MISSES, BusyPoll


class Loop:
    """An event loop with its own clock: each iteration takes ten microseconds."""

    def __init__(self) -> None:
        self.now = 1.0
        self.ready: list[Callable[[], Any]] = []

    def call_soon(self, callback: Any, *arguments: Any, context: Any = None) -> None:
        self.ready.append(lambda: callback(*arguments))

    def turn(self) -> None:
        """Run one iteration."""
        self.now += 10e-6
        ready, self.ready = self.ready, []
        for callback in ready:
            callback()

    def polls(self, poll: BusyPoll) -> int:
        """Start a poll, and return the number of iterations until the loop has nothing left to do."""
        poll.begin(self)  # type: ignore[arg-type]
        turns = 0
        while self.ready:
            self.turn()
            turns += 1
        return turns


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    loop = Loop()
    monkeypatch.setattr(busy_poll.time, "perf_counter", lambda: loop.now)
    return loop


def test_the_loop_polls_until_the_time_is_up(loop: Loop) -> None:
    poll = BusyPoll(95e-6)

    assert loop.polls(poll) == 10
    assert not poll.is_waiting


def test_polling_can_be_turned_off(loop: Loop) -> None:
    poll = BusyPoll(0)

    assert loop.polls(poll) == 0
    assert not poll.is_waiting


def test_a_request_ends_the_poll(loop: Loop) -> None:
    poll = BusyPoll(1.0)
    poll.begin(loop)  # type: ignore[arg-type]
    loop.turn()
    assert poll.is_waiting

    poll.succeed()
    loop.turn()

    assert not poll.is_waiting
    assert not loop.ready


def test_the_next_poll_reuses_the_scheduled_iteration_of_the_previous_poll(loop: Loop) -> None:
    poll = BusyPoll(95e-6)
    poll.begin(loop)  # type: ignore[arg-type]
    loop.turn()
    poll.succeed()
    poll.begin(loop)  # type: ignore[arg-type]

    assert len(loop.ready) == 1
    assert poll.is_waiting
    assert loop.polls(poll) == 10


def test_polls_become_less_frequent_after_each_unsuccessful_poll(loop: Loop) -> None:
    poll = BusyPoll(20e-6)

    skipped = []
    for _ in range(MAX_MISSES + 2):
        count = 0
        while not loop.polls(poll):
            count += 1
        skipped.append(count)

    assert skipped == [0, *(2**misses - 1 for misses in range(1, MAX_MISSES + 1)), 2**MAX_MISSES - 1]


def test_after_a_successful_poll_every_response_starts_another_poll(loop: Loop) -> None:
    poll = BusyPoll(20e-6)
    for _ in range(5):
        loop.polls(poll)
    while not poll.is_waiting:
        poll.begin(loop)  # type: ignore[arg-type]

    poll.succeed()
    loop.turn()

    assert loop.polls(poll) > 0
