"""The child process that runs jobs: it exists only while it is needed, and exits when its parent exits."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rowcast.errors import Unavailable
from rowcast.runtime import job_child
from rowcast.runtime.job_child import JobRunnerChild
from support.waiting import eventually_async

UNTIL_END = "import sys; open({!r}, 'a').write('started\\n'); sys.stdin.read(); open({!r}, 'a').write('ended\\n')"
DIES = "import sys; open({!r}, 'a').write('started\\n'); sys.exit(3)"
STUCK = "import time; open({!r}, 'a').write('started\\n'); time.sleep(60)"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_child, "CHECK_SECONDS", 0.05)


class Case:
    def __init__(self, folder: Path, code: str, is_needed: Callable[[], bool]) -> None:
        self.path = folder / "events"
        self.path.touch()
        script = code.replace("{!r}", repr(str(self.path)))
        self.child = JobRunnerChild([sys.executable, "-c", script], {}, is_needed)

    @property
    def events(self) -> list[str]:
        return self.path.read_text().split()

    async def wait_for(self, *events: str) -> None:
        async def have_happened() -> bool:
            return self.events == list(events)

        await eventually_async(have_happened)


async def test_the_child_starts_when_it_is_needed_and_ends_when_the_part_stops(tmp_path: Path) -> None:
    needed = False
    case = Case(tmp_path, UNTIL_END, lambda: needed)
    await case.child.start()
    await asyncio.sleep(0)
    assert case.events == []

    needed = True
    case.child.wake()
    await case.wait_for("started")
    await case.child.stop()

    assert case.events == ["started", "ended"]


async def test_a_child_that_exits_is_started_again_if_it_is_still_needed(tmp_path: Path) -> None:
    case = Case(tmp_path, DIES, lambda: len(case.events) < 2)
    await case.child.start()

    await case.wait_for("started", "started")
    await case.child.stop()

    assert case.events == ["started", "started"]


async def test_a_stuck_child_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_child, "STOP_SECONDS", 0.1)
    case = Case(tmp_path, STUCK, lambda: not case.events)
    await case.child.start()
    await case.wait_for("started")

    await asyncio.wait_for(case.child.stop(), 10)


async def test_a_failing_check_does_not_end_the_checks(tmp_path: Path) -> None:
    checks = 0

    def is_needed() -> bool:
        nonlocal checks
        checks += 1
        if checks < 3:
            raise Unavailable("the store is unavailable")
        return checks == 3

    case = Case(tmp_path, UNTIL_END, is_needed)
    await case.child.start()
    await case.wait_for("started")
    await case.child.stop()


async def test_a_part_that_was_never_started_can_be_stopped_and_woken(tmp_path: Path) -> None:
    case = Case(tmp_path, UNTIL_END, lambda: True)
    case.child.wake()
    await case.child.stop()

    assert case.events == []
