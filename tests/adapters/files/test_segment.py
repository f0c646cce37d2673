"""Segments: torn writes, damage, and the recovery of undamaged entries."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import HistoryError
from rowcast.history import chain
from rowcast.history.service import History
from support.entries import drafts, sealed
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
    """No entry is lost if a link is damaged, because the link of the next entry still verifies the damaged entry."""
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


def test_a_file_of_zeros_is_put_aside_and_reported_once(folder: Path) -> None:
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
