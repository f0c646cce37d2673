"""The SQLite store file: concurrent access, damage, and the removal of erased bytes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import Unavailable
from rowcast.history import chain
from rowcast.history.chain import Draft, Entry, decode_erasure, encode_head
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


def test_only_the_owner_can_read_a_new_file_and_its_folder(tmp_path: Path) -> None:
    with SqliteStore(tmp_path / "a" / "history.db") as store:
        store.record("w", sealed("w", drafts(0, 1)))
        modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a", *(tmp_path / "a").iterdir())}

    assert modes == {"a": 0o700, "history.db": 0o600, "history.db-wal": 0o600, "history.db-shm": 0o600}


def test_the_mode_of_an_existing_file_is_not_changed(store: SqliteStore) -> None:
    store.path.touch()
    store.path.chmod(0o640)

    with store:
        assert store.path.stat().st_mode & 0o777 == 0o640


def test_writers_and_readers_do_not_block_each_other_and_a_writer_waits_thirty_seconds(store: SqliteStore) -> None:
    with store:
        connection = store._writer()
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (30_000,)
        statements: list[str] = []
        connection.set_trace_callback(statements.append)

        store.scrub()

        connection.set_trace_callback(None)
        assert connection.execute("PRAGMA busy_timeout").fetchone() == (30_000,)
    assert statements[0] == "PRAGMA busy_timeout = 200"
    assert "wal_checkpoint(TRUNCATE)" in statements[1]


def test_closing_the_store_closes_its_connection(store: SqliteStore) -> None:
    store.open()
    connection = store._writer()

    store.close()

    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT 1")


def test_the_connection_for_writing_can_be_used_by_another_thread(store: SqliteStore) -> None:
    with store, ThreadPoolExecutor(1) as threads:
        threads.submit(store.record, "w", sealed("w", drafts(0, 1))).result()

    assert store.count() == 1


def test_the_number_of_a_writer_is_looked_up_once(store: SqliteStore) -> None:
    with store:
        store.record("w", sealed("w", drafts(0, 1)))
        statements: list[str] = []
        store._writer().set_trace_callback(statements.append)

        store.record("w", sealed("w", drafts(0, 2)))

        store._writer().set_trace_callback(None)
    assert not [statement for statement in statements if "INTO writers" in statement]


def test_a_writer_can_record_entries_after_its_first_transaction_failed(store: SqliteStore) -> None:
    with store:
        store.record("a", sealed("a", drafts(0, 1)))
        with pytest.raises(Unavailable):
            store.record("b", sealed("b", drafts(0, 1)))  # the id already exists

        store.record("b", sealed("b", drafts(1, 2)))

        assert store.writers() == ["a", "b"]


def test_the_maintenance_lock_of_a_new_store_can_be_acquired(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "new" / "history.db")

    with store.maintenance() as acquired:
        assert acquired
    store.close()


def test_checking_the_store_waits_two_seconds_for_the_lock(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    with store:
        pass
    timeouts: list[float] = []
    connect = sqlite3.connect

    def note(*args: Any, timeout: float, **options: Any) -> sqlite3.Connection:
        timeouts.append(timeout)
        return connect(*args, timeout=timeout, **options)

    monkeypatch.setattr(sqlite3, "connect", note)
    store.check()

    assert timeouts == [2]


def test_the_copies_after_a_damaged_entry_are_compared(store: SqliteStore) -> None:
    with store:
        store.record("w", sealed("w", drafts(0, 4)))
        store._writer().execute("UPDATE entries SET head = x'c1' WHERE seq = 1")
        store._writer().execute("UPDATE entries SET label = 'x', entity = 'y' WHERE seq IN (0, 3)")

        assert list(store.changed_copies("w")) == [(0, "label"), (0, "entity"), (3, "label"), (3, "entity")]
        assert list(store.changed_copies("v")) == []


def test_the_erasures_of_an_unsigned_store_have_no_signature(store: SqliteStore) -> None:
    with store:
        store.record("w", sealed("w", drafts(0, 2)))
        erase(store, Selection(ids=(identifier(0),)))
        erase(store, Selection())

        (first, second) = store.erasures()
    assert (first.seq, second.seq) == (0, 1)
    assert list(chain.verify(chain.ERASURES, [first, second])) == []
    assert decode_erasure(first.head).signature == b""


def test_the_folder_of_a_relative_path_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert SqliteStore(Path("history.db")).disk_folder == tmp_path
