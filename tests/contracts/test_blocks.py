"""Blocks in journals: opened they are the entries that any other door would have written; what a file can suffer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.journal import EmptyJournalReader, MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.errors import HistoryError, Unavailable
from rowcast.history import blocks, chain
from rowcast.history.blocks import Block, BlockColumn
from rowcast.history.chain import SealedEntry, decode_head, row_hash
from rowcast.history.ports import JournalReader
from rowcast.history.service import History
from rowcast.schema.prediction import Decision
from support.entries import drafts

ROWS = 20
DECISION = Decision(task="binary", classes=("no", "yes"), positive=1, threshold=0.5)


def block(number: int = 0) -> Block:
    """Twenty predictions of one request."""
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
        "",
        "loans",
        3,
        DECISION,
        ROWS,
        (BlockColumn("x", "FP64", numbers.nbytes), BlockColumn("t", "BYTES", len(texts))),
        numbers.tobytes() + texts,
        np.stack([1 - scores, scores], axis=1).astype("<f4").tobytes(),
        bytes([number]) * blocks.SEED_BYTES,
    )


def sealed(writer: str, *found: Block) -> list[SealedEntry]:
    """A writer's whole chain."""
    linking = chain.Chain(writer)
    made = []
    for one in (draft for each in found for draft in blocks.entries(each)):
        seq, hashed = linking.seq, row_hash(one.salt, one.row)
        made.append(SealedEntry(seq, one.head, one.salt, one.row, hashed, linking.extend(one.head, one.salt, one.row)))
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[FileJournal]:
    names = iter(["w", "b", "c", "d", "e"])
    made = FileJournal(folder, lambda: next(names))
    yield made
    made.close()


def test_the_entries_of_a_block_say_what_was_received_and_answered() -> None:
    found = list(blocks.entries(block()))

    rows = [json.loads(draft.row) for draft in found]
    entries = [decode_head(draft.head) for draft in found]
    replies = [json.loads(entry.reply) for entry in entries]
    assert rows[3] == {"x": None, "t": "t3"}
    assert rows[7] == {"x": 7.0, "t": "t2"}
    assert {(one.source, one.request_id, one.key_id, one.tenant) for one in entries} == {("v2", "r0", "key", "tenant")}
    assert [reply["prediction"] for reply in replies] == ["no"] * 10 + ["yes"] * 10
    assert replies[19]["probabilities"] == {"no": 0.0, "yes": 1.0}
    assert [reply["id"] for reply in replies] == blocks.ids(block())
    assert len({draft.salt for draft in found}) == len({reply["id"] for reply in replies}) == ROWS
    assert all(blocks.contains(block(), reply["id"]) for reply in replies)
    assert not blocks.contains(block(1), replies[0]["id"])


def test_a_memory_keeps_blocks_in_its_own_chain() -> None:
    store = MemoryStore()
    journal = MemoryJournal(store, "w")
    journal.append_block(block())

    assert list(store.chain("w")) == sealed("w", block())


def test_drained_blocks_are_one_chain_of_their_own_writer(journal: FileJournal, folder: Path) -> None:
    store, journals = MemoryStore(), FolderJournalReader(folder)
    journal.append(drafts(0, 2))
    journal.append_block(block(0))

    first = journals.drain(store)
    journal.append_block(block(1))
    second = journals.drain(store)

    assert (first, second) == (2 + ROWS, ROWS)
    assert list(store.chain("b")) == sealed("b", block(0), block(1))
    assert list(chain.verify("b", store.chain("b"))) == []
    assert len(list(store.chain("w"))) == 2


def test_whoever_opens_a_block_again_finds_the_same_entries(journal: FileJournal, folder: Path) -> None:
    store = MemoryStore()
    journal.append_block(block(0))
    FolderJournalReader(folder).drain(store)
    journal.append_block(block(1))

    moved = FolderJournalReader(folder).drain(store)  # an indexer that was started anew

    assert moved == ROWS
    assert list(store.chain("b")) == sealed("b", block(0), block(1))


def test_a_prediction_of_a_block_is_found_at_once(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journal.append_block(block(1))
    wanted = blocks.ids(block(1))[7]

    found = History(MemoryStore(), FolderJournalReader(folder)).get(wanted)

    assert found is not None
    assert (found.id, found.writer, found.seq) == (wanted, "b", ROWS + 7)
    assert History(MemoryStore(), FolderJournalReader(folder)).get(wanted[:-1] + "x") is None


def test_no_block_is_opened_for_an_id_of_its_moment_that_is_not_its_own(
    journal: FileJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append_block(block(0))
    wanted = blocks.ids(block(0))[7]
    monkeypatch.setattr(blocks, "entries", pytest.fail)  # of a full segment that takes seconds

    assert FolderJournalReader(folder).find(wanted[:-12] + "0" * 12) is None
    assert FolderJournalReader(folder).last_seqs()["b"] == ROWS - 1


def test_what_lies_in_journals_follows_what_is_stored(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journals: JournalReader = FolderJournalReader(folder)

    assert [entry.seq for entry in journals.chain("b", 4)] == list(range(5, ROWS))
    assert "b" in journals.writers()
    assert journals.last_seqs()["b"] == ROWS - 1
    assert list(EmptyJournalReader().chain("b")) == []


def test_a_block_that_a_crash_cut_was_never_answered(journal: FileJournal, folder: Path) -> None:
    journal.append_block(block(0))
    journal.append_block(block(1))
    journal.close()
    (path,) = folder.glob("b-*.journal")
    content = path.read_bytes()
    end = len(content.rstrip(b"\0"))
    path.write_bytes(content[: end - 200] + b"\0" * (len(content) - end + 200))
    store = MemoryStore()

    FolderJournalReader(folder).drain(store)

    assert list(store.chain("b")) == sealed("b", block(0))
    assert not path.exists()


def test_a_damaged_block_is_reported_and_put_aside(journal: FileJournal, folder: Path) -> None:
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

    assert list(store.chain("b")) == sealed("b", block(0))
    assert path.with_suffix(".damaged").exists()
    verdict = History(store, journals).verify()
    assert [(one["writer"], one["seq"]) for one in verdict.broken] == [("b", ROWS)]
    path.with_suffix(".damaged").unlink()
    assert History(store, FolderJournalReader(folder)).verify().broken == []


def test_a_journal_damaged_where_nothing_is_lost_breaks_no_chain(journal: FileJournal, folder: Path) -> None:
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


def test_a_full_segment_is_followed_by_one_of_another_writer(
    journal: FileJournal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowcast.adapters.files.journal.SEGMENT_BYTES", 2000)
    for number in range(3):
        journal.append_block(block(number))
    store = MemoryStore()

    FolderJournalReader(folder).drain(store)

    assert [list(store.chain(writer)) for writer in "bc"] == [sealed("b", block(0), block(1)), sealed("c", block(2))]
    assert not list(folder.glob("b-*"))


def test_a_roll_ends_a_segment_of_blocks_and_a_closed_journal_takes_none(journal: FileJournal, folder: Path) -> None:
    store, journals = MemoryStore(), FolderJournalReader(folder)
    journal.append_block(block(0))
    journals.request_roll()
    journal.roll()
    journals.drain(store)
    journal.append_block(block(1))
    journals.drain(store)
    journal.close()

    assert not list(folder.glob("b-*"))
    assert list(store.chain("c")) == sealed("c", block(1))
    with pytest.raises(Unavailable):
        journal.append_block(block(2))


def test_blocks_may_get_more_fields() -> None:
    encoded = msgspec.msgpack.encode([*msgspec.msgpack.decode(blocks.encode(block())), "more"])

    assert blocks.decode(encoded) == block()
