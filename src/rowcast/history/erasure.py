"""Rows taken out of history: on request, by date, or when their time is over. Hashes stay; each erasure is recorded.

A row may lie in three places: the store, a journal that is not stored yet, and a journal that is stored but still open.
So a request stays open until the journals of its time are gone, and the indexer erases what they bring.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from rowcast.history.entry_filter import Selection, first_id
from rowcast.history.ports import ErasureRequest, OpenRequest, Spool, StoreEraser

ROWS_AT_ONCE = 1000
"""Entries a transaction: the indexer waits no longer for it than for one of its own."""
RETENTION_EVERY_US = 600 * 1_000_000
DAY_MS = 24 * 3600 * 1000
LATE_MS = DAY_MS
"""What was looked through is not looked at again, but for a day: entries may come late. A new process begins anew."""


class Erased(msgspec.Struct, frozen=True):
    """What an erasure did; `journals` are those whose rows the indexer will erase when it has moved them."""

    request: int
    rows: int
    journals: list[str]
    damaged: list[str]
    """Journals that were put aside because they are damaged; nobody can take rows out of them."""


class Eraser:
    """Erases in small transactions, so that nobody waits long."""

    def __init__(self, store: StoreEraser, spool: Spool, now: Callable[[], int]) -> None:
        self._store = store
        self._spool = spool
        self._now = now
        self._scrubbed = True

    def erase(self, wanted: Selection, by: str, reason: str) -> Erased:
        """Erase what is stored, and let the indexer erase what still lies in journals."""
        asked = self._store.ask(ErasureRequest(wanted, by, reason, self._spool.journals()))
        self._spool.ask_to_roll()
        self._erase(asked)
        self.go_on()
        return self.result(asked.number)

    def result(self, number: int) -> Erased:
        """How far a request is."""
        waiting = [sorted(found.request.journals) for found in self._store.asked() if found.number == number]
        return Erased(number, self._store.erased(number), waiting[0] if waiting else [], self._spool.damaged())

    def is_done(self, number: int) -> bool:
        """Whether nothing of a request is left to do."""
        if not self._scrubbed:
            self._scrubbed = self._store.settle(())
        return self._scrubbed and all(found.number != number for found in self._store.asked())

    def go_on(self) -> None:
        """Erase what journals brought since they were asked for, and settle the requests whose journals are gone."""
        found = self._store.asked()
        if not found:
            return
        journals = self._spool.journals()  # asked first: what they held is stored by then
        for request in found:
            self._erase(request, fresh=True)
        gone = [request.number for request in found if not journals.keys() & request.request.journals.keys()]
        if gone:
            self._scrubbed = self._store.settle(gone)

    def _erase(self, asked: OpenRequest, *, fresh: bool = False) -> None:
        after = self._store.erase(asked, self._now(), ROWS_AT_ONCE, fresh=fresh).last
        while after is not None:
            after = self._store.erase(asked, self._now(), ROWS_AT_ONCE, after, fresh=fresh).last


class Caretaker(Eraser):
    """What the indexer does between moving journals: open requests, and retention."""

    def __init__(
        self, store: StoreEraser, spool: Spool, now: Callable[[], int], retention_days: int | None = None
    ) -> None:
        super().__init__(store, spool, now)
        self._days = retention_days
        self._due = 0
        self._after: str | None = None
        self._first: str | None = None
        self._dirty = False

    def turn(self) -> None:
        """One round: never more than a few small transactions."""
        self.go_on()
        if not self._scrubbed:
            self._scrubbed = self._store.settle(())
        now = self._now()
        if self._days is not None and now >= self._due:
            self._retain(now, self._days)

    def _retain(self, now: int, days: int) -> None:
        """One step through what is older than it may be; when all is done, again in ten minutes."""
        end = max(0, now // 1000 - days * DAY_MS)
        wanted = Selection(first=self._first, end=first_id(end))
        request = ErasureRequest(wanted, "retention", "retention")
        step = self._store.erase(OpenRequest(0, 0, request), now, ROWS_AT_ONCE, self._after)
        self._dirty = self._dirty or step.rows > 0
        self._after = step.last
        if step.last is None:
            self._due = now + RETENTION_EVERY_US
            self._first = first_id(max(0, end - LATE_MS))
            self._scrubbed, self._dirty = self._scrubbed and not self._dirty, False
