"""Wait until a condition is met, rather than for a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(condition: Callable[[], T], seconds: float = 10.0, every: float = 0.02) -> T:
    """Call `condition` until it returns a true value, then return this value; raise AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, f"{condition} did not hold within {seconds} s"
        time.sleep(every)
    return result


async def eventually_async(condition: Callable[[], Awaitable[T]], seconds: float = 10.0, every: float = 0.02) -> T:
    """Do the same as `eventually` for an asynchronous condition."""
    deadline = time.monotonic() + seconds
    while not (result := await condition()):
        assert time.monotonic() < deadline, f"{condition} did not hold within {seconds} s"
        await asyncio.sleep(every)
    return result
