"""What a server process looks at every second: room on the disk, whether a new journal is due, the chain's head."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Protocol

import structlog

from rowcast.errors import RowcastError
from rowcast.history.ports import Journal, Position

LOOK_EVERY_SECONDS = 1.0
PUBLISH_EVERY_SECONDS = 60.0
MEBIBYTE = 1024 * 1024

log = structlog.get_logger("rowcast.history")


class RollingJournal(Journal, Protocol):
    """A journal that can go on in a new file."""

    def roll(self) -> None:
        """Do so when that is due."""
        ...


class Watch:
    """Looks after one process's journal. `hold` refuses predictions with a reason, or takes them again with None."""

    def __init__(
        self,
        journal: RollingJournal,
        hold: Callable[[str | None], None],
        free: Callable[[], int],
        least_free: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._hold = hold
        self._free = free
        self._least_free = least_free
        self._clock = clock
        self._held = False
        self._seen: tuple[str, Position] | None = None
        self._published: tuple[str, Position] | None = None
        self._due = clock() + PUBLISH_EVERY_SECONDS
        self._looking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look; the first look is over when this returns."""
        self.look()
        self._looking = asyncio.create_task(self._look_on())

    async def stop(self) -> None:
        """Look no more; the last head is published."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        self._notice()
        self._publish()

    def check(self) -> str | None:
        """What is wrong with the disk, for the health page."""
        try:
            free = self._free()
        except OSError as error:
            return f"the disk of history cannot be looked at: {error.strerror}"
        if free < self._least_free:
            least = self._least_free // MEBIBYTE
            return f"{free // MEBIBYTE} MiB are free where history is kept, less than min_free_mb={least}: make room"
        return None

    def look(self) -> None:
        """One look at everything."""
        wrong = self.check()
        self._hold(wrong)
        if (wrong is not None) != self._held:
            self._held = wrong is not None
            log.error("predictions are refused", reason=wrong) if wrong else log.info("predictions are taken again")
        try:
            self._journal.roll()
        except RowcastError as error:
            log.warning("no new journal could be begun", reason=error.message)
        self._notice()
        if self._clock() >= self._due:
            self._due = self._clock() + PUBLISH_EVERY_SECONDS
            self._publish()

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            self.look()

    def _notice(self) -> None:
        """Remember the head; that of a writer who gave up is published at once, or nobody would."""
        head = self._journal.head
        if self._seen is not None and self._seen[0] != self._journal.writer:
            self._publish()
            self._seen = None
        if head is not None:
            self._seen = self._journal.writer, head

    def _publish(self) -> None:
        if self._seen is not None and self._seen != self._published:
            writer, head = self._seen
            log.info("head", writer=writer, seq=head.seq, link=head.link.hex())
            self._published = self._seen
