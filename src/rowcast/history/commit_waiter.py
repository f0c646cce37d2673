"""durability=store: an answer waits until the database has its entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from rowcast.errors import RowcastError, Unavailable
from rowcast.history.ports import Journal, Position

LOOK_EVERY_SECONDS = 0.005
"""Another process commits: its progress can be looked at, not awaited."""
PATIENCE_SECONDS = 10.0


class _Waiting(NamedTuple):
    writer: str
    seq: int
    until: float
    done: Callable[[Exception | None], None]


class UntilStored:
    """Calls back when entries of a journal have reached the store, or did not in time. One for each event loop."""

    def __init__(self, position: Callable[[str], Position | None], patience: float = PATIENCE_SECONDS) -> None:
        self._position = position
        self._patience = patience
        self._waiting: list[_Waiting] = []
        self._looking: asyncio.Task[None] | None = None

    def then(self, journal: Journal, done: Callable[[Exception | None], None]) -> None:
        """Call `done` once everything that this journal has now is stored; with an error when that takes too long."""
        head = journal.head
        if head is None:
            done(None)
            return
        loop = asyncio.get_running_loop()
        self._waiting.append(_Waiting(journal.writer, head.seq, loop.time() + self._patience, done))
        if self._looking is None:
            self._looking = loop.create_task(self._look())

    async def _look(self) -> None:
        try:
            while self._waiting:
                writers = {waiting.writer for waiting in self._waiting}
                stored = await asyncio.to_thread(self._positions, writers)
                self._tell(stored, asyncio.get_running_loop().time())
                await asyncio.sleep(LOOK_EVERY_SECONDS)
        finally:
            self._looking = None

    def _positions(self, writers: set[str]) -> dict[str, int]:
        try:
            found = {writer: self._position(writer) for writer in writers}
        except RowcastError:  # the store is away: whoever waits is told when his patience ends
            return {}
        return {writer: position.seq for writer, position in found.items() if position is not None}

    def _tell(self, stored: dict[str, int], now: float) -> None:
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            if stored.get(one.writer, -1) >= one.seq:
                one.done(None)
            elif now > one.until:
                one.done(
                    Unavailable(
                        f"the store has not taken the prediction within {self._patience:g} s; the journal keeps it, "
                        "and history will have it",
                        slug="not-stored",
                    )
                )
            else:
                self._waiting.append(one)
