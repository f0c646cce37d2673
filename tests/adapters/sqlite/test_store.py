"""The SQLite store file: concurrent access, damage, and the removal of erased bytes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import msgspec
import pytest

from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import Unavailable
from rowcast.history.chain import Draft, Entry, encode_head
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import ErasureRequest
from rowcast.schema.prediction import Prediction
from support.entries import MIXED, draft, drafts, identifier, sealed


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "history.db")


def erase(store: SqliteStore, selection: Selection) -> None:
    store.erase(ErasureRequest(selection, "user", "erase"), number=0, at=0, limit=1000)


def test_reading_or_checking_a_store_does_not_create_a_file(store: SqliteStore) -> None:
    store.latest(1)
    store.check()

    assert not store.path.exists()


def test_a_database_without_a_schema_is_read_as_an_empty_history(store: SqliteStore) -> None:
    connection = sqlite3.connect(store.path)
    connection.execute("PRAGMA journal_mode = WAL")

    assert store.count() == 0
    assert store.latest(1) == []
    connection.close()


def test_a_reader_sees_only_complete_transactions_during_concurrent_writes(store: SqliteStore) -> None:
    entries = sealed("w", drafts(0, 400))
    reader = SqliteStore(store.path)
    counts: list[int] = []
    finished = threading.Event()

    def read() -> None:
        while not finished.is_set():
            counts.append(reader.count())

    thread = threading.Thread(target=read)
    thread.start()
    for start in range(0, 400, 20):
        store.record("w", entries[start : start + 20])
    finished.set()
    thread.join()

    assert counts == sorted(counts)
    assert all(count % 20 == 0 for count in counts)
    assert reader.count() == 400


def test_a_file_that_is_not_a_database_makes_the_store_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    path.write_bytes(b"not a database, by any means" * 100)

    for operation in (
        lambda: SqliteStore(path).count(),
        lambda: SqliteStore(path).check(),
        lambda: SqliteStore(path).record("w", sealed("w", drafts(0, 1))),
    ):
        with pytest.raises(Unavailable) as refused:
            operation()
        assert "history.db" in refused.value.message


def test_a_folder_that_cannot_be_created_makes_the_store_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(Unavailable):
        SqliteStore(tmp_path / "file" / "history.db").open()


def test_checking_the_store_fails_while_the_database_is_locked(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowcast.adapters.sqlite.store.CHECK_SECONDS", 0.1)
    store.open()
    connection = sqlite3.connect(store.path)
    connection.execute("BEGIN IMMEDIATE")

    with pytest.raises(Unavailable):
        store.check()
    connection.close()
    store.check()
    store.close()


def test_erased_rows_are_removed_from_all_files(store: SqliteStore) -> None:
    """Erase rows of many sizes in random order and in several passes; no erased row may remain in a file."""
    random = Random(7)
    marks = [random.randbytes(12).hex() for _ in range(1500)]
    rows = [b'{"who":"%s","more":"%s"}' % (mark.encode(), b"x" * random.randrange(3000)) for mark in marks]
    entries = sealed("w", [draft(number, row=row) for number, row in enumerate(rows)])
    for start in range(0, 1500, 100):
        store.record("w", entries[start : start + 100])
    order = random.sample(range(1500), 1500)

    for numbers in (order[:200], order[200:600], order[600:1100]):
        erase(store, Selection(ids=tuple(identifier(number) for number in numbers)))
        assert store.scrub()

    on_disk = b"".join(path.read_bytes() for path in store.path.parent.iterdir())
    remaining = {number for number in range(1500) if marks[number].encode() in on_disk}
    assert remaining == set(order[1100:])


def test_scrubbing_does_not_wait_for_a_slow_reader(store: SqliteStore) -> None:
    store.record("w", sealed("w", MIXED))
    reading = SqliteStore(store.path).chain("w")
    next(reading)
    erase(store, Selection())

    assert store.scrub() is False
    list(reading)
    assert store.scrub() is True


def test_the_predicted_value_of_a_regression_model_is_not_stored_as_a_label(store: SqliteStore) -> None:
    reply = msgspec.json.encode(Prediction(identifier(0), "prices", 1, 12.5))
    head = encode_head(Entry(0, "rb1-00", "native", "r", reply))
    store.record("w", sealed("w", [Draft(head, bytes(16), b"{}")]))

    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT label FROM entries").fetchall() == [("",)]
    connection.close()


def test_several_processes_can_create_a_database_concurrently(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from rowcast.adapters.sqlite.store import SqliteStore\n"
        "sys.stdin.readline(); SqliteStore(Path('history.db')).open()"
    )
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", program], cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(6)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        errors = [process.communicate(timeout=60)[1] for process in processes]

        assert errors == [""] * 6


def test_every_commit_is_flushed_to_the_disk(store: SqliteStore) -> None:
    store.record("w", sealed("w", drafts(0, 1)))

    (synchronous,) = store._writer().execute("PRAGMA synchronous").fetchone()

    assert synchronous == 2  # FULL
