"""Background work gets only the CPU time that nothing else needs, unless that is too little."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from rowcast.runtime import idle_time
from rowcast.runtime.idle_time import BUSY_SECONDS, SLOW_SECONDS, IdleTimeRunner


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Work:
    """Notes the thread and the scheduling policy of each call."""

    def __init__(self, clock: Clock, seconds: float = 0.0) -> None:
        self.clock = clock
        self.seconds = seconds
        self.threads: list[str] = []
        self.policies: list[int] = []

    def __call__(self) -> None:
        self.threads.append(threading.current_thread().name)
        self.policies.append(os.sched_getscheduler(0))
        self.clock.now += self.seconds


def test_work_runs_in_a_thread_with_the_lowest_priority() -> None:
    assert sys.platform == "linux"
    clock = Clock()
    runner, work = IdleTimeRunner(clock), Work(clock, SLOW_SECONDS)

    runner.run(work)
    runner.run(work)

    assert work.policies == [os.SCHED_IDLE] * 2
    assert len(set(work.threads)) == 1
    assert threading.current_thread().name not in work.threads
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_after_a_slow_call_work_has_normal_priority_for_some_time() -> None:
    clock = Clock()
    runner, work = IdleTimeRunner(clock), Work(clock, SLOW_SECONDS + 0.1)
    runner.run(work)
    work.seconds = 0.0

    runner.run(work)
    clock.now += BUSY_SECONDS - 0.1
    runner.run(work)
    clock.now += 0.2
    runner.run(work)

    own = threading.current_thread().name
    assert [thread == own for thread in work.threads] == [False, True, True, False]


def test_work_has_normal_priority_while_the_thread_gets_no_cpu_time() -> None:
    clock = Clock()
    runner, work = IdleTimeRunner(clock), Work(clock)
    is_released = threading.Event()
    runner._thread.submit(is_released.wait)

    runner.run(work)
    runner.run(work)
    is_released.set()
    assert runner._probe is not None
    runner._probe.result()
    runner.run(work)

    own = threading.current_thread().name
    assert [thread == own for thread in work.threads] == [True, True, False]


@pytest.mark.parametrize("seconds", [0.0, 2 * SLOW_SECONDS])
def test_an_exception_reaches_the_caller_and_a_slow_failure_counts(seconds: float) -> None:
    clock = Clock()
    runner, work = IdleTimeRunner(clock), Work(clock)

    def fail() -> None:
        clock.now += seconds
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        runner.run(fail)
    runner.run(work)

    assert (work.threads == [threading.current_thread().name]) is (seconds > 0)


def test_a_sandbox_that_forbids_priorities_does_not_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(idle_time.os, "sched_setscheduler", forbid)
    clock = Clock()
    work = Work(clock)

    IdleTimeRunner(clock).run(work)

    assert work.policies == [os.SCHED_OTHER]
