"""Blocks in journals: how they expand into ordinary entries, and how crashes and damage are handled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rowcast.adapters.files import block_segment
from rowcast.adapters.files.journal import Durability, FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.files.segment import open_segment
from rowcast.adapters.memory.journal import EmptyJournalReader, MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import HistoryError, Unavailable
from rowcast.history import blocks, chain
from rowcast.history.blocks import Block, BlockColumn, BlockWarning
from rowcast.history.chain import Entry, SealedEntry, decode_head
from rowcast.history.ports import JournalReader
from rowcast.history.records import decode_reply
from rowcast.history.service import History
from rowcast.schema.prediction import Decision
from support import journals
from support.entries import drafts, sealed

ROWS = 20
DECISION = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)


def block(number: int = 0) -> Block:
    """Return a block with 20 predictions from one request."""
    texts = b"".join(b"\x02\x00\x00\x00" + f"t{row % 5}".encode() for row in range(ROWS))
    numbers = np.arange(ROWS, dtype=np.float64)
    numbers[3] = np.nan
    scores = np.linspace(0, 1, ROWS, dtype=np.float32)
    return Block(
        1_700_000_000_000_000_000 + number * 1_000_000,
        "rb1-00",
        "v2",
        f"r{number}",
        "key",
        "tenant",
        "customer",
        "loans",
        3,
        DECISION,
        ROWS,
        (BlockColumn("x", "FP64", numbers.nbytes), BlockColumn("t", "BYTES", len(texts))),
        numbers.tobytes() + texts,
        np.stack([1 - scores, scores], axis=1).astype("<f4").tobytes(),
        bytes([number]) * blocks.SEED_BYTES,
    )


def seal_blocks(writer: str, *sources: Block) -> list[SealedEntry]:
    """Return the chain that a writer creates from these blocks."""
    return sealed(writer, [draft for source in sources for draft in blocks.entries(source)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[FileJournal]:
    names = iter(["w", "b", "c", "d", "e"])
    journal = FileJournal(folder, lambda: next(names))
    yield journal
    journal.close()


def test_the_entries_of_a_block_contain_its_rows_and_replies() -> None:
    expanded = list(blocks.entries(block()))

    rows = [json.loads(draft.row) for draft in expanded]
    entries = [decode_head(draft.head) for draft in expanded]
    replies = [json.loads(entry.reply) for entry in entries]
    assert rows[3] == {"x": None, "t": "t3"}
    assert rows[7] == {"x": 7.0, "t": "t2"}
    assert {msgspec.structs.replace(entry, reply=b"") for entry in entries} == {
        Entry(1_700_000_000_000_000, "rb1-00", "v2", "r0", b"", "key", "tenant", "customer")
    }
    assert {(reply["model"], reply["version"], reply["cached"], len(reply["warnings"])) for reply in replies} == {
        ("loans", 3, False, 0)
    }
    assert [identifier[:13] for identifier in blocks.ids(block(2))] == ["018bcfe5-6802"] * ROWS
    assert [reply["prediction"] for reply in replies] == ["no"] * 10 + ["yes"] * 10
    assert replies[19]["probabilities"] == {"no": 0.0, "yes": 1.0}
    assert [reply["id"] for reply in replies] == blocks.ids(block())
    assert len({draft.salt for draft in expanded}) == len({reply["id"] for reply in replies}) == ROWS
    assert all(blocks.contains(block(), reply["id"]) for reply in replies)
    assert not blocks.contains(block(1), replies[0]["id"])


def test_the_entries_of_a_block_contain_the_warnings_about_their_rows() -> None:
    bits = [np.packbits([row in rows for row in range(ROWS)]).tobytes() for rows in ((0, 19), (19,))]
    warnings = tuple(BlockWarning(name, "out-of-range", "outside", rows) for name, rows in zip("xy", bits, strict=True))

    expanded = blocks.entries(blocks.decode(blocks.encode(msgspec.structs.replace(block(), warnings=warnings))))
    listed = [json.loads(decode_head(draft.head).reply)["warnings"] for draft in expanded]

    assert [[warning["column"] for warning in each] for each in listed] == [["x"], *[[]] * 18, ["x", "y"]]
    assert listed[0] == [{"column": "x", "code": "out-of-range", "message": "outside"}]


def test_an_in_memory_journal_adds_blocks_to_its_only_chain() -> None:
    store = MemoryStore()
    journal = MemoryJournal(store, "w")
    journal.append_block(block())

    assert list(store.chain("w")) == seal_blocks("w", block())


def test_drained_blocks_form_a_separate_chain_with_its_own_writer(journal: FileJournal, folder: Path) -> None:
    store, journals = MemoryStore(), FolderJournalReader(folder)
    journal.append(drafts(0, 2))
    journal.append_block(block(0))

    first = journals.drain(store)
    journal.append_block(block(1))
    second = journals.drain(store)

    assert (first, second) == (2 + ROWS, ROWS)
    assert list(store.chain("b")) == seal_blocks("b", block(0), block(1))
    assert list(chain.verify("b", store.chain("b"))) == []
    assert len(list(store.chain("w"))) == 2


def test_expanding_a_block_again_produces_the_same_entries(journal: FileJournal, folder: Path) -> None:
    store = MemoryStore()
    journal.append_block(block(0))
    FolderJournalReader(folder).drain(store)
    journal.append_block(block(1))

    count = FolderJournalReader(folder).drain(store)  # a restarted indexer

    assert count == ROWS
    assert list(store.chain("b")) == seal_blocks("b", block(0), block(1))


def test_a_prediction_in_a_block_can_be_looked_up_immediately(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journal.append_block(block(1))
    prediction_id = blocks.ids(block(1))[7]

    record = History(MemoryStore(), FolderJournalReader(folder)).get(prediction_id)

    assert record is not None
    assert (record.id, record.writer, record.seq) == (prediction_id, "b", ROWS + 7)
    assert History(MemoryStore(), FolderJournalReader(folder)).get(prediction_id[:-1] + "x") is None


def test_a_lookup_does_not_expand_a_block_that_does_not_contain_the_id(
    journal: FileJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_block(block(0))
    prediction_id = blocks.ids(block(0))[7]
    monkeypatch.setattr(blocks, "entries", pytest.fail)  # expanding a full segment takes seconds

    assert FolderJournalReader(folder).find(prediction_id[:-12] + "0" * 12) is None
    assert FolderJournalReader(folder).last_seqs()["b"] == ROWS - 1


def test_entries_in_blocks_can_be_read_from_any_position(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journals: JournalReader = FolderJournalReader(folder)

    assert [entry.seq for entry in journals.chain("b", 4)] == list(range(5, ROWS))
    assert "b" in journals.writers()
    assert journals.last_seqs()["b"] == ROWS - 1
    assert list(EmptyJournalReader().chain("b")) == []


def test_a_block_truncated_by_a_crash_is_ignored(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journal.append_block(block(1))
    journal.close()
    (path,) = folder.glob("b-*.journal")
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    path.write_bytes(content[: end - 200] + b"\0" * (len(content) - end + 200))
    store = MemoryStore()

    FolderJournalReader(folder).drain(store)

    assert list(store.chain("b")) == seal_blocks("b", block(0))
    assert not path.exists()


def test_a_damaged_block_is_reported_and_its_file_is_renamed(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journal.append_block(block(1))
    journal.append_block(block(2))
    journal.close()
    (path,) = folder.glob("b-*.journal")
    path.write_bytes(path.read_bytes().replace(b"r1", b"rX"))
    store = MemoryStore()
    journals = FolderJournalReader(folder)

    with pytest.raises(HistoryError):
        journals.drain(store)

    assert list(store.chain("b")) == seal_blocks("b", block(0))
    assert path.with_suffix(".damaged").exists()
    verification = History(store, journals).verify()
    assert [(broken["writer"], broken["seq"]) for broken in verification.broken] == [("b", ROWS)]
    path.with_suffix(".damaged").unlink()
    assert History(store, FolderJournalReader(folder)).verify().broken == []


def test_damage_to_a_block_that_has_already_been_stored_does_not_break_the_chain(
    journal: FileJournal, folder: Path
) -> None:
    journal.append_block(block(0))
    journal.append_block(block(1))
    store = MemoryStore()
    journals = FolderJournalReader(folder)
    journals.drain(store)
    journal.close()
    (path,) = folder.glob("b-*.journal")
    path.write_bytes(path.read_bytes().replace(b"r0", b"rX"))

    with pytest.raises(HistoryError):
        FolderJournalReader(folder).drain(store)

    assert path.with_suffix(".damaged").exists()
    assert History(store, journals).verify().broken == []


def test_a_full_segment_is_followed_by_a_segment_of_a_new_writer(
    journal: FileJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowcast.adapters.files.journal.RESERVED_BYTES", 2000)
    for number in range(3):
        journal.append_block(block(number))
    store = MemoryStore()

    FolderJournalReader(folder).drain(store)

    assert [list(store.chain(writer)) for writer in "bc"] == [
        seal_blocks("b", block(0), block(1)),
        seal_blocks("c", block(2)),
    ]
    assert not list(folder.glob("b-*"))


def test_rolling_a_journal_closes_its_block_segment_and_a_closed_journal_rejects_blocks(
    journal: FileJournal, folder: Path
) -> None:
    store, journals = MemoryStore(), FolderJournalReader(folder)
    journal.append_block(block(0))
    journals.request_roll()
    journal.roll()
    journals.drain(store)
    journal.append_block(block(1))
    journals.drain(store)
    journal.close()

    assert not list(folder.glob("b-*"))
    assert list(store.chain("c")) == seal_blocks("c", block(1))
    with pytest.raises(Unavailable):
        journal.append_block(block(2))


def test_blocks_with_additional_fields_can_be_decoded() -> None:
    encoded = msgspec.msgpack.encode([*msgspec.msgpack.decode(blocks.encode(block())), "more"])

    assert blocks.decode(encoded) == block()


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_each_block_is_flushed_after_it_is_written_if_durability_is_set_to_disk(
    folder: Path, durability: Durability, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = iter(["w", "b"])
    journal = FileJournal(folder, lambda: next(names), durability)
    journal.append_block(block(0))  # creates the segment
    calls = journals.file_calls(monkeypatch)

    journal.append_block(block(1))
    journal.append_block(block(2))

    assert [name for name, _ in calls] == (["pwrite", "fdatasync"] * 2 if durability == "disk" else ["pwrite"] * 2)
    assert len({file for _, file in calls}) == 1


def test_every_entry_in_a_block_has_its_own_salt_and_id() -> None:
    drafts_of_two_blocks = [draft for number in (0, 1) for draft in blocks.entries(block(number))]

    assert len({draft.salt for draft in drafts_of_two_blocks}) == 2 * ROWS
    assert {len(draft.salt) for draft in drafts_of_two_blocks} == {chain.SALT_BYTES}
    assert len({decode_reply(decode_head(draft.head).reply).id for draft in drafts_of_two_blocks}) == 2 * ROWS


def test_a_block_always_expands_into_the_same_entries() -> None:
    """The entries that a journal from an earlier release expands into must have the ids that clients received."""
    assert blocks.SEED_BYTES == 32
    assert (
        seal_blocks("b", block(1))[-1].link.hex() == "6fb02633ffcdc0195009f329a23ea59f0758c2930a31dfeaceb2a5c28eeba740"
    )


def block_ends(folder: Path) -> tuple[Path, list[int]]:
    """Return the block segment and the offset of each of its frames, followed by the end of the last frame."""
    (path,) = folder.glob("b-*.journal")
    content = path.read_bytes()
    offsets = [content.index(b"\n") + 1]
    while content[offsets[-1] : offsets[-1] + 2] == b"RB":
        length = int.from_bytes(content[offsets[-1] + 2 : offsets[-1] + 6], "little")
        offsets.append(offsets[-1] + 10 + length + 32)
    return path, offsets


def test_damage_to_any_byte_of_a_block_is_reported_unless_the_block_is_the_last(
    journal: FileJournal, folder: Path
) -> None:
    for number in range(3):
        journal.append_block(block(number))
    journal.close()
    path, (first, second, third, end) = block_ends(folder)
    content = path.read_bytes()[: end + 100]

    for at in [*range(second, second + 12), third - 40, third - 1]:
        path.write_bytes(content[:at] + bytes([content[at] ^ 0x55]) + content[at + 1 :])
        store, journals = MemoryStore(), FolderJournalReader(folder)
        with pytest.raises(HistoryError, match=f"damaged at byte {second} "):
            journals.drain(store)
        assert store.count() == ROWS
        path.with_suffix(".damaged").unlink()
    for start, size in ((second, 10), (second, 200), (first, second - first)):
        path.write_bytes(content[:start] + bytes(size) + content[start + size :])
        with pytest.raises(HistoryError, match=f"damaged at byte {start} "):
            FolderJournalReader(folder).drain(MemoryStore())
        path.with_suffix(".damaged").unlink()


def test_an_incomplete_last_block_is_not_damage(journal: FileJournal, folder: Path) -> None:
    for number in range(2):
        journal.append_block(block(number))
    journal.close()
    path, (_, second, end) = block_ends(folder)
    content = path.read_bytes()

    for cut in (second + 1, second + 9, second + 10, second + 50, end - 1):
        for torn in (content[:cut] + bytes(200), content[:cut]):
            path.write_bytes(torn)
            store = MemoryStore()
            FolderJournalReader(folder).drain(store)
            assert list(store.chain("b")) == seal_blocks("b", block(0))
            assert not path.exists()


@pytest.mark.parametrize(("distance", "is_noticed"), [(4095, True), (4096, False)])
def test_the_next_4096_bytes_of_a_block_segment_in_use_are_examined(
    journal: FileJournal, folder: Path, distance: int, is_noticed: bool
) -> None:
    journal.append_block(block(0))
    path, (_, end) = block_ends(folder)
    with path.open("r+b") as file:
        file.seek(end + 10 + distance)
        file.write(b"x")
    segment = open_segment(path)

    assert len(segment.read_more()) == ROWS
    if is_noticed:
        with pytest.raises(HistoryError, match="damaged"):
            segment.read_more()
    else:
        assert segment.read_more() == []
    journal.close()
    with pytest.raises(HistoryError, match="damaged"):
        segment.read_more()


def test_whole_blocks_are_read_until_there_are_4096_entries(
    journal: FileJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert block_segment.ENTRIES_PER_READ == 4096
    monkeypatch.setattr(block_segment, "ENTRIES_PER_READ", 2 * ROWS)
    for number in range(3):
        journal.append_block(block(number))
    path, _ = block_ends(folder)
    segment = open_segment(path)

    assert [len(segment.read_more()) for _ in range(3)] == [2 * ROWS, ROWS, 0]


def test_a_block_can_be_read_again(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    path, _ = block_ends(folder)
    segment = open_segment(path)
    first = segment.read_more()
    journal.append_block(block(1))
    assert segment.last() == ROWS - 1  # only the blocks after the position are counted
    second = segment.read_more()

    segment.rewind()

    assert segment.read_more() == second
    assert first + second == seal_blocks("b", block(0), block(1))
    assert (segment.ended(), segment.is_truncated(), segment.recover()) == (False, False, None)
    journal.close()
    assert segment.ended()
