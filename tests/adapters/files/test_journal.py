"""The journal on disk: segments, full disks and killed writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rowcast.adapters.files import journal as journal_module
from rowcast.adapters.files.journal import Durability, FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import Unavailable
from rowcast.history import chain
from rowcast.history.chain import decode_head
from support import journals
from support.entries import draft, drafts, sealed
from support.journals import writer_names
from support.waiting import eventually

TESTS = str(Path(__file__).parents[2])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_folder_that_cannot_be_created_makes_the_journal_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(Unavailable):
        FileJournal(tmp_path / "file" / "journal", writer_names())


def test_a_closed_journal_is_unavailable(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    journal.close()

    with pytest.raises(Unavailable):
        journal.append(drafts(0, 1))


ROW = b'{"x":"' + b"y" * 100_000 + b'"}'


PER_SEGMENT = journal_module.SEGMENT_BYTES // len(ROW)


def test_the_chain_continues_in_the_next_segment(folder: Path) -> None:
    journal, journals, store = FileJournal(folder, lambda: "w"), FolderJournalReader(folder), MemoryStore()
    everything = [draft(number, row=ROW) for number in range(PER_SEGMENT * 2 + 5)]

    for start in range(0, len(everything), 50):
        journal.append(everything[start : start + 50])
    assert len(list(folder.glob("*.journal"))) == 3
    journals.drain(store)

    assert journals.backlog() == 1  # the active segment
    assert list(store.chain("w")) == sealed("w", everything)
    journal.close()
    journals.drain(store)
    assert journals.backlog() == 0


def test_a_batch_can_be_larger_than_a_segment(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    everything = [draft(number, row=ROW) for number in range(PER_SEGMENT + 20)]

    journal.append(drafts(1000, 1001))
    journal.append(everything)
    journal.append(drafts(2000, 2001))
    journal.close()

    assert len(list(FolderJournalReader(folder).chain("w"))) == len(everything) + 2


# The child process sets `RLIMIT_FSIZE`, so that writes fail as they would on a full disk.
FULL_DISK = """
import json, resource, sys
from pathlib import Path
from support.entries import draft, drafts
from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history import chain
from rowcast.history.chain import decode_head
from rowcast.errors import Unavailable

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
writers = iter(range(100))
journal = FileJournal(Path(sys.argv[1]), lambda: f"w{next(writers)}")
journals, store = FolderJournalReader(Path(sys.argv[1])), MemoryStore()
answered, errors = [], []

def append(numbers, **options):
    try:
        journal.append([draft(number, **options) for number in numbers])
    except Unavailable as error:
        errors.append(error.slug)
    else:
        answered.extend(numbers)

append(range(3))
for room in (0, 5, 100, 500, 5000):  # only part of the batch fits, or none
    append([10 * room + 100])
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal._size + room, hard))
    append(range(100_000 + room, 100_030 + room))
    append([200_000 + room])         # a new segment cannot be created either
    journals.drain(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    append([10 * room + 101], row=b"z" * 50_000)
    journals.drain(store)
append(range(8, 10))
journal.close()
journals.drain(store)
recorded = [decode_head(entry.head).request_id for writer in store.writers() for entry in store.chain(writer)]
print(json.dumps({
    "lost": [number for number in answered if recorded.count(f"r{number}") != 1],
    "answered": len(answered),
    "errors": errors,
    "broken": [problem for writer in store.writers() for problem in chain.verify(writer, store.chain(writer))],
    "backlog": journals.backlog(),
}))
"""


def test_no_recorded_entry_is_lost_when_a_batch_fails_because_the_disk_is_full(folder: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)],
        env={**os.environ, "PYTHONPATH": TESTS},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    assert (result["lost"], result["broken"], result["backlog"]) == ([], [], 0)
    assert result["answered"] == 3 + 5 * 2 + 2
    assert result["errors"] == ["unavailable"] * 10


DYING_WRITER = """
import sys
from pathlib import Path
from support.entries import drafts
from rowcast.adapters.files.journal import FileJournal
journal = FileJournal(Path(sys.argv[1]), lambda: "w")
for number in range(1_000_000):
    journal.append(drafts(number, number + 1))
    print(number, flush=True)
"""


def test_the_entries_of_a_killed_writer_are_stored(folder: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", DYING_WRITER, str(folder)],
        env={**os.environ, "PYTHONPATH": TESTS},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    journals, store = FolderJournalReader(folder), MemoryStore()
    for line in writer.stdout:
        journals.drain(store)  # a partially written entry is neither read nor reported as damaged
        if int(line) >= 1000:
            break
    writer.kill()
    last = max([int(line) for line in writer.stdout.read().splitlines() if line], default=1000)
    writer.stdout.close()
    writer.wait(10)
    eventually(lambda: journals.drain(store) == 0 and journals.backlog() == 0)

    entries = list(store.chain("w"))
    assert len(entries) >= last + 1
    assert list(chain.verify("w", entries)) == []
    assert [decode_head(entry.head).request_id for entry in entries] == [f"r{n}" for n in range(len(entries))]


def test_the_chain_continues_in_a_new_segment_after_the_journal_is_rolled(folder: Path) -> None:
    journal, journals, store = FileJournal(folder, lambda: "w"), FolderJournalReader(folder), MemoryStore()
    journal.roll()  # has no effect, because no roll was requested
    journal.append(drafts(0, 3))
    assert list(journals.open_journals()) == ["w-000000000000.journal"]

    journals.request_roll()
    journal.roll()
    journal.roll()  # has no effect, because one request closes one segment
    journals.drain(store)

    assert journals.open_journals() == frozenset()
    assert journals.backlog() == 1
    journal.append(drafts(3, 5))
    journal.close()
    journals.drain(store)
    assert list(store.chain("w")) == sealed("w", drafts(0, 5))


def test_an_old_segment_with_entries_is_closed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(folder, lambda: "w")
    monkeypatch.setattr(journal_module, "ROLL_AFTER_SECONDS", -1.0)
    journal.roll()
    assert len(list(folder.glob("*.journal"))) == 1  # a segment without entries stays open

    journal.append(drafts(0, 1))
    journal.roll()

    assert len(list(folder.glob("*.journal"))) == 2
    journal.close()


@pytest.mark.parametrize("durability", ["process", "disk", "store"])
def test_each_batch_is_flushed_after_it_is_written_if_durability_is_set_to_disk(
    folder: Path, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = FileJournal(folder, writer_names(), durability)
    calls = journals.file_calls(monkeypatch)

    journal.append(drafts(0, 3))
    journal.append(drafts(3, 4))

    assert [name for name, _ in calls] == (["pwrite", "fdatasync"] * 2 if durability == "disk" else ["pwrite"] * 2)
    assert len({file for _, file in calls}) == 1
