"""Erases rows on request, or when their retention period ends. Hashes remain, and every erasure is recorded.

A row can be in a journal or in the store. After it has been copied from a journal to the store, it is in both until the
journal is deleted. When the indexer of a journal folder first sees a request, it notes which journals the folder
contains. The request stays open until the indexer of every folder has drained these journals and has then erased the
selected rows.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec

from rowcast.errors import Unavailable
from rowcast.history.entry_filter import Selection, first_id, milliseconds_of
from rowcast.history.ports import ErasureRequest, JournalReader, OpenErasure, Store, StoreEraser

ENTRIES_PER_STEP = 1000
"""The number of entries per transaction, small enough that the indexer never waits long for the database."""
STEPS_PER_ROUND = 20
RETENTION_INTERVAL_US = 600 * 1_000_000
DAY_MS = 24 * 3600 * 1000
OVERDUE_MS = 7 * DAY_MS
"""A running indexer erases each row soon after the row becomes due. If even the newest due row has been due for this
long, the clock may be wrong."""
LATE_MS = DAY_MS
"""The overlap of consecutive retention passes, in milliseconds, so that entries that are stored late are not missed."""


def retention_problem(store: StoreEraser, now: int, days: int, first: str | None = None) -> str | None:
    """Return why retention must not erase the due rows with ids from `first` on, or None. `now` is in microseconds."""
    end = max(0, now // 1000 - days * DAY_MS)
    newest = store.newest_row(Selection(first=first, end=first_id(end)))
    if newest is None or end - milliseconds_of(newest) <= OVERDUE_MS:
        return None
    overdue = (end - milliseconds_of(newest)) // DAY_MS
    return (
        f"retention is paused: even the newest due row is {overdue} days overdue, so the clock may be wrong; "
        "if the clock is right, erase the rows with `rowcast history purge --before DATE`"
    )


class ErasureResult(msgspec.Struct, frozen=True):
    """The state of an erasure: the number of rows erased so far, and the journals that may still contain rows."""

    request: int
    rows: int
    journals: list[str]
    """The journals that have not been drained yet. After draining them, the indexer erases the selected rows."""
    damaged: list[str]
    """The damaged journals. Rows in these journals cannot be erased."""


class Eraser:
    """Erases rows in small transactions. Each eraser is responsible for one journal folder."""

    def __init__(self, store: StoreEraser, journals: JournalReader, now: Callable[[], int]) -> None:
        self._store = store
        self._journals = journals
        self._now = now
        self._progress: dict[int, str] = {}
        """Maps each request with an unfinished pass to the last id that the pass examined."""

    def erase(self, selection: Selection, by: str, reason: str) -> ErasureResult:
        """Erase stored rows immediately. The indexer erases the rows in journals later."""
        journals = self._journals.open_journals()
        erasure = self._store.open_erasure(ErasureRequest(selection, by, reason), self._journals.folder_id, journals)
        self._journals.request_roll()
        if journals:
            self._erase_all(erasure)
        self.advance()
        return self.result(erasure.number)

    def result(self, number: int) -> ErasureResult:
        """Return the state of this request."""
        waiting = {erasure.number: self._waiting(erasure) for erasure in self._store.open_erasures()}
        rows = self._store.erased_rows(number)
        return ErasureResult(number, rows, waiting.get(number, []), self._journals.damaged())

    def is_complete(self, number: int) -> bool:
        """Return whether every folder has completed this request."""
        return all(erasure.number != number for erasure in self._store.open_erasures())

    def advance(self, max_steps: int | None = None) -> None:
        """Continue this folder's part of every open request, with at most `max_steps` steps per request."""
        erasures = [erasure for erasure in self._store.open_erasures() if self._journals.folder_id in erasure.pending]
        if not erasures:
            return
        # Read the list before erasing: the entries of journals that are not listed are already in the store.
        open_journals = self._journals.open_journals()
        for erasure in erasures:
            journals = erasure.pending[self._journals.folder_id]
            if journals is None:
                self._store.acknowledge(erasure.number, self._journals.folder_id, open_journals)
                self._journals.request_roll()
                journals = open_journals
            if not journals & open_journals and self._erase_all(erasure, max_steps) and self._store.scrub():
                self._store.complete(erasure.number, self._journals.folder_id)

    def _erase_all(self, erasure: OpenErasure, max_steps: int | None = None) -> bool:
        """Erase the selected rows, continuing any unfinished pass; return whether the pass reached the end."""
        number, steps = erasure.number, 0
        while max_steps is None or steps < max_steps:
            after = self._progress.pop(number, None)
            step = self._store.erase(
                erasure.request, number=number, at=self._now(), limit=ENTRIES_PER_STEP, after=after
            )
            if step.last is None:
                return True
            self._progress[number] = step.last
            steps += 1
        return False

    def _waiting(self, erasure: OpenErasure) -> list[str]:
        """Return the journals that a request waits for, and the folders whose indexers have not seen the request."""
        names: list[str] = []
        for folder_id, journals in erasure.pending.items():
            if folder_id == self._journals.folder_id:
                names += (journals or frozenset()) & self._journals.open_journals()
            else:
                names += [f"folder {folder_id}"] if journals is None else journals
        return sorted(names)


class Maintenance(Eraser):
    """Runs after each drain: continues one folder's part of all open erasures, and enforces retention in the store."""

    def __init__(
        self,
        store: Store,
        journals: JournalReader,
        now: Callable[[], int],
        retention_days: int | None = None,
        report: Callable[[str], None] = lambda message: None,
    ) -> None:
        super().__init__(store, journals, now)
        self._report = report
        self._shared_store = store
        self._retention_days = retention_days
        self._registered = False
        self._erased_any = False
        self._needs_scrub = False
        self._retention_due = 0
        self._retention_after: str | None = None
        self._retention_first: str | None = None

    def run_once(self) -> None:
        """Perform one round of maintenance in small transactions."""
        if not self._registered:
            self._store.register_folder(self._journals.folder_id)
            self._registered = True
        self.advance(STEPS_PER_ROUND)
        if self._needs_scrub:
            self._needs_scrub = not self._store.scrub()
        now = self._now()
        if self._retention_days is not None and now >= self._retention_due:
            with self._shared_store.maintenance() as acquired:
                if acquired:
                    self._retain(now, self._retention_days)

    def close(self) -> None:
        """Unregister the folder if it has no journals, so that no erasure waits for a server that may never restart."""
        if self._registered and not self._journals.open_journals():
            with suppress(Unavailable):  # the folder stays registered until its next indexer stops
                self._store.unregister_folder(self._journals.folder_id)

    def _retain(self, now: int, days: int) -> None:
        """Erase a whole partition or one batch of rows older than the retention period.

        After the final batch, schedule the next pass.

        If even the newest row that is due is far overdue, the clock is probably wrong. No pass begins, because it could
        erase the whole history.
        """
        if self._retention_after is None:
            problem = retention_problem(self._store, now, days, self._retention_first)
            if problem is not None:
                self._report(problem)
                self._retention_due = now + RETENTION_INTERVAL_US
                return
        end = max(0, now // 1000 - days * DAY_MS)
        if self._retention_after is None and self._shared_store.erase_partition(first_id(end), at=now) is not None:
            return  # continue in the next round
        request = ErasureRequest(Selection(first=self._retention_first, end=first_id(end)), "retention", "retention")
        step = self._store.erase(request, number=0, at=now, limit=ENTRIES_PER_STEP, after=self._retention_after)
        self._erased_any = self._erased_any or step.rows > 0
        self._retention_after = step.last
        if step.last is None:
            self._retention_due = now + RETENTION_INTERVAL_US
            self._retention_first = first_id(max(0, end - LATE_MS))
            self._needs_scrub, self._erased_any = self._needs_scrub or self._erased_any, False
