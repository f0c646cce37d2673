"""Segments: torn writes, damage, and the recovery of undamaged entries."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.files.segment import Segment, open_segment
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import HistoryError
from rowcast.history import chain
from rowcast.history.chain import Draft
from rowcast.history.service import History
from support.entries import draft, drafts, identifier, sealed
from support.journals import end_of_entries, write_segment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_all_earlier_entries_survive_a_write_that_is_torn_at_any_byte(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 2))
    start = end_of_entries(segment)
    segment.unlink()
    segment = write_segment(folder, drafts(0, 2), drafts(2, 4))
    end = end_of_entries(segment)
    whole = segment.read_bytes()[: end + 100]  # 100 zero bytes stand in for 16 MiB of padding
    everything = sealed("w", drafts(0, 4))

    for cut in range(start, end):
        for torn in (whole[:cut] + bytes(len(whole) - cut), whole[:cut]):
            segment.write_bytes(torn)
            entries = list(FolderJournalReader(folder).chain("w"))

            assert entries == everything[: len(entries)], f"cut at {cut}"
            assert 2 <= len(entries) < 4, f"cut at {cut}"


def test_a_torn_last_entry_does_not_stop_the_indexer(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 2), drafts(2, 3))
    with segment.open("r+b") as file:
        file.seek(end_of_entries(segment) - 10)
        file.write(bytes(10))  # the rest of the file contains zeros anyway
    store = MemoryStore()

    assert FolderJournalReader(folder).drain(store) == 2

    assert list(store.chain("w")) == sealed("w", drafts(0, 2))
    assert list(folder.glob("*.journal")) == []


def test_damage_to_any_byte_before_the_last_entry_is_reported(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 2), drafts(2, 4))
    whole = segment.read_bytes()[: end_of_entries(segment) + 100]
    header = whole.index(b"\n") + 1
    size = (end_of_entries(segment) - header) // 4  # all four entries have the same length

    for place in range(header, header + 3 * size):
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(HistoryError):
            list(FolderJournalReader(folder).chain("w"))


def test_verification_reports_the_damaged_entry(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 4))
    content = segment.read_bytes().replace(b'{"x":2}', b'{"x":7}')
    segment.write_bytes(content)

    verification = History(MemoryStore(), FolderJournalReader(folder)).verify()

    assert [(broken["writer"], broken["seq"]) for broken in verification.broken] == [("w", 2)]


def test_a_damaged_journal_does_not_delay_other_journals(folder: Path) -> None:
    damaged = write_segment(folder, drafts(0, 4), writer="a")
    damaged.write_bytes(damaged.read_bytes().replace(b'{"x":2}', b'{"x":7}'))
    write_segment(folder, drafts(10, 14), writer="b")
    store = MemoryStore()
    journals = FolderJournalReader(folder)

    with pytest.raises(HistoryError):
        journals.drain(store)

    assert list(store.chain("b")) == sealed("b", drafts(10, 14))
    assert [entry.seq for entry in store.chain("a")] == [0, 1, 3]
    assert not damaged.exists()
    assert damaged.with_suffix(".damaged").exists()
    assert journals.drain(store) == 0


@pytest.mark.parametrize("content", [b"", b"\n", b"something else\n", b'{"format":1}\n', b"\0" * 100])
def test_the_error_for_an_invalid_journal_names_the_file(folder: Path, content: bytes) -> None:
    folder.mkdir()
    (folder / "w-000000000000.journal").write_bytes(content)

    with pytest.raises(HistoryError) as refused:
        FolderJournalReader(folder).drain(MemoryStore())
    assert "w-000000000000.journal" in refused.value.message


def test_a_journal_in_a_newer_format_is_rejected(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 1))
    segment.write_bytes(segment.read_bytes().replace(b'"format":1', b'"format":3', 1))

    with pytest.raises(HistoryError):
        FolderJournalReader(folder).drain(MemoryStore())


def test_the_first_segment_must_start_with_the_genesis_link_of_its_writer(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 1))
    header, _, rest = segment.read_bytes().partition(b"\n")
    segment.write_bytes(header.replace(chain.genesis("w").hex().encode(), b"00" * 32) + b"\n" + rest)

    with pytest.raises(HistoryError):
        FolderJournalReader(folder).drain(MemoryStore())


def test_at_most_one_entry_is_lost_if_a_byte_is_damaged(folder: Path) -> None:
    """If only an entry's link is damaged, no entry is lost, because the next entry's link still verifies the entry."""
    segment = write_segment(folder, drafts(0, 2), drafts(2, 6))
    whole = segment.read_bytes()[: end_of_entries(segment) + 100]
    header = whole.index(b"\n") + 1
    size = (end_of_entries(segment) - header) // 6
    everything = sealed("w", drafts(0, 6))

    for place in range(header + 2 * size, header + 3 * size):
        segment.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        store, journals = MemoryStore(), FolderJournalReader(folder)
        with pytest.raises(HistoryError) as refused:
            journals.drain(store)

        lost = [2] if place < header + 3 * size - 32 else []
        assert list(store.chain("w")) == [entry for entry in everything if entry.seq not in lost]
        assert ("entry 2 is lost" if lost else "no entry is lost") in refused.value.message
        assert journals.drain(store) == 0  # damage is reported only once
        assert journals.damaged() == ["w-000000000000.damaged"]
        (folder / "w-000000000000.damaged").unlink()


def test_only_entries_overwritten_with_zeros_are_lost(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 20))
    content = segment.read_bytes()
    header = content.index(b"\n") + 1
    size = (end_of_entries(segment) - header) // 20
    start = header + 5 * size + 20
    segment.write_bytes(content[:start] + bytes(3 * size) + content[start + 3 * size :])
    store = MemoryStore()

    with pytest.raises(HistoryError) as refused:
        FolderJournalReader(folder).drain(store)
    assert "entries 5 to 8 are lost" in refused.value.message

    assert [entry.seq for entry in store.chain("w")] == [*range(5), *range(9, 20)]
    (broken,) = History(store, FolderJournalReader(folder)).verify().broken
    assert (broken["writer"], broken["seq"]) == ("w", 5)


def test_a_damaged_journal_is_renamed_if_no_entry_after_the_damage_is_verifiable(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 4))
    content = segment.read_bytes()
    header = content.index(b"\n") + 1
    size = (end_of_entries(segment) - header) // 4
    segment.write_bytes(content[: header + 2 * size + 5] + b"\xff" * (2 * size - 10))
    store = MemoryStore()

    with pytest.raises(HistoryError):
        FolderJournalReader(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == [0, 1]
    assert FolderJournalReader(folder).damaged() == ["w-000000000000.damaged"]


@pytest.mark.usefixtures("small_segments")
def test_a_segment_with_a_damaged_header_is_read_completely(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 4))
    whole = segment.read_bytes()[: end_of_entries(segment) + 100]
    for at in range(whole.index(b"\n") + 1):
        store = MemoryStore()
        segment.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])

        with contextlib.suppress(HistoryError):
            FolderJournalReader(folder).drain(store)

        assert list(store.chain("w")) == sealed("w", drafts(0, 4)), at
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize(("known", "stored"), [(True, [0, 1, 2, 3, 4, 5]), (False, [3, 4, 5])])
def test_a_later_segment_with_a_damaged_header_is_verified_with_the_store(
    folder: Path, known: bool, stored: list[int]
) -> None:
    segment = write_segment(folder, drafts(0, 6))
    whole, entries, store = segment.read_bytes(), sealed("w", drafts(0, 6)), MemoryStore()
    at = whole.index(whole[whole.index(b"\n") + 1 :][:2], whole.index(b"\n") + 1)
    frames = whole[at : end_of_entries(segment)]
    size = len(frames) // 6
    segment.unlink()
    (folder / "w-000000000002.journal").write_bytes(b"damaged\n" + frames[2 * size :] + bytes(1000))
    if known:
        store.record("w", entries[:2])

    with pytest.raises(HistoryError, match="header"):
        FolderJournalReader(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == stored


def test_a_file_of_zeros_is_renamed_and_reported_once(folder: Path) -> None:
    folder.mkdir()
    (folder / "w-000000000000.journal").write_bytes(bytes(5000))
    journals = FolderJournalReader(folder)

    with pytest.raises(HistoryError, match="no entry can be read"):
        journals.drain(MemoryStore())

    assert journals.drain(MemoryStore()) == 0
    assert journals.damaged() == ["w-000000000000.damaged"]


def test_a_truncated_segment_is_reported(folder: Path) -> None:
    segment = write_segment(folder, drafts(0, 3))
    with segment.open("r+b") as file:
        file.truncate(end_of_entries(segment) - 10)
    store = MemoryStore()

    with pytest.raises(HistoryError, match="ends in the middle of an entry"):
        FolderJournalReader(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == [0, 1]
    assert FolderJournalReader(folder).damaged() == ["w-000000000000.damaged"]


def frame_size(entry: Draft) -> int:
    return 14 + len(entry.head) + 16 + len(entry.row) + 32


def test_at_most_4096_entries_are_read_at_a_time(folder: Path) -> None:
    segment = open_segment(write_segment(folder, drafts(0, 4100)))

    reads = [segment.read_more() for _ in range(3)]

    assert [len(entries) for entries in reads] == [4096, 4, 0]
    assert [entry for entries in reads for entry in entries] == sealed("w", drafts(0, 4100))


def test_entries_are_read_in_chunks_of_256_kibibytes_and_larger_entries_are_read_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [draft(number, row=b"x" * (300_000 if number in (1, 2) else 10)) for number in range(4)]
    segment = open_segment(write_segment(folder, entries))
    sizes: list[int] = []
    read = os.pread

    def note(descriptor: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", note)

    assert segment.read_more() == sealed("w", entries)
    assert sizes[0] == 256 * 1024


@pytest.mark.parametrize(("distance", "is_noticed"), [(4095, True), (4096, False)])
def test_the_next_4096_bytes_of_a_segment_in_use_are_examined(folder: Path, distance: int, is_noticed: bool) -> None:
    path = write_segment(folder, drafts(0, 1))
    segment, end = open_segment(path), end_of_entries(path)
    with path.open("r+b") as file:
        file.seek(end + 14 + distance)
        file.write(b"x")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)

        assert segment.read_more() == sealed("w", drafts(0, 1))
        if is_noticed:
            with pytest.raises(HistoryError, match=f"damaged at byte {end} \\(entry 1\\)"):
                segment.read_more()
        else:
            assert segment.read_more() == []

    with pytest.raises(HistoryError):  # the writer has released the segment, so all bytes are examined
        segment.read_more()


def test_reading_continues_after_the_entries_that_were_read_before(folder: Path) -> None:
    path = write_segment(folder, drafts(0, 2), drafts(2, 5))
    whole, end = path.read_bytes(), end_of_entries(path)
    half = end - 3 * frame_size(draft(2))
    path.write_bytes(whole[:half] + bytes(200))
    segment = open_segment(path)
    assert segment.read_more() == sealed("w", drafts(0, 2))
    path.write_bytes(whole)

    assert segment.read_more() == sealed("w", drafts(0, 5))[2:]
    segment.rewind()
    assert segment.read_more() == sealed("w", drafts(0, 5))[2:]
    assert segment.read_more() == []
    assert (segment.find(identifier(1)), segment.last()) == (None, 4)


def test_a_recovery_can_be_rewound(folder: Path) -> None:
    path = write_segment(folder, drafts(0, 5))
    path.write_bytes(path.read_bytes().replace(b'{"x":1}', b'{"x":7}'))
    segment = open_segment(path)
    assert isinstance(segment, Segment)
    assert [entry.seq for entry in segment.read_more()] == [0]

    for _ in range(2):
        with pytest.raises(HistoryError):
            segment.read_more()
        assert segment.recover() == ([], range(1, 2))
        segment.rewind()
    with pytest.raises(HistoryError):
        segment.read_more()
    segment.recover()

    assert [entry.seq for entry in segment.read_more()] == [2, 3, 4]


def test_a_damaged_link_can_be_recovered_with_its_entry(folder: Path) -> None:
    path = write_segment(folder, drafts(0, 3))
    everything = sealed("w", drafts(0, 3))
    path.write_bytes(path.read_bytes().replace(everything[1].link, bytes(32)))
    segment = open_segment(path)
    assert isinstance(segment, Segment)
    segment.read_more()
    with pytest.raises(HistoryError):
        segment.read_more()

    assert segment.recover() == ([everything[1]], range(2, 2))
    assert segment.read_more() == [everything[2]]


def test_a_frame_inside_a_row_is_not_mistaken_for_an_entry(folder: Path) -> None:
    fake = b"RJ" + bytes(40) + b"RJRJ"
    entries = [draft(number, row=fake * 3) for number in range(4)]
    path = write_segment(folder, entries)
    content = path.read_bytes()
    at = content.index(entries[1].head)
    path.write_bytes(content[:at] + b"?" + content[at + 1 :])
    store = MemoryStore()

    with pytest.raises(HistoryError, match="entry 1 is lost"):
        FolderJournalReader(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == [0, 2, 3]


@pytest.mark.parametrize(("stored", "lost"), [(1, [1, 2]), (2, []), (3, [])])
def test_only_the_preceding_entry_in_the_store_verifies_the_first_entry_of_a_damaged_segment(
    folder: Path, stored: int, lost: list[int]
) -> None:
    path = write_segment(folder, drafts(0, 6))
    content, size = path.read_bytes()[: end_of_entries(path)], frame_size(draft(0))
    path.unlink()
    header = b"" if stored == 3 else b"RJ damaged\n"
    (folder / "w-000000000002.journal").write_bytes(header + content[-4 * size :] + bytes(100))
    store = MemoryStore()
    store.record("w", sealed("w", drafts(0, 6))[:stored])

    with pytest.raises(HistoryError):
        FolderJournalReader(folder).drain(store)

    assert [entry.seq for entry in store.chain("w")] == [seq for seq in range(6) if seq not in lost]


@pytest.mark.parametrize("name", ["w-x.journal", "w-.journal"])
def test_a_file_without_a_number_in_its_name_is_renamed(folder: Path, name: str) -> None:
    write_segment(folder, drafts(0, 2)).rename(folder / name)

    with pytest.raises(HistoryError, match="no entry can be read"):
        FolderJournalReader(folder).drain(MemoryStore())


def test_the_format_of_a_newer_segment_is_reported(folder: Path) -> None:
    path = write_segment(folder, drafts(0, 1))
    path.write_bytes(path.read_bytes().replace(b'"format":1', b'"format":3', 1))

    with pytest.raises(HistoryError, match="journal format 3; this release supports formats 1 and 2"):
        FolderJournalReader(folder).drain(MemoryStore())
    assert path.exists()
