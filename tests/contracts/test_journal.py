"""What every journal and spool keep: `Journal` and `Spool`; then what a file can suffer and a memory cannot."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rowcast.adapters.files import journal as journal_module
from rowcast.adapters.files.journal import FileJournal, FolderSpool, indexer_lock
from rowcast.adapters.memory import MemoryJournal, MemoryStore, NoSpool
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import HistoryError, Unavailable
from rowcast.history import chain
from rowcast.history.chain import Draft, Sealed, decode_head
from rowcast.history.ports import Journal, Spool
from rowcast.history.service import History
from support.entries import draft, drafts, identifier, sealed
from support.waiting import eventually


def writers(first: str = "w") -> Callable[[], str]:
    """Names for the writers of one journal, in order: the first, then `w2`, `w3` after failures."""
    names = itertools.chain([first], (f"{first}{number}" for number in itertools.count(2)))
    return lambda: next(names)


class Kept(NamedTuple):
    """A journal with the spool and the store that belong to it."""

    journal: Journal
    spool: Spool
    store: MemoryStore

    def chain(self) -> list[Sealed]:
        """Everything kept of the writer, wherever it lies."""
        stored = list(self.store.chain(self.journal.writer))
        return stored + list(self.spool.after(self.journal.writer, stored[-1].seq if stored else -1))


@pytest.fixture(params=["memory", "file", "file, disk"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    store = MemoryStore()
    if request.param == "memory":
        yield Kept(MemoryJournal(store, "w"), NoSpool(), store)
        return
    journal = FileJournal(tmp_path / "journal", writers(), "disk" if "disk" in request.param else "process")
    yield Kept(journal, FolderSpool(tmp_path / "journal"), store)
    journal.close()


def test_what_is_appended_is_one_chain(kept: Kept) -> None:
    kept.journal.append(drafts(0, 3))
    kept.journal.append(drafts(3, 4))
    kept.journal.append(drafts(4, 30))

    assert kept.chain() == sealed("w", drafts(0, 30))
    assert list(chain.verify("w", kept.chain())) == []


def test_where_every_writers_journals_end_is_known_whatever_is_stored(tmp_path: Path) -> None:
    spool, store = FolderSpool(tmp_path / "journal"), MemoryStore()
    first = FileJournal(tmp_path / "journal", writers("a"))
    second = FileJournal(tmp_path / "journal", writers("b"))
    assert spool.ends() == {"a": -1, "b": -1}

    first.append(drafts(0, 5))
    spool.drain(store)
    spool.ask_to_roll()
    first.roll()
    assert spool.ends() == {"a": 4, "b": -1}  # the new segment is empty
    first.append(drafts(5, 6))
    second.append(drafts(0, 2))
    first.close()

    assert spool.ends() == {"a": 5, "b": 1}
    assert History(store, spool).catch_up(0.0) == 3
    spool.drain(store)
    assert History(store, spool).catch_up(60.0) == 0
    assert NoSpool().ends() == {}
    second.close()


def test_an_entry_is_found_at_once(kept: Kept) -> None:
    kept.journal.append(drafts(0, 5))

    found = History(kept.store, kept.spool).get(identifier(3))

    assert found is not None
    assert (found.id, found.request_id, found.writer, found.seq) == (identifier(3), "r3", "w", 3)
    assert bytes(found.row) == b'{"x":3}'  # type: ignore[arg-type]
    assert History(kept.store, kept.spool).get(identifier(77)) is None


def test_draining_moves_everything_once(kept: Kept) -> None:
    kept.journal.append(drafts(0, 5))
    kept.spool.drain(kept.store)
    kept.spool.drain(kept.store)
    kept.journal.append(drafts(5, 9))
    kept.spool.drain(kept.store)

    assert list(kept.store.chain("w")) == sealed("w", drafts(0, 9))
    assert kept.spool.drain(kept.store) == 0


def test_entries_are_read_in_order_wherever_they_lie(kept: Kept) -> None:
    kept.journal.append(drafts(0, 5))
    kept.spool.drain(kept.store)
    kept.journal.append(drafts(5, 9))

    entries = [entry for _, entry in History(kept.store, kept.spool).entries()]

    assert entries == sealed("w", drafts(0, 9))
    assert History(kept.store, kept.spool).verify().entries == 9


def test_what_was_kept_stays_after_closing(kept: Kept) -> None:
    kept.journal.append(drafts(0, 3))
    kept.journal.close()
    kept.spool.drain(kept.store)

    assert list(kept.store.chain("w")) == sealed("w", drafts(0, 3))
    assert kept.spool.backlog() == 0
    assert kept.spool.writers() == []


# The file's own troubles.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def written(folder: Path, *ticks: list[Draft], writer: str = "w") -> Path:
    """A closed journal with these ticks; its only segment."""
    journal = FileJournal(folder, lambda: writer)
    for tick in ticks:
        journal.append(tick)
    journal.close()
    (segment,) = folder.glob(f"{writer}-*.journal")
    return segment


def end_of(segment: Path) -> int:
    """Where the last entry ends: behind it are zeros."""
    return len(segment.read_bytes().rstrip(b"\0"))


def test_a_tick_torn_at_any_byte_is_ignored_and_what_came_before_survives(folder: Path) -> None:
    segment = written(folder, drafts(0, 2))
    start = end_of(segment)
    segment.unlink()
    segment = written(folder, drafts(0, 2), drafts(2, 4))
    end = end_of(segment)
    whole = segment.read_bytes()[: end + 100]  # 16 MiB of zeros prove no more than 100
    everything = sealed("w", drafts(0, 4))

    for cut in range(start, end):
        for torn in (whole[:cut] + bytes(len(whole) - cut), whole[:cut]):
            segment.write_bytes(torn)
            found = list(FolderSpool(folder).after("w", -1))

            assert found == everything[: len(found)], f"cut at {cut}"
            assert 2 <= len(found) < 4, f"cut at {cut}"


def test_a_torn_tail_is_no_hindrance_to_the_indexer(folder: Path) -> None:
    segment = written(folder, drafts(0, 2), drafts(2, 3))
    with segment.open("r+b") as file:
        file.truncate(end_of(segment) - 10)
    store = MemoryStore()

    assert FolderSpool(folder).drain(store) == 2

    assert list(store.chain("w")) == sealed("w", drafts(0, 2))
    assert list(folder.glob("*.journal")) == []


def test_damage_before_the_tail_is_reported_wherever_it_is(folder: Path) -> None:
    segment = written(folder, drafts(0, 2), drafts(2, 4))
    whole = segment.read_bytes()[: end_of(segment) + 100]
    header = whole.index(b"\n") + 1
    one = (end_of(segment) - header) // 4  # all four entries are equally long

    for place in range(header, header + 3 * one):
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(HistoryError, match="damaged at byte"):
            list(FolderSpool(folder).after("w", -1))


def test_damage_breaks_the_verdict_and_names_the_entry(folder: Path) -> None:
    segment = written(folder, drafts(0, 4))
    content = segment.read_bytes().replace(b'{"x":2}', b'{"x":7}')
    segment.write_bytes(content)

    verdict = History(MemoryStore(), FolderSpool(folder)).verify()

    assert [(broken["writer"], broken["seq"]) for broken in verdict.broken] == [("w", 2)]


def test_a_damaged_journal_does_not_hold_up_the_others(folder: Path) -> None:
    damaged = written(folder, drafts(0, 4), writer="a")
    damaged.write_bytes(damaged.read_bytes().replace(b'{"x":2}', b'{"x":7}'))
    written(folder, drafts(10, 14), writer="b")
    store = MemoryStore()
    spool = FolderSpool(folder)

    with pytest.raises(HistoryError, match="damaged"):
        spool.drain(store)

    assert list(store.chain("b")) == sealed("b", drafts(10, 14))
    assert [entry.seq for entry in store.chain("a")] == [0, 1, 3]
    assert not damaged.exists()
    assert damaged.with_suffix(".damaged").exists()
    assert spool.drain(store) == 0


@pytest.mark.parametrize("content", [b"", b"\n", b"something else\n", b'{"format":1}\n', b"\0" * 100])
def test_a_file_that_is_no_journal_is_named(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "w-000000000000.journal").write_bytes(content)

    with pytest.raises(HistoryError, match=r"w-000000000000\.journal"):
        FolderSpool(folder).drain(MemoryStore())


def test_looking_for_a_prediction_passes_by_a_file_that_is_no_journal(folder: Path) -> None:
    folder.mkdir()
    (folder / "a-000000000000.journal").write_bytes(b"")
    written(folder, drafts(0, 2), writer="b")

    found = FolderSpool(folder).find(identifier(1))

    assert found is not None
    assert found.sealed.seq == 1


def test_a_newer_journal_is_refused(folder: Path) -> None:
    segment = written(folder, drafts(0, 1))
    segment.write_bytes(segment.read_bytes().replace(b'"format":1', b'"format":3', 1))

    with pytest.raises(HistoryError, match="format 3"):
        FolderSpool(folder).drain(MemoryStore())


def test_a_journal_that_began_elsewhere_is_refused(folder: Path) -> None:
    segment = written(folder, drafts(0, 1))
    header, _, rest = segment.read_bytes().partition(b"\n")
    segment.write_bytes(header.replace(chain.genesis("w").hex().encode(), b"00" * 32) + b"\n" + rest)

    with pytest.raises(HistoryError, match="does not begin"):
        FolderSpool(folder).drain(MemoryStore())


ROW = b'{"x":"' + b"y" * 100_000 + b'"}'
PER_SEGMENT = journal_module.SEGMENT_BYTES // len(ROW)


def test_a_full_segment_is_followed_by_the_next_and_the_chain_goes_on(folder: Path) -> None:
    journal, spool, store = FileJournal(folder, lambda: "w"), FolderSpool(folder), MemoryStore()
    everything = [draft(number, row=ROW) for number in range(PER_SEGMENT * 2 + 5)]

    for start in range(0, len(everything), 50):
        journal.append(everything[start : start + 50])
    assert len(list(folder.glob("*.journal"))) == 3
    spool.drain(store)

    assert spool.backlog() == 1  # the one that is still written to
    assert list(store.chain("w")) == sealed("w", everything)
    journal.close()
    spool.drain(store)
    assert spool.backlog() == 0


def test_a_tick_larger_than_a_segment_is_kept(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    everything = [draft(number, row=ROW) for number in range(PER_SEGMENT + 20)]

    journal.append(drafts(1000, 1001))
    journal.append(everything)
    journal.append(drafts(2000, 2001))
    journal.close()

    assert len(list(FolderSpool(folder).after("w", -1))) == len(everything) + 2


def test_a_segment_can_never_be_drained_away_under_its_writer(folder: Path) -> None:
    journal, spool, store = FileJournal(folder, lambda: "w"), FolderSpool(folder), MemoryStore()
    for number in range(20):
        journal.append(drafts(number, number + 1))
        spool.drain(store)
        assert spool.backlog() == 1
    journal.close()
    spool.drain(store)

    assert list(store.chain("w")) == sealed("w", drafts(0, 20))


def test_the_indexer_may_die_between_storing_and_deleting(folder: Path, tmp_path: Path) -> None:
    segment = written(folder, drafts(0, 5))
    kept = segment.read_bytes()
    store = SqliteStore(tmp_path / "history.db")
    FolderSpool(folder).drain(store)
    assert not segment.exists()

    segment.write_bytes(kept)  # as if the process had died after the commit
    moved = FolderSpool(folder).drain(store)
    store.close()

    assert moved == 0
    assert not segment.exists()
    assert list(SqliteStore(tmp_path / "history.db").chain("w")) == sealed("w", drafts(0, 5))


def test_the_indexer_may_die_in_the_middle_of_a_segment(folder: Path, tmp_path: Path) -> None:
    segment = written(folder, drafts(0, 8))
    store = SqliteStore(tmp_path / "history.db")
    store.record("w", sealed("w", drafts(0, 3)))

    moved = FolderSpool(folder).drain(store)
    store.close()

    assert moved == 5
    assert not segment.exists()
    assert list(SqliteStore(tmp_path / "history.db").chain("w")) == sealed("w", drafts(0, 8))


class AwayStore(MemoryStore):
    """A store that is away until it is told to be back."""

    away = True

    def record(self, writer: str, entries: object) -> None:
        """Refuse, as a database does that cannot be reached."""
        if self.away:
            raise Unavailable("the database is away")
        super().record(writer, entries)  # type: ignore[arg-type]


def test_journals_wait_while_the_store_is_away(folder: Path) -> None:
    segment = written(folder, drafts(0, 5))
    store, spool = AwayStore(), FolderSpool(folder)

    for _ in range(3):
        with pytest.raises(Unavailable):
            spool.drain(store)
        assert segment.exists()
    store.away = False
    spool.drain(store)

    assert list(store.chain("w")) == sealed("w", drafts(0, 5))
    assert not segment.exists()


def test_only_one_process_is_the_indexer(folder: Path) -> None:
    with indexer_lock(folder) as first, indexer_lock(folder) as second:
        assert (first, second) == (True, False)
    with indexer_lock(folder) as again:
        assert again


def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(Unavailable, match="cannot be written"):
        FileJournal(tmp_path / "file" / "journal", writers())


def test_a_closed_journal_is_unavailable(folder: Path) -> None:
    journal = FileJournal(folder, lambda: "w")
    journal.close()

    with pytest.raises(Unavailable):
        journal.append(drafts(0, 1))


# A disk that is full. `RLIMIT_FSIZE` makes the kernel refuse a write where the limit is, as a full disk would; it is
# set and lifted inside a process of its own.
FULL_DISK = """
import json, resource, sys
from pathlib import Path
from support.entries import draft, drafts
from rowcast.adapters.files.journal import FileJournal, FolderSpool
from rowcast.adapters.memory import MemoryStore
from rowcast.history import chain
from rowcast.history.chain import decode_head
from rowcast.errors import Unavailable

_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
writers = iter(range(100))
journal = FileJournal(Path(sys.argv[1]), lambda: f"w{next(writers)}")
spool, store = FolderSpool(Path(sys.argv[1])), MemoryStore()
answered, said = [], []

def append(numbers, **options):
    found = [draft(number, **options) for number in numbers]
    try:
        journal.append(found)
    except Unavailable as error:
        said.append(error.message)
    else:
        answered.extend(numbers)

append(range(3))
for room in (0, 5, 100, 500, 5000):  # a part of the tick fits, or nothing
    append([10 * room + 100])
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal._size + room, hard))
    append(range(100_000 + room, 100_030 + room))
    append([200_000 + room])         # nor can another segment be made
    spool.drain(store)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    append([10 * room + 101], row=b"z" * 50_000)
    spool.drain(store)
append(range(8, 10))
journal.close()
spool.drain(store)
kept = [decode_head(entry.head).request_id for writer in store.writers() for entry in store.chain(writer)]
print(json.dumps({
    "lost": [number for number in answered if kept.count(f"r{number}") != 1],
    "answered": len(answered),
    "said": said,
    "broken": [found for writer in store.writers() for found in chain.verify(writer, store.chain(writer))],
    "backlog": spool.backlog(),
}))
"""


def test_a_full_disk_refuses_a_tick_and_loses_nothing_that_was_kept(folder: Path) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )

    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert (found["lost"], found["broken"], found["backlog"]) == ([], [], 0)
    assert found["answered"] == 3 + 5 * 2 + 2
    assert len(found["said"]) == 10
    assert all("cannot be written" in message for message in found["said"])


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


BUSY_WRITER = """
import sys
from pathlib import Path
from support.entries import draft
from rowcast.adapters.files.journal import FileJournal
journal = FileJournal(Path(sys.argv[1]), lambda: "w")
print("ready", flush=True)
number = 0
while number < 40_000:
    journal.append([draft(number + place, row=b"y" * (number % 700)) for place in range(7)])
    number += 7
"""


def test_reading_a_journal_while_it_grows_never_finds_damage(folder: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", BUSY_WRITER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    spool, store = FolderSpool(folder), MemoryStore()
    while writer.poll() is None:
        spool.drain(store)
    spool.drain(store)
    writer.stdout.close()

    assert writer.returncode == 0
    assert store.count() >= 40_000
    assert list(chain.verify("w", store.chain("w"))) == []


def test_what_a_killed_writer_had_appended_is_stored(folder: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-c", DYING_WRITER, str(folder)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert writer.stdout is not None
    spool, store = FolderSpool(folder), MemoryStore()
    for line in writer.stdout:
        spool.drain(store)  # reading while it writes: an entry that is half there is neither read nor damage
        if int(line) >= 1000:
            break
    writer.kill()
    last = max([int(line) for line in writer.stdout.read().splitlines() if line], default=1000)
    writer.stdout.close()
    writer.wait(10)
    eventually(lambda: spool.drain(store) == 0 and spool.backlog() == 0)

    entries = list(store.chain("w"))
    assert len(entries) >= last + 1
    assert list(chain.verify("w", entries)) == []
    assert [decode_head(entry.head).request_id for entry in entries] == [f"r{n}" for n in range(len(entries))]


def test_the_head_is_the_last_entry_that_was_kept(kept: Kept) -> None:
    assert kept.journal.head is None

    kept.journal.append(drafts(0, 5))

    assert kept.journal.head == (4, sealed("w", drafts(0, 5))[-1].link)


def test_a_writer_that_is_asked_goes_on_in_a_new_segment_with_the_same_chain(folder: Path) -> None:
    journal, spool, store = FileJournal(folder, lambda: "w"), FolderSpool(folder), MemoryStore()
    journal.roll()  # nobody asked
    journal.append(drafts(0, 3))
    assert list(spool.journals()) == ["w-000000000000.journal"]

    spool.ask_to_roll()
    journal.roll()
    journal.roll()  # once is enough
    spool.drain(store)

    assert spool.journals() == {}
    assert spool.backlog() == 1
    journal.append(drafts(3, 5))
    journal.close()
    spool.drain(store)
    assert list(store.chain("w")) == sealed("w", drafts(0, 5))


def test_a_segment_with_entries_is_not_kept_open_for_long(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(folder, lambda: "w")
    monkeypatch.setattr(journal_module, "ROLL_AFTER_SECONDS", -1.0)
    journal.roll()
    assert len(list(folder.glob("*.journal"))) == 1  # nothing in it

    journal.append(drafts(0, 1))
    journal.roll()

    assert len(list(folder.glob("*.journal"))) == 2
    journal.close()


def test_wherever_one_byte_is_damaged_all_other_entries_are_stored_once(folder: Path) -> None:
    """Also where a frame's own link is damaged: its entry is proven by the one behind it."""
    segment = written(folder, drafts(0, 2), drafts(2, 6))
    whole = segment.read_bytes()[: end_of(segment) + 100]
    header = whole.index(b"\n") + 1
    one = (end_of(segment) - header) // 6
    everything = sealed("w", drafts(0, 6))

    for place in range(header + 2 * one, header + 3 * one):
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        store, spool = MemoryStore(), FolderSpool(folder)
        with pytest.raises(HistoryError, match="damaged at byte") as said:
            spool.drain(store)

        lost = [] if "nothing is lost" in said.value.message else [2]
        assert list(store.chain("w")) == [entry for entry in everything if entry.seq not in lost]
        assert lost == [] or "entry 2 is lost" in said.value.message
        assert bool(lost) == (place < header + 3 * one - 32)
        assert spool.drain(store) == 0  # said once; it does not come again
        assert spool.damaged() == ["w-000000000000.damaged"]
        (folder / "w-000000000000.damaged").unlink()


def test_a_stretch_of_zeros_loses_its_entries_and_no_others(folder: Path) -> None:
    segment = written(folder, drafts(0, 20))
    content = segment.read_bytes()
    header = content.index(b"\n") + 1
    one = (end_of(segment) - header) // 20
    start = header + 5 * one + 20
    segment.write_bytes(content[:start] + bytes(3 * one) + content[start + 3 * one :])
    store = MemoryStore()

    with pytest.raises(HistoryError, match="entries 5 to 8 are lost"):
        FolderSpool(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == [*range(5), *range(9, 20)]
    (broken,) = History(store, FolderSpool(folder)).verify().broken
    assert (broken["seq"], broken["reason"]) == (5, "entry 5 is missing; the next one kept is 9")


def test_damage_with_nothing_provable_behind_it_is_put_aside(folder: Path) -> None:
    segment = written(folder, drafts(0, 4))
    content = segment.read_bytes()
    header = content.index(b"\n") + 1
    one = (end_of(segment) - header) // 4
    segment.write_bytes(content[: header + 2 * one + 5] + b"\xff" * (2 * one - 10))
    store = MemoryStore()

    with pytest.raises(HistoryError, match="what follows is lost"):
        FolderSpool(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == [0, 1]
    assert FolderSpool(folder).damaged() == ["w-000000000000.damaged"]


def test_a_store_that_fails_behind_damage_gets_the_same_entries_again(folder: Path) -> None:
    segment = written(folder, drafts(0, 4))
    segment.write_bytes(segment.read_bytes().replace(b'{"x":1}', b'{"x":7}'))
    store, spool = AwayStore(), FolderSpool(folder)
    store.away = True
    with pytest.raises(Unavailable):
        spool.drain(store)
    store.away = False

    with pytest.raises(HistoryError, match="entry 1 is lost"):
        spool.drain(store)

    assert [entry.seq for entry in store.chain("w")] == [0, 2, 3]
