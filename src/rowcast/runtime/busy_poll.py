"""Wait for a single client's next request without letting the CPU sleep."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context

MAX_MISSES = 8
"""After n unsuccessful polls, the next 2^n - 1 responses are not followed by a poll; n is at most MAX_MISSES."""


class BusyPoll:
    """Keeps an event loop polling for a moment after a response, because the client may send its next request
    immediately.

    An idle CPU goes to sleep and, on a virtual machine, takes a long time to wake up (decision 0060). If a client
    repeatedly takes longer than `seconds`, the loop polls less and less often. Polling therefore costs almost nothing
    if the client is slow or needs this CPU itself.
    """

    def __init__(self, seconds: float) -> None:
        self.is_waiting = False
        """Whether the loop is polling for the next request."""
        self._seconds = seconds
        self._end = 0.0
        self._misses = 0
        self._to_skip = 0
        self._is_scheduled = False
        self._context = Context()

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Poll for the next request, unless recent polls were unsuccessful. Hot path."""
        if not self._seconds:
            return
        if self._to_skip:
            self._to_skip -= 1
            return
        self.is_waiting = True
        self._end = time.perf_counter() + self._seconds
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._wait, loop, context=self._context)

    def succeed(self) -> None:
        """Stop polling, because a request has arrived. Hot path."""
        self.is_waiting = False
        self._misses = 0

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let the loop poll once more, unless a request has arrived or the time is up."""
        if self.is_waiting and time.perf_counter() < self._end:
            loop.call_soon(self._wait, loop, context=self._context)
            return
        self._is_scheduled = False
        if self.is_waiting:
            self.is_waiting = False
            self._misses = min(self._misses + 1, MAX_MISSES)
            self._to_skip = 2**self._misses - 1
