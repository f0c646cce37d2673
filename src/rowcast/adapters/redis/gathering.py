"""Sends the items of concurrent requests to Redis together.

A call through the Redis client takes more CPU time than a whole prediction (`make bench-redis`). Items that arrive in
the same iteration of the event loop, or while earlier calls are in progress, share a call.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final, Generic, NamedTuple, TypeVar

from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.link import GRACE_TURNS, RedisLink

Item = TypeVar("Item")
Reply = TypeVar("Reply")

MAX_CALLS: Final = 4
"""The maximum number of calls in progress."""
MAX_ITEMS: Final = 1000
"""The maximum number of items in a call."""


class _Question(NamedTuple, Generic[Item, Reply]):
    """The items of one request and the future for their replies. A reply is None if Redis did not respond in time."""

    items: Sequence[Item]
    replies: asyncio.Future[Sequence[Reply] | None]


class Gatherer(Generic[Item, Reply]):
    """Combines the items of several requests into calls to `command`, which returns one reply for each item."""

    def __init__(
        self, link: RedisLink, command: Callable[[RedisClient, list[Item]], Awaitable[Sequence[Reply]]]
    ) -> None:
        self._link = link
        self._command = command
        self._waiting: deque[_Question[Item, Reply]] = deque()
        self._calls = 0
        self._is_scheduled = False
        self._context = Context()

    async def ask(self, items: Sequence[Item]) -> list[Reply | None]:
        """Return one reply for each item, or None for each item to which Redis did not reply in time."""
        if not items or not self._link.is_available:
            return [None] * len(items)
        loop = asyncio.get_running_loop()
        questions: list[_Question[Item, Reply]] = [
            _Question(items[start : start + MAX_ITEMS], loop.create_future())
            for start in range(0, len(items), MAX_ITEMS)
        ]
        self._waiting.extend(questions)
        self._schedule(loop)
        timer = loop.call_later(self._link.seconds, _expire, loop, questions, GRACE_TURNS)
        result: list[Reply | None] = []
        try:
            for question in questions:
                result += await question.replies or [None] * len(question.items)
        finally:
            timer.cancel()
        return result

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and not self._is_scheduled and self._calls < MAX_CALLS:
            self._is_scheduled = True
            loop.call_soon(self._send, loop, context=self._context)

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start a call for the oldest waiting questions. A call contains up to MAX_ITEMS items."""
        self._is_scheduled = False
        questions: list[_Question[Item, Reply]] = []
        count = 0
        while self._waiting and count + len(self._waiting[0].items) <= MAX_ITEMS:
            question = self._waiting.popleft()
            if not question.replies.done():
                questions.append(question)
                count += len(question.items)
        if questions:
            self._calls += 1
            self._link.run(self._perform(questions))
        self._schedule(loop)

    async def _perform(self, questions: list[_Question[Item, Reply]]) -> None:
        items = [item for question in questions for item in question.items]
        replies = None
        try:
            replies = await self._link.call(lambda client: self._command(client, items))
        finally:
            self._calls -= 1
            start = 0
            for question in questions:
                end = start + len(question.items)
                if not question.replies.done():
                    question.replies.set_result(None if replies is None else replies[start:end])
                start = end
            self._schedule(asyncio.get_running_loop())


def _expire(loop: asyncio.AbstractEventLoop, questions: Sequence[_Question[Item, Reply]], turns: int) -> None:
    """Stop waiting for replies after a few more iterations of the event loop, in which late replies can still be
    read."""
    if turns:
        loop.call_soon(_expire, loop, questions, turns - 1)
        return
    for question in questions:
        if not question.replies.done():
            question.replies.set_result(None)
