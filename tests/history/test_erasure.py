"""Erasing rows, on request or by retention, from the store and from the journals of one or more homes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import Unavailable
from rowcast.history.chain import decode_erasure
from rowcast.history.entry_filter import Selection, first_id
from rowcast.history.erasure import (
    ENTRIES_PER_STEP,
    RETENTION_INTERVAL_US,
    STEPS_PER_ROUND,
    Eraser,
    Maintenance,
    retention_problem,
)
from rowcast.history.ports import ErasureRequest, ErasureStep, Store
from rowcast.history.service import History
from support import stores
from support.entries import draft, drafts, identifier, sealed

STARTED_US = 1_700_000_000_000_000
DAY_US = 24 * 3600 * 1_000_000


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with stores.new_store(request, tmp_path) as opened:
        yield opened


def erased_seqs(store: Store, writer: str) -> list[int]:
    return [entry.seq for entry in store.chain(writer) if entry.row is None]


def test_an_erasure_covers_the_store_and_open_journals(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "journal"
    journal, journals = FileJournal(folder, lambda: "w"), FolderJournalReader(folder)
    entries = [draft(number, entity="e" if number % 2 else "other") for number in range(9)]
    # Four entries are in the store and the open journal; the next four are only in the journal.
    journal.append(entries[:4])
    journals.drain(store)
    journal.append(entries[4:8])
    eraser, maintenance = Eraser(store, FolderJournalReader(folder), lambda: 5), Maintenance(store, journals, lambda: 6)

    result = eraser.erase(Selection(entity="e"), "user", "erase")
    maintenance.run_once()
    assert (result.rows, result.journals) == (2, ["w-000000000000.journal"])
    assert not eraser.is_complete(result.request)

    journal.roll()
    journal.append(entries[8:])
    journals.drain(store)
    maintenance.run_once()

    assert eraser.is_complete(result.request)
    assert eraser.result(result.request).rows == 4
    assert eraser.result(result.request).journals == []
    assert erased_seqs(store, "w") == [1, 3, 5, 7]
    verification = History(store, journals).verify()
    assert (verification.entries, verification.erased, verification.unrecorded) == (9, 4, 0)
    assert verification.broken == []
    assert not any(b'{"x":5}' in path.read_bytes() for path in folder.iterdir())
    journal.close()


def test_an_erasure_waits_for_the_journals_of_every_home(store: Store, tmp_path: Path) -> None:
    homes = [tmp_path / "a", tmp_path / "b"]
    journals = [FileJournal(home, lambda home=home: home.name) for home in homes]  # type: ignore[misc]
    readers = [FolderJournalReader(home) for home in homes]
    maintenances = [Maintenance(store, reader, lambda: 6) for reader in readers]
    for number, (journal, maintenance) in enumerate(zip(journals, maintenances, strict=True)):
        maintenance.run_once()
        journal.append([draft(number, entity="e")])

    eraser = Eraser(store, readers[0], lambda: 5)
    result = eraser.erase(Selection(entity="e"), "user", "erase")
    assert result.journals == ["a-000000000000.journal", f"folder {readers[1].folder_id}"]

    maintenances[1].run_once()
    assert eraser.result(result.request).journals == ["a-000000000000.journal", "b-000000000000.journal"]

    for journal, reader, maintenance in zip(journals, readers, maintenances, strict=True):
        assert not eraser.is_complete(result.request)
        journal.roll()
        reader.drain(store)
        maintenance.run_once()
        journal.close()

    assert eraser.is_complete(result.request)
    assert [erased_seqs(store, writer) for writer in "ab"] == [[0], [0]]
    assert eraser.result(result.request).rows == 2


def test_an_erasure_does_not_wait_for_a_home_whose_server_stopped_without_leaving_journals(
    store: Store, tmp_path: Path
) -> None:
    ended, waiting = (Maintenance(store, FolderJournalReader(tmp_path / name), lambda: 6) for name in ("a", "b"))
    journal = FileJournal(tmp_path / "b", lambda: "w")
    journal.append(drafts(0, 1))
    for maintenance in (ended, waiting):
        maintenance.run_once()
        maintenance.close()

    result = Eraser(store, EmptyJournalReader(), lambda: 5).erase(Selection(), "user", "erase")

    assert result.journals == [f"folder {FolderJournalReader(tmp_path / 'b').folder_id}"]
    journal.close()


def test_an_erasure_without_journals_completes_immediately(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))
    eraser = Eraser(store, EmptyJournalReader(), lambda: 5)

    result = eraser.erase(Selection(model="loans"), "user", "purge")

    assert (result.rows, result.journals, eraser.is_complete(result.request)) == (5, [], True)


def test_a_large_erasure_is_split_into_several_transactions(store: Store) -> None:
    count = 2 * ENTRIES_PER_STEP + 7
    store.record("w", sealed("w", drafts(0, count)))

    assert Eraser(store, EmptyJournalReader(), lambda: 5).erase(Selection(), "user", "purge").rows == count
    rows = [decode_erasure(entry.head).rows for entry in store.erasures()]
    assert rows == [1000, 1000, 7]


def test_maintenance_continues_a_large_erasure_in_the_next_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowcast.history.erasure.ENTRIES_PER_STEP", 2)
    store = MemoryStore()
    count = 2 * STEPS_PER_ROUND + 5
    store.record("w", sealed("w", drafts(0, count)))
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: 5)
    store.open_erasure(_request(), EmptyJournalReader.folder_id, frozenset())

    maintenance.run_once()
    assert len(erased_seqs(store, "w")) == 40
    assert len(store.open_erasures()) == 1

    maintenance.run_once()
    assert len(erased_seqs(store, "w")) == count
    assert store.open_erasures() == []


def _request() -> ErasureRequest:
    return ErasureRequest(Selection(), "user", "purge")


def test_an_erasure_stays_open_until_the_erased_bytes_are_scrubbed() -> None:
    class BusyStore(MemoryStore):
        """A store whose first two scrubs fail, as scrubs do during a slow read."""

        attempts = 0

        def scrub(self) -> bool:
            self.attempts += 1
            return self.attempts > 2

    store = BusyStore()
    store.record("w", sealed("w", drafts(0, 5)))
    eraser = Eraser(store, EmptyJournalReader(), lambda: 5)

    result = eraser.erase(Selection(), "user", "purge")
    assert not eraser.is_complete(result.request)
    eraser.advance()
    assert not eraser.is_complete(result.request)
    eraser.advance()
    assert eraser.is_complete(result.request)
    assert eraser.result(result.request).rows == 5


def test_retention_erases_old_rows_in_steps_and_runs_again_after_an_interval(store: Store) -> None:
    entries = [draft(number) for number in range(ENTRIES_PER_STEP + 5)]  # one entry per millisecond
    store.record("w", sealed("w", entries))
    now = STARTED_US + 30 * DAY_US + ENTRIES_PER_STEP * 1000  # the last five entries are less than 30 days old
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: now, 30)

    maintenance.run_once()
    assert len(erased_seqs(store, "w")) == ENTRIES_PER_STEP
    maintenance.run_once()
    now += 1_000_000  # all entries are now older than 30 days, but the next retention pass is not yet due
    maintenance.run_once()
    assert len(erased_seqs(store, "w")) == ENTRIES_PER_STEP
    now += 599_999_999 - 1_000_000
    maintenance.run_once()
    assert len(erased_seqs(store, "w")) == ENTRIES_PER_STEP
    now += 1  # the next retention pass is due ten minutes after the previous pass
    maintenance.run_once()
    maintenance.run_once()

    assert len(erased_seqs(store, "w")) == ENTRIES_PER_STEP + 5
    assert {decode_erasure(entry.head).reason for entry in store.erasures()} == {"retention"}
    assert History(store, EmptyJournalReader()).verify().unrecorded == 0


def test_retention_is_skipped_while_another_process_holds_the_maintenance_lock() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", drafts(0, 5)))
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: STARTED_US + 31 * DAY_US, 30)

    with store.maintenance():
        maintenance.run_once()
        assert erased_seqs(store, "w") == []
    maintenance.run_once()

    assert len(erased_seqs(store, "w")) == 5


def test_retention_erases_nothing_if_the_clock_is_far_ahead(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))
    now, reports = STARTED_US + (30 + 7) * DAY_US, list[str]()
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: now, 30, reports.append)
    maintenance.run_once()
    assert len(erased_seqs(store, "w")) == 5
    assert reports == []

    eight_days = 8 * DAY_US // 1000
    store.record("v", sealed("v", drafts(eight_days, eight_days + 4)))
    now += 400 * DAY_US
    maintenance.run_once()
    for writer in (
        "t",
        "u",
    ):  # predictions that are recorded with the wrong clock do not make the old rows less overdue
        store.record(writer, sealed(writer, [draft((now - STARTED_US) // 1000)]))
        now += RETENTION_INTERVAL_US
        maintenance.run_once()
    Maintenance(store, EmptyJournalReader(), lambda: now, 30, reports.append).run_once()

    assert erased_seqs(store, "v") == []
    assert len(reports) == 4
    assert "398 days overdue" in reports[0]
    assert "purge" in reports[0]


def test_retention_continues_after_a_purge(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))
    now, reports = STARTED_US + 99 * DAY_US, list[str]()
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: now, 30, reports.append)
    maintenance.run_once()
    assert len(reports) == 1
    now += RETENTION_INTERVAL_US - 1
    maintenance.run_once()
    assert len(reports) == 1

    Eraser(store, EmptyJournalReader(), lambda: now).erase(Selection(), "user", "purge")
    now += 1
    maintenance.run_once()

    assert len(reports) == 1


def test_no_rows_are_erased_without_a_retention_period(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))

    Maintenance(store, EmptyJournalReader(), lambda: STARTED_US * 9).run_once()

    assert erased_seqs(store, "w") == []


def test_maintenance_can_be_closed_while_the_store_is_unavailable() -> None:
    class UnavailableStore(MemoryStore):
        """A store that fails when a folder is unregistered."""

        def unregister_folder(self, folder_id: str) -> None:
            raise Unavailable("the database is unreachable")

    maintenance = Maintenance(UnavailableStore(), EmptyJournalReader(), lambda: 5)
    maintenance.run_once()

    maintenance.close()


def test_retention_stops_if_the_newest_due_row_is_more_than_seven_days_overdue() -> None:
    store = MemoryStore()
    store.record("w", sealed("w", drafts(0, 1)))
    due = STARTED_US + 30 * DAY_US

    assert retention_problem(store, due + 7 * DAY_US, 30) is None
    assert "7 days overdue" in (retention_problem(store, due + 7 * DAY_US + 1000, 30) or "")
    assert retention_problem(store, due, 30) is None
    assert retention_problem(store, 5, 30) is None


class RecordingStore(MemoryStore):
    """A store that records calls. Its scrubs succeed only if `is_free` is true."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.selections: list[Selection] = []
        self.is_free = True

    def register_folder(self, folder_id: str) -> None:
        self.calls.append("register")
        super().register_folder(folder_id)

    def scrub(self) -> bool:
        self.calls.append("scrub")
        return self.is_free

    def erase(
        self, request: ErasureRequest, *, number: int, at: int, limit: int, after: str | None = None
    ) -> ErasureStep:
        self.selections.append(request.selection)
        return super().erase(request, number=number, at=at, limit=limit, after=after)


def test_retention_scrubs_the_store_after_a_pass_that_erased_rows_until_it_succeeds() -> None:
    store = RecordingStore()
    store.record("w", sealed("w", drafts(0, 5)))
    now = STARTED_US + 31 * DAY_US
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: now, 30)
    store.is_free = False

    maintenance.run_once()
    assert store.calls == ["register"]
    maintenance.run_once()
    store.is_free = True
    maintenance.run_once()
    maintenance.run_once()
    assert store.calls == ["register", "scrub", "scrub"]

    now += RETENTION_INTERVAL_US  # the next pass erases nothing
    maintenance.run_once()
    maintenance.run_once()
    assert store.calls == ["register", "scrub", "scrub"]


def test_each_retention_pass_examines_the_rows_since_one_day_before_the_previous_pass() -> None:
    store = RecordingStore()
    start = STARTED_US // 1000
    now = STARTED_US + 30 * DAY_US
    maintenance = Maintenance(store, EmptyJournalReader(), lambda: now, 30)

    maintenance.run_once()
    now += RETENTION_INTERVAL_US
    maintenance.run_once()

    assert store.selections == [
        Selection(end=first_id(start)),
        Selection(first=first_id(start - 86_400_000), end=first_id(start + 600_000)),
    ]


def test_a_retention_period_that_begins_before_the_unix_epoch_erases_nothing() -> None:
    store = RecordingStore()

    Maintenance(store, EmptyJournalReader(), lambda: 5, 30).run_once()

    assert store.selections == [Selection(end=first_id(0))]


def test_the_record_of_a_retention_pass_has_no_request_number(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 2)))

    Maintenance(store, EmptyJournalReader(), lambda: STARTED_US + 31 * DAY_US, 30).run_once()

    (recorded,) = [decode_erasure(entry.head) for entry in store.erasures()]
    assert (recorded.request, recorded.rows, recorded.by, recorded.at) == (
        0,
        2,
        "retention",
        STARTED_US + 31 * DAY_US,
    )


def test_closing_maintenance_that_never_ran_does_not_unregister_its_folder() -> None:
    store = MemoryStore()
    store.register_folder("memory")

    Maintenance(store, EmptyJournalReader(), lambda: 5).close()

    assert store.open_erasure(_request(), "other", frozenset()).pending == {"memory": None, "other": frozenset()}


def test_the_result_of_an_erasure_lists_damaged_journals(store: Store, tmp_path: Path) -> None:
    (tmp_path / "w-000000000000.damaged").write_bytes(b"x")
    eraser = Eraser(store, FolderJournalReader(tmp_path), lambda: 5)

    assert eraser.erase(Selection(), "user", "erase").damaged == ["w-000000000000.damaged"]


def test_another_request_does_not_affect_the_state_of_an_erasure(store: Store) -> None:
    store.record("w", sealed("w", drafts(0, 5)))
    store.register_folder("other")
    eraser = Eraser(store, EmptyJournalReader(), lambda: 5)

    first = eraser.erase(Selection(ids=(identifier(0), identifier(1))), "user", "erase")
    second = eraser.erase(Selection(ids=(identifier(2),)), "user", "erase")
    store.complete(first.request, "other")

    assert (first.journals, first.rows, second.rows) == (["folder other"], 2, 1)
    assert (eraser.is_complete(first.request), eraser.is_complete(second.request)) == (True, False)
    assert eraser.result(first.request).journals == []
    assert eraser.result(second.request).journals == ["folder other"]


def test_an_erasure_does_not_wait_for_journals_that_begin_later(store: Store, tmp_path: Path) -> None:
    journal, journals = FileJournal(tmp_path, lambda: "w"), FolderJournalReader(tmp_path)
    journal.append(drafts(0, 1))
    eraser = Eraser(store, journals, lambda: 5)
    request = eraser.erase(Selection(), "user", "erase").request

    journal.roll()
    journal.append(drafts(1, 2))

    assert journals.open_journals() == {"w-000000000000.journal", "w-000000000001.journal"}
    assert eraser.result(request).journals == ["w-000000000000.journal"]
    journal.close()
