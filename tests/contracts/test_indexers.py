"""Several indexers, each with its own journal folder, write to the same store concurrently."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowcast.adapters.files.journal import FileJournal
from rowcast.adapters.files.journal_reader import FolderJournalReader
from rowcast.history.ports import Store
from rowcast.history.service import History
from support import stores
from support.entries import draft, sealed
from support.waiting import eventually

# Journals grow while their indexers run, so that killing an indexer is likely to interrupt a transaction.
INDEXER = """
import sys
from pathlib import Path
from rowcast.adapters.files.journal_reader import FolderJournalReader, indexer_lock
from rowcast.app.history import store as configured_store
from rowcast.settings import load
folder, store = Path(sys.argv[1]), configured_store(load(store=sys.argv[2]))
with indexer_lock(folder) as acquired, store:
    assert acquired
    journals = FolderJournalReader(folder)
    while not (folder / "stop").exists() or journals.backlog():
        journals.drain(store)
"""
BATCHES, BATCH = 120, 25


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with stores.new_store(request, tmp_path) as opened:
        yield opened


def start_indexer(folder: Path, store: Store) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", INDEXER, str(folder), stores.url(store)])


def test_two_indexers_store_every_entry_exactly_once_even_if_one_indexer_is_killed_repeatedly(
    store: Store, tmp_path: Path
) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    entries = [[draft(home * 100_000 + number) for number in range(BATCHES * BATCH)] for home in range(2)]
    journals = [FileJournal(folder, lambda name=folder.name: name) for folder in folders]  # type: ignore[misc]
    indexers = [start_indexer(folder, store) for folder in folders]
    kills = 0

    for batch in range(BATCHES):
        position = store.position("a")
        for home in range(2):
            journals[home].append(entries[home][batch * BATCH : (batch + 1) * BATCH])
        if batch % 30 == 29:
            eventually(lambda before=position: store.position("a") != before)  # kill the indexer while it is writing
            os.kill(indexers[0].pid, signal.SIGKILL)
            indexers[0].wait()
            kills += 1
            indexers[0] = start_indexer(folders[0], store)
    for journal, folder in zip(journals, folders, strict=True):
        journal.close()
        (folder / "stop").touch()

    assert [indexer.wait(60) for indexer in indexers] == [0, 0]
    assert kills == 4
    assert store.count() == 2 * BATCHES * BATCH
    for name, drafts in zip("ab", entries, strict=True):
        assert list(store.chain(name)) == sealed(name, drafts)
    verification = History(store, FolderJournalReader(folders[0])).verify()
    assert (verification.writers, verification.broken) == (2, [])
