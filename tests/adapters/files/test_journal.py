"""The journal on disk: segments, full disks and killed writers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rowcast.adapters.files import journal as journal_module
from rowcast.adapters.files.journal import Durability, FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.files.segment import has_ended
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


PER_SEGMENT = journal_module.RESERVED_BYTES // len(ROW)


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


def test_a_new_segment_reserves_sixteen_mebibytes_that_only_the_owner_can_read(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    (segment,) = folder.iterdir()

    assert segment.name == "w-000000000000.journal"
    status = segment.stat()
    assert (status.st_size, status.st_mode & 0o777) == (16 * 1024 * 1024, 0o600)
    assert status.st_blocks * 512 >= status.st_size
    assert json.loads(segment.read_bytes().partition(b"\n")[0]) == {
        "format": 1,
        "writer": "w",
        "first": 0,
        "previous": chain.genesis("w").hex(),
    }
    journal.close()


def frame_size(entry: chain.Draft) -> int:
    return 14 + len(entry.head) + 16 + len(entry.row) + 32


def test_a_segment_is_filled_to_its_last_byte(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = draft(0)
    header = len(b'{"format":1,"writer":"w","first":0,"previous":"') + 64 + len(b'"}\n')
    monkeypatch.setattr(journal_module, "RESERVED_BYTES", header + 2 * frame_size(entry))
    journal = FileJournal(folder, lambda: "w")

    journal.append([entry])
    journal.append([draft(1)])
    assert len(list(folder.glob("*.journal"))) == 1
    journal.append([draft(2)])

    assert sorted(path.name for path in folder.glob("*.journal")) == [
        "w-000000000000.journal",
        "w-000000000002.journal",
    ]
    assert list(FolderJournalReader(folder).chain("w")) == sealed("w", drafts(0, 3))
    journal.close()


def test_the_segment_of_a_large_batch_has_room_for_the_whole_batch(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    batch = [draft(number, row=ROW) for number in range(PER_SEGMENT + 20)]

    journal.append(batch)

    sizes = {path.name: path.stat().st_size for path in folder.glob("*.journal")}
    assert sizes["w-000000000000.journal"] >= sum(map(frame_size, batch)) > journal_module.RESERVED_BYTES
    journal.close()


def test_a_segment_with_entries_is_closed_after_an_hour(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    journal.append(drafts(0, 1))
    begun = time.monotonic()
    for age, segments in ((3000, 1), (3601, 2), (3000, 2)):
        journal._begun = begun - age
        journal.roll()
        assert len(list(folder.glob("*.journal"))) == segments
    journal.append(drafts(1, 2))
    journal.roll()  # the new segment has just begun

    assert len(list(folder.glob("*.journal"))) == 2
    journal.close()


def test_a_closed_segment_is_unlocked_and_its_file_is_closed(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    descriptor = journal._fd
    assert descriptor is not None
    (segment,) = folder.iterdir()
    assert not has_ended(segment)

    journal.close()
    journal.close()

    assert has_ended(segment)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_failed_write_ends_the_chain_and_reports_the_reason(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(folder, writer_names())
    journal.append(drafts(0, 2))
    write = os.pwrite

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:-1], offset))
        with pytest.raises(Unavailable) as refused:
            journal.append(drafts(2, 3))
    assert "the disk accepted only part of the data" in refused.value.message
    assert str(folder) in refused.value.message
    journal.append(drafts(4, 5))

    assert (journal.writer, journal.head) == ("w2", (0, sealed("w2", drafts(4, 5))[-1].link))
    store = MemoryStore()
    FolderJournalReader(folder).drain(store)
    assert list(store.chain("w")) == sealed("w", drafts(0, 2))
    journal.close()


def test_a_segment_that_cannot_be_created_leaves_no_file_and_no_descriptor(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir()

    def fail(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", fail)

    with pytest.raises(Unavailable) as refused:
        FileJournal(folder, lambda: "w")

    assert "No space left" in refused.value.message
    assert list(folder.iterdir()) == []
    assert [path for path in map(Path.resolve, Path("/proc/self/fd").iterdir()) if folder in path.parents] == []


def test_a_journal_continues_in_its_segment_if_a_new_segment_cannot_be_created(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, journals = FileJournal(folder, lambda: "w"), FolderJournalReader(folder)
    journal.append(drafts(0, 1))
    journals.request_roll()

    def fail(fd: int, offset: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", fail)
        with pytest.raises(Unavailable):
            journal.roll()
    journal.append(drafts(1, 2))

    assert list(journals.chain("w")) == sealed("w", drafts(0, 2))
    assert journals.backlog() == 1
    journal.roll()
    assert journals.backlog() == 2
    journal.close()


def test_a_segment_is_locked_before_it_gets_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    locked: list[bool] = []
    rename = Path.rename

    def note(path: Path, target: Path) -> Path:
        locked.append(not has_ended(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", note)
    FileJournal(folder, lambda: "w").close()

    assert locked == [True]


def test_a_block_segment_is_closed_after_an_hour(folder: Path) -> None:
    blocks = journal_module.BlockJournal(folder, writer_names(), sync=False)
    folder.mkdir()
    blocks.append(b"x")
    begun = time.monotonic()
    for age, open_segments in ((3000, 1), (3601, 0)):
        blocks._begun = begun - age
        blocks.roll()
        assert len([path for path in folder.glob("*.journal") if not has_ended(path)]) == open_segments
    blocks.append(b"y")

    assert sorted(path.name for path in folder.iterdir()) == ["w-000000000000.journal", "w2-000000000000.journal"]
    blocks.release()


def test_a_block_segment_is_filled_to_its_last_byte_or_holds_one_large_block(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = len(b'{"format":2,"writer":"w","first":0,"previous":"') + 64 + len(b'"}\n')
    monkeypatch.setattr(journal_module, "RESERVED_BYTES", header + 2 * (10 + 100 + 32))
    folder.mkdir()
    blocks = journal_module.BlockJournal(folder, writer_names(), sync=False)
    names = ["w-000000000000.journal", "w2-000000000000.journal"]

    blocks.append(bytes(100))
    blocks.append(bytes(100))
    assert sorted(path.name for path in folder.iterdir()) == names[:1]
    blocks.append(bytes(1000))

    assert sorted(path.name for path in folder.iterdir()) == names
    assert (folder / names[1]).stat().st_size > 1000 + 10 + 32
    assert has_ended(folder / names[0])
    blocks.release()


def test_a_block_that_is_written_only_partly_ends_its_segment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(folder, writer_names())
    folder_blocks = journal._blocks
    folder_blocks.append(b"x")
    write = os.pwrite
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:-1], offset))
        with pytest.raises(OSError, match="only part"):
            folder_blocks.append(b"y")

    assert has_ended(folder / "w2-000000000000.journal")
    folder_blocks.append(b"z")
    assert (folder / "w3-000000000000.journal").exists()
    journal.close()
