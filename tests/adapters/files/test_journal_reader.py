"""Draining journals while writers are live, after an indexer crashes, and while the store is unavailable."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowcast.adapters.files import journal_reader
from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader, indexer_lock
from rowcast.adapters.files.segment import ENTRIES_PER_READ
from rowcast.adapters.memory.store import MemoryStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import HistoryError, Unavailable
from rowcast.history import chain
from rowcast.history.chain import SealedEntry
from rowcast.history.ports import StoredEntry
from rowcast.history.service import History
from support.entries import drafts, identifier, sealed
from support.journals import end_of_entries, write_segment, writer_names

TESTS = str(Path(__file__).parents[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


class UnavailableStore(MemoryStore):
    """A store that rejects all entries while `unavailable` is true."""

    unavailable = True

    def record(self, writer: str, entries: object) -> None:
        """Record the entries, or raise Unavailable while `unavailable` is true."""
        if self.unavailable:
            raise Unavailable("the database is unreachable")
        super().record(writer, entries)  # type: ignore[arg-type]


def test_the_latest_sequence_numbers_include_entries_that_are_not_yet_stored(tmp_path: Path) -> None:
    journals, store = FolderJournalReader(tmp_path / "journal"), MemoryStore()
    first = FileJournal(tmp_path / "journal", writer_names("a"))
    second = FileJournal(tmp_path / "journal", writer_names("b"))
    assert journals.last_seqs() == {"a": -1, "b": -1}

    first.append(drafts(0, 5))
    journals.drain(store)
    journals.request_roll()
    first.roll()
    assert journals.last_seqs() == {"a": 4, "b": -1}  # the new segment is empty
    first.append(drafts(5, 6))
    second.append(drafts(10, 12))
    first.close()

    assert journals.last_seqs() == {"a": 5, "b": 1}
    assert History(store, journals).catch_up(0.0) == 3
    journals.drain(store)
    assert History(store, journals).catch_up(60.0) == 0
    second.close()


def test_draining_never_deletes_the_segment_of_a_live_writer(folder: Path) -> None:
    journal, journals, store = FileJournal(folder, lambda: "w"), FolderJournalReader(folder), MemoryStore()
    for number in range(20):
        journal.append(drafts(number, number + 1))
        journals.drain(store)
        assert journals.backlog() == 1
    journal.close()
    journals.drain(store)

    assert list(store.chain("w")) == sealed("w", drafts(0, 20))


def test_no_entry_is_stored_twice_if_the_indexer_dies_before_deleting_a_segment(folder: Path, tmp_path: Path) -> None:
    segment = write_segment(folder, drafts(0, 5))
    content = segment.read_bytes()
    store = SqliteStore(tmp_path / "history.db")
    FolderJournalReader(folder).drain(store)
    assert not segment.exists()

    segment.write_bytes(content)  # simulate a crash between the commit and the deletion
    count = FolderJournalReader(folder).drain(store)
    store.close()

    assert count == 0
    assert not segment.exists()
    assert list(SqliteStore(tmp_path / "history.db").chain("w")) == sealed("w", drafts(0, 5))


def test_no_entry_is_stored_twice_if_the_indexer_dies_in_the_middle_of_a_segment(folder: Path, tmp_path: Path) -> None:
    segment = write_segment(folder, drafts(0, 8))
    store = SqliteStore(tmp_path / "history.db")
    store.record("w", sealed("w", drafts(0, 3)))

    count = FolderJournalReader(folder).drain(store)
    store.close()

    assert count == 5
    assert not segment.exists()
    assert list(SqliteStore(tmp_path / "history.db").chain("w")) == sealed("w", drafts(0, 8))


def test_journals_keep_their_entries_while_the_store_is_unavailable(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 5))
    store, journals = UnavailableStore(), FolderJournalReader(folder)

    for _ in range(3):
        with pytest.raises(Unavailable):
            journals.drain(store)
        assert segment.exists()
    store.unavailable = False
    journals.drain(store)

    assert list(store.chain("w")) == sealed("w", drafts(0, 5))
    assert not segment.exists()


def test_a_folder_has_only_one_indexer_at_a_time(folder: Path) -> None:
    with indexer_lock(folder) as first, indexer_lock(folder) as second:
        assert (first, second) == (True, False)
    with indexer_lock(folder) as again:
        assert again


BUSY_WRITER = """
import sys
from pathlib import Path
from support.entries import draft
from rowcast.adapters.files import journal_reader
from rowcast.adapters.files.journal import FileJournal
journal = FileJournal(Path(sys.argv[1]), lambda: "w")
print("ready", flush=True)
number = 0
while number < 40_000:
    journal.append([draft(number + place, row=b"y" * (number % 700)) for place in range(7)])
    number += 7
"""


def test_a_growing_journal_is_never_reported_as_damaged(folder: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", BUSY_WRITER, str(folder)],
        env={**os.environ, "PYTHONPATH": TESTS},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    journals, store = FolderJournalReader(folder), MemoryStore()
    while writer.poll() is None:
        journals.drain(store)
    journals.drain(store)
    writer.stdout.close()

    assert writer.returncode == 0
    assert store.count() >= 40_000
    assert list(chain.verify("w", store.chain("w"))) == []


def test_a_lookup_skips_a_file_that_is_not_a_journal(folder: Path) -> None:
    folder.mkdir()
    (folder / "a-000000000000.journal").write_bytes(b"")
    write_segment(folder, drafts(0, 2), writer="b")

    stored = FolderJournalReader(folder).find(identifier(1))

    assert stored is not None
    assert stored.sealed.seq == 1


def test_intact_entries_in_a_damaged_journal_are_stored_after_the_store_recovers(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 4))
    segment.write_bytes(segment.read_bytes().replace(b'{"x":1}', b'{"x":7}'))
    store, journals = UnavailableStore(), FolderJournalReader(folder)
    with pytest.raises(Unavailable):
        journals.drain(store)
    store.unavailable = False

    with pytest.raises(HistoryError):
        journals.drain(store)

    assert [entry.seq for entry in store.chain("w")] == [0, 2, 3]


def test_concurrent_readers_agree_on_the_folder_id(folder: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda _: FolderJournalReader(folder).folder_id, range(8)))

    assert len(ids) == 1
    assert [path.name for path in folder.iterdir()] == ["folder.id"]


def test_reading_the_folder_id_fails_if_the_folder_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(Unavailable):
        _ = FolderJournalReader(tmp_path / "file" / "journal").folder_id


@pytest.mark.usefixtures("small_segments")
def test_an_entry_is_found_regardless_of_where_the_chunks_of_its_journal_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = write_segment(folder, drafts(0, 3))
    os.truncate(segment, end_of_entries(segment) + 100)
    reader = FolderJournalReader(folder)
    for size in range(37, 120):
        monkeypatch.setattr(journal_reader, "PIECE_BYTES", size)
        assert reader.find(identifier(1)) is not None, size
        assert reader.find(identifier(3)) is None


def test_a_folder_without_journals_is_empty_and_is_not_created(folder: Path) -> None:
    journals = FolderJournalReader(folder)

    journals.request_roll()

    assert (journals.writers(), journals.backlog(), journals.damaged(), journals.find(identifier(1))) == (
        [],
        0,
        [],
        None,
    )
    assert not folder.exists()


def test_the_folder_id_is_a_line_of_32_hexadecimal_digits_in_a_private_folder(folder: Path) -> None:
    folder_id = FolderJournalReader(folder).folder_id

    assert (folder / "folder.id").read_text() == f"{folder_id}\n"
    assert len(folder_id) == 32
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_lock_of_the_indexer_is_a_private_file(folder: Path) -> None:
    with indexer_lock(folder):
        assert (folder / "indexer.lock").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(("age", "is_locked", "is_kept"), [(30, False, True), (60.5, False, False), (99, True, True)])
def test_an_unfinished_segment_is_deleted_one_minute_after_its_writer_died(
    folder: Path, age: float, is_locked: bool, is_kept: bool
) -> None:
    folder.mkdir()
    path = folder / "w-000000000000.starting"
    path.write_bytes(b"x")
    os.utime(path, (time.time() - age,) * 2)
    with path.open("rb") as file:
        if is_locked:
            fcntl.flock(file, fcntl.LOCK_EX)
        FolderJournalReader(folder).drain(MemoryStore())

    assert path.exists() is is_kept


def test_an_entry_is_found_in_the_last_of_several_journals(folder: Path) -> None:
    for number, writer in enumerate("abc"):
        write_segment(folder, drafts(10 * number, 10 * number + 3), writer=writer)
    journals = FolderJournalReader(folder)

    assert [stored.writer for n in (0, 11, 22) if (stored := journals.find(identifier(n)))] == ["a", "b", "c"]


def test_a_segment_that_is_deleted_during_a_read_is_skipped(folder: Path) -> None:
    journal, journals = FileJournal(folder, lambda: "w"), FolderJournalReader(folder)
    for number in range(3):
        journal.append(drafts(number, number + 1))
        journals.request_roll()
        os.utime(folder / "roll", ns=(number + 1, number + 1))
        journal.roll()
    entries = journals.chain("w")

    assert next(entries).seq == 0
    (folder / "w-000000000001.journal").unlink()

    assert [entry.seq for entry in entries] == [2]
    journal.close()


def test_the_first_of_several_damaged_journals_is_reported(folder: Path) -> None:
    for writer in "ab":
        segment = write_segment(folder, drafts(ord(writer) * 10, ord(writer) * 10 + 3), writer=writer)
        segment.write_bytes(segment.read_bytes().replace(b":971}", b":970}").replace(b":981}", b":980}"))

    with pytest.raises(HistoryError) as refused:
        FolderJournalReader(folder).drain(MemoryStore())

    path = folder / "a-000000000000.journal"
    assert refused.value.message.startswith(f"{path} is damaged at byte ")
    assert refused.value.message.endswith("(entry 1): entry 1 is lost; the file was renamed to a-000000000000.damaged")
    assert FolderJournalReader(folder).damaged() == ["a-000000000000.damaged", "b-000000000000.damaged"]


def test_damage_is_no_longer_reported_after_its_segment_is_deleted(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 3))
    content = segment.read_bytes()
    segment.write_bytes(content.replace(b'{"x":1}', b'{"x":7}'))
    journals, store = FolderJournalReader(folder), MemoryStore()
    with pytest.raises(HistoryError):
        journals.drain(store)

    segment.write_bytes(content)

    assert journals.drain(store) == 0
    assert not segment.exists()


def test_the_segment_of_a_live_writer_is_not_renamed(folder: Path) -> None:
    folder.mkdir()
    zeros = folder / "a-000000000000.journal"
    zeros.write_bytes(bytes(100))
    torn = write_segment(folder, drafts(0, 2), writer="b")
    content = torn.read_bytes()
    end = len(content.rstrip(b"\0"))
    torn.write_bytes(content[: end - 5] + b"\xff" * 50 + content[end + 45 :])
    journals, store = FolderJournalReader(folder), MemoryStore()

    with zeros.open("rb") as first, torn.open("rb") as second:
        for file in (first, second):
            fcntl.flock(file, fcntl.LOCK_EX)
        for _ in range(2):
            with pytest.raises(HistoryError):
                journals.drain(store)
        assert sorted(path.name for path in folder.iterdir()) == [zeros.name, torn.name]
        assert [entry.seq for entry in store.chain("b")] == [0]
        zeros.unlink()
        with pytest.raises(HistoryError, match=torn.name):
            journals.drain(store)

    with pytest.raises(HistoryError, match="all later entries are lost"):
        journals.drain(store)
    assert journals.damaged() == ["b-000000000000.damaged"]


def test_the_first_unreadable_entry_of_each_writer_is_reported(folder: Path) -> None:
    folder.mkdir()
    for name in ("a-000000000007.damaged", "a-000000000003.damaged", "b-x.damaged", "c-000000000000.damaged"):
        (folder / name).write_bytes(b"unreadable")
    segment = write_segment(folder, drafts(0, 3), writer="c")
    segment.rename(segment.with_suffix(".damaged"))

    assert FolderJournalReader(folder).unreadable() == {"a": 3, "b": 0, "c": 3}


def test_only_journals_with_entries_are_listed_as_open(folder: Path) -> None:
    first, second = (FileJournal(folder, lambda name=name: name) for name in "ab")  # type: ignore[misc]
    second.append(drafts(0, 1))

    assert FolderJournalReader(folder).open_journals() == {"b-000000000000.journal"}
    first.close()
    second.close()


def test_lookups_skip_a_journal_that_vanishes_after_the_folder_was_listed(folder: Path) -> None:
    write_segment(folder, drafts(0, 3))
    # The folder lists a dangling link, but opening it fails, as if the file had just been deleted.
    for writer in ("a", "w"):
        (folder / f"{writer}-000000000003.journal").symlink_to(folder / "deleted")
    journals = FolderJournalReader(folder)

    assert journals.find(identifier(2)) == StoredEntry("w", sealed("w", drafts(0, 3))[2])
    assert journals.find(identifier(9)) is None
    assert [entry.seq for entry in journals.chain("w")] == [0, 1, 2]
    assert journals.last_seqs() == {}
    assert journals.open_journals() == {"w-000000000000.journal"}


def test_a_chain_ends_if_its_journal_vanishes_while_the_chain_is_being_read(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 2 * ENTRIES_PER_READ))
    entries = FolderJournalReader(folder).chain("w")
    first = next(entries)
    segment.unlink()

    rest = list(entries)

    assert [entry.seq for entry in (first, *rest)] == list(range(ENTRIES_PER_READ))


@pytest.mark.parametrize("ended", [True, False])
def test_a_journal_that_vanishes_during_a_drain_is_reported_once_and_the_others_are_stored(
    folder: Path, ended: bool
) -> None:
    class DeletingStore(MemoryStore):
        """A store that deletes a journal after recording entries for writer `a`, as another program might."""

        def record(self, writer: str, entries: Sequence[SealedEntry]) -> None:
            super().record(writer, entries)
            if writer == "a":
                deleted.unlink()

    first = FileJournal(folder, writer_names("a"))
    first.append(drafts(0, 2))
    second = FileJournal(folder, writer_names("b"))
    second.append(drafts(2, 4))
    if ended:
        first.close()
    (deleted,) = folder.glob("a-*.journal")
    journals, store = FolderJournalReader(folder), DeletingStore()

    with pytest.raises(HistoryError) as caught:
        journals.drain(store)

    assert str(deleted) in caught.value.message
    assert (len(list(store.chain("a"))), len(list(store.chain("b")))) == (2, 2)
    assert journals.drain(store) == 0
    first.close()
    second.close()
