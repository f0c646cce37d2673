"""Implements the setting `durability=store`: a reply is sent only after the store has committed the entry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from rowcast.errors import RowcastError, Unavailable
from rowcast.history.ports import Journal, Position

POLL_SECONDS = 0.005
"""The polling interval. Another process commits the entries, so the waiter polls the store."""
TIMEOUT_SECONDS = 10.0


class _PendingCommit(NamedTuple):
    writer: str
    seq: int
    deadline: float
    done: Callable[[Exception | None], None]


class CommitWaiter:
    """Runs a callback once journal entries are stored or the timeout expires. Each event loop has one waiter."""

    def __init__(self, position: Callable[[str], Position | None], timeout: float = TIMEOUT_SECONDS) -> None:
        self._position = position
        self._timeout = timeout
        self._pending: list[_PendingCommit] = []
        self._poller: asyncio.Task[None] | None = None

    def when_stored(self, journal: Journal, done: Callable[[Exception | None], None]) -> None:
        """Call `done(None)` once the journal's current entries are stored, or `done(error)` after the timeout."""
        head = journal.head
        if head is None:
            done(None)
            return
        loop = asyncio.get_running_loop()
        self._pending.append(_PendingCommit(journal.writer, head.seq, loop.time() + self._timeout, done))
        if self._poller is None:
            self._poller = loop.create_task(self._poll())

    async def _poll(self) -> None:
        try:
            while self._pending:
                writers = {pending.writer for pending in self._pending}
                stored = await asyncio.to_thread(self._stored_seqs, writers)
                self._notify(stored, asyncio.get_running_loop().time())
                await asyncio.sleep(POLL_SECONDS)
        finally:
            self._poller = None

    def _stored_seqs(self, writers: set[str]) -> dict[str, int]:
        try:
            positions = {writer: self._position(writer) for writer in writers}
        except RowcastError:  # pending commits time out if the store stays unavailable
            return {}
        return {writer: position.seq for writer, position in positions.items() if position is not None}

    def _notify(self, stored: dict[str, int], now: float) -> None:
        pending, self._pending = self._pending, []
        for commit in pending:
            if commit.writer in stored and stored[commit.writer] >= commit.seq:
                commit.done(None)
            elif now > commit.deadline:
                commit.done(
                    Unavailable(
                        f"the store did not commit the prediction within {self._timeout:g} s; the prediction is in the "
                        "journal and will be stored later",
                        slug="not-stored",
                    )
                )
            else:
                self._pending.append(commit)
