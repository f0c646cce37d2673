"""Waiting for a condition instead of for time to pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], seconds: float = 10.0, every: float = 0.02) -> T:
    """What `condition` returns once it is true; AssertionError when it is not in time."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{condition} did not hold within {seconds} s"
        time.sleep(every)
    return found


async def eventually_async(condition: Callable[[], Awaitable[T]], seconds: float = 10.0, every: float = 0.02) -> T:
    """The same inside an event loop."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, f"{condition} did not hold within {seconds} s"
        await asyncio.sleep(every)
    return found
