"""The contract of `Journal` and `JournalReader`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.adapters.memory.journal import EmptyJournalReader, MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history import chain
from rowcast.history.chain import SealedEntry
from rowcast.history.ports import Journal, JournalReader
from rowcast.history.service import History
from support.entries import drafts, identifier, sealed
from support.journals import writer_names


class Home(NamedTuple):
    """A journal with its reader and store."""

    journal: Journal
    journals: JournalReader
    store: MemoryStore

    def chain(self) -> list[SealedEntry]:
        """Return the writer's entries from the store and the journals."""
        stored = list(self.store.chain(self.journal.writer))
        return stored + list(self.journals.chain(self.journal.writer, stored[-1].seq if stored else -1))


@pytest.fixture(params=["memory", "file", "file, disk"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Home]:
    store = MemoryStore()
    if request.param == "memory":
        yield Home(MemoryJournal(store, "w"), EmptyJournalReader(), store)
        return
    durability = "disk" if "disk" in request.param else "process"
    journal = FileJournal(tmp_path / "journal", writer_names(), durability)
    yield Home(journal, FolderJournalReader(tmp_path / "journal"), store)
    journal.close()


def test_appended_entries_form_one_chain(home: Home) -> None:
    home.journal.append(drafts(0, 3))
    home.journal.append(drafts(3, 4))
    home.journal.append(drafts(4, 30))

    assert home.chain() == sealed("w", drafts(0, 30))
    assert list(chain.verify("w", home.chain())) == []


def test_the_head_is_the_most_recently_appended_entry(home: Home) -> None:
    assert home.journal.head is None

    home.journal.append(drafts(0, 5))

    assert home.journal.head == (4, sealed("w", drafts(0, 5))[-1].link)


def test_an_entry_can_be_looked_up_immediately(home: Home) -> None:
    home.journal.append(drafts(0, 5))

    record = History(home.store, home.journals).get(identifier(3))

    assert record is not None
    assert (record.id, record.request_id, record.writer, record.seq) == (identifier(3), "r3", "w", 3)
    assert bytes(record.row) == b'{"x":3}'  # type: ignore[arg-type]
    assert History(home.store, home.journals).get(identifier(77)) is None


def test_draining_moves_every_entry_exactly_once(home: Home) -> None:
    home.journal.append(drafts(0, 5))
    home.journals.drain(home.store)
    home.journals.drain(home.store)
    home.journal.append(drafts(5, 9))
    home.journals.drain(home.store)

    assert list(home.store.chain("w")) == sealed("w", drafts(0, 9))
    assert home.journals.drain(home.store) == 0


def test_entries_are_read_in_order_from_the_store_and_the_journals(home: Home) -> None:
    home.journal.append(drafts(0, 5))
    home.journals.drain(home.store)
    home.journal.append(drafts(5, 9))

    entries = [entry for _, entry in History(home.store, home.journals).entries()]

    assert entries == sealed("w", drafts(0, 9))
    assert History(home.store, home.journals).verify().entries == 9


def test_a_closed_journal_can_be_drained_completely(home: Home) -> None:
    home.journal.append(drafts(0, 3))
    home.journal.close()
    home.journals.drain(home.store)

    assert list(home.store.chain("w")) == sealed("w", drafts(0, 3))
    assert home.journals.backlog() == 0
    assert home.journals.writers() == []
    assert home.journals.last_seqs() == {}
    assert home.journals.open_journals() == frozenset()
    assert home.journals.damaged() == []
    assert home.journals.unreadable() == {}


def test_the_folder_id_does_not_change(home: Home) -> None:
    assert home.journals.folder_id
    assert home.journals.folder_id == home.journals.folder_id
