"""Run background work on CPU time that nothing else needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from contextlib import suppress

PROBE_SECONDS = 0.005
"""If the thread does not start within this time, the CPUs are busy."""
SLOW_SECONDS = 1.0
"""A call that takes longer than this shows that the CPUs became busy."""
BUSY_SECONDS = 60.0
"""How long calls then have normal priority, in seconds."""


class IdleTimeRunner:
    """Runs functions one after another in a thread that every other process interrupts at once.

    While the CPUs are too busy for such a thread to advance, functions run in the calling thread, with normal priority.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._busy_until = 0.0
        self._thread = ThreadPoolExecutor(1, "idle-time", initializer=_use_idle_time)
        self._probe: Future[None] | None = None

    def run(self, function: Callable[[], None]) -> None:
        """Call the function and wait for it; raise its exception."""
        started = self._clock()
        if started < self._busy_until or not self._is_idle():
            function()
            return
        try:
            self._thread.submit(function).result()
        finally:
            ended = self._clock()
            if ended - started > SLOW_SECONDS:
                self._busy_until = ended + BUSY_SECONDS

    def _is_idle(self) -> bool:
        """Return whether the thread gets CPU time at once."""
        if self._probe is None or self._probe.done():
            self._probe = self._thread.submit(_nothing)
        try:
            self._probe.result(PROBE_SECONDS)
        except TimeoutError:
            return False
        return True


def _nothing() -> None:
    """Do nothing; this shows that the thread can run."""


def _use_idle_time() -> None:
    """Give the current thread the lowest priority. Without privileges, a thread cannot leave this priority."""
    if hasattr(os, "SCHED_IDLE"):  # only on Linux
        with suppress(OSError):  # a sandbox may forbid this; the thread then keeps its normal priority
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
