"""Monitor the journal of a server process: check the disk space, begin new files, and publish the head of the chain."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

import structlog

from rowcast.errors import RowcastError
from rowcast.history.heads import ChainHead
from rowcast.history.ports import Journal, Position

CHECK_SECONDS = 1.0
PUBLISH_SECONDS = 60.0
SAMPLE_SECONDS = 10.0
STORE_SECONDS = 60.0
"""The indexer normally stores an entry within a second. If entries wait much longer, the indexer has stalled."""
MEBIBYTE = 1024 * 1024

log = structlog.get_logger("rowcast.history")


class RollingJournal(Journal, Protocol):
    """A journal that can continue in a new file."""

    def roll(self) -> None:
        """Begin a new file if one is due."""
        ...


class JournalMonitor:
    """Checks the journal every second; calls `refuse(reason)` if predictions must stop, otherwise `refuse(None)`."""

    def __init__(
        self,
        journal: RollingJournal,
        refuse: Callable[[str | None], None],
        free_bytes: Callable[[], int],
        min_free_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        sign: Callable[[ChainHead], ChainHead] = lambda head: head,
    ) -> None:
        self._journal = journal
        self._refuse = refuse
        self._free_bytes = free_bytes
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._sign = sign
        self._is_refusing = False
        self._head: tuple[str, Position] | None = None
        self._published: tuple[str, Position] | None = None
        self._publish_at = clock() + PUBLISH_SECONDS
        self._past_heads: deque[tuple[float, str, int]] = deque(maxlen=2 + round(STORE_SECONDS / SAMPLE_SECONDS))
        """Earlier heads. Each has a time, a writer and an entry number."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check immediately, and then every second in the background."""
        self.check()
        self._task = asyncio.create_task(self._check_repeatedly())

    async def stop(self) -> None:
        """Stop checking, and publish the final head."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._note_head()
        self._publish()

    def disk_problem(self) -> str | None:
        """Return a description of the problem with the disk, or None if there is no problem."""
        try:
            free = self._free_bytes()
        except OSError as error:
            return f"cannot determine the free space on the history disk: {error.strerror}"
        if free < self._min_free_bytes:
            limit = self._min_free_bytes // MEBIBYTE
            return f"the history disk has {free // MEBIBYTE} MiB left, less than min_free_mb={limit}; free some space"
        return None

    def indexer_problem(self, position: Callable[[str], Position | None]) -> str | None:
        """Return a description of the problem if old entries are not in the store.

        `position` returns the position of the last stored entry of a writer.
        """
        latest = self._clock() - STORE_SECONDS
        old = [head for head in self._past_heads if head[0] <= latest]
        if not old:
            return None
        _, writer, seq = old[-1]
        stored = position(writer)
        if stored is not None and stored.seq >= seq:
            return None
        return (
            f"the indexer is not making progress: entries older than {STORE_SECONDS:g} s are not in the store; "
            "check the server's log, and find the process that has locked indexer.lock in the journal folder"
        )

    def check(self) -> None:
        """Check the disk, begin a new journal file if one is due, and publish the head if a minute has passed."""
        problem = self.disk_problem()
        self._refuse(problem)
        if (problem is not None) != self._is_refusing:
            self._is_refusing = problem is not None
            if problem:
                log.error("predictions are refused", reason=problem)
            else:
                log.info("predictions are accepted again")
        try:
            self._journal.roll()
        except RowcastError as error:
            log.warning("cannot begin a new journal file", reason=error.message)
        self._note_head()
        if self._clock() >= self._publish_at:
            self._publish_at = self._clock() + PUBLISH_SECONDS
            self._publish()

    async def _check_repeatedly(self) -> None:
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            self.check()

    def _note_head(self) -> None:
        """Store the head. If the journal has a new writer, first publish the previous writer's final head."""
        head = self._journal.head
        if self._head is not None and self._head[0] != self._journal.writer:
            self._publish()
            self._head = None
        if head is not None:
            self._head = self._journal.writer, head
            if not self._past_heads or self._clock() >= self._past_heads[-1][0] + SAMPLE_SECONDS:
                self._past_heads.append((self._clock(), self._journal.writer, head.seq))

    def _publish(self) -> None:
        if self._head is not None and self._head != self._published:
            writer, position = self._head
            head = self._sign(ChainHead(writer, position.seq, position.link.hex()))
            log.info("head", writer=head.writer, seq=head.seq, link=head.link, signature=head.signature)
            self._published = self._head
