"""Schema migrations of the history database."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.sqlite import store as store_module
from rowcast.adapters.sqlite.migrations import MIGRATIONS, read_statement
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import HistoryError
from rowcast.history.chain import Erasure, seal_erasure
from rowcast.history.entry_filter import Selection
from rowcast.history.ports import ErasureRequest
from support.entries import MIXED, drafts, sealed


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.db"


def execute(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Run SQL statements and return the rows of the last statement."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        rows = [connection.execute(statement).fetchall() for statement in statements]
    return rows[-1]


def create_with_version(path: Path, version: int) -> None:
    """Create a database with this version of the schema."""
    statements = [part for name in MIGRATIONS[:version] for part in read_statement(name).split(";\n")]
    execute(path, *statements, f"PRAGMA user_version = {version}")


def test_the_version_table_of_a_new_database_lists_all_migrations(path: Path) -> None:
    with SqliteStore(path):
        pass

    rows = execute(path, "SELECT version, name FROM schema_versions ORDER BY version")
    assert rows == list(enumerate(MIGRATIONS, 1))
    ((first, last),) = execute(path, "SELECT min(applied_at), max(applied_at) FROM schema_versions")
    assert first == last
    assert abs(time.time() - last / 1_000_000) < 60
    assert execute(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_an_old_database_is_migrated_only_when_it_is_opened_for_writing(path: Path, version: int) -> None:
    create_with_version(path, version)
    store = SqliteStore(path)

    assert (store.latest(10), store.erasures()) == ([], [])
    assert execute(path, "PRAGMA user_version") == [(version,)]
    with store:
        store.record("w", sealed("w", MIXED))
        store.erase(ErasureRequest(Selection(entity="customer-3"), "user", "erase"), number=0, at=0, limit=1000)

    assert len(store.erasures()) == 1
    assert store.latest(1, Selection(entity="customer-0"))[0].sealed.seq == 54
    applied = execute(path, "SELECT version, applied_at IS NULL FROM schema_versions ORDER BY version")
    assert applied == [(number, number <= version) for number in range(1, len(MIGRATIONS) + 1)]


def test_an_erasure_left_open_by_an_older_release_waits_for_registered_folders(path: Path) -> None:
    create_with_version(path, 2)
    old = '{"wanted":{"entity":"e"},"by":"user","reason":"erase","journals":{"w-000000000000.journal":"w"}}'
    execute(path, f"INSERT INTO requests (mark, request) VALUES (7, CAST('{old}' AS BLOB))")

    with SqliteStore(path) as store:
        (before,) = store.open_erasures()
        store.register_folder("f")
        (after,) = store.open_erasures()
        store.complete(after.number, "f")

        assert (before.request.selection, before.pending) == (Selection(entity="e"), {})
        assert after.pending == {"f": None}
        assert store.open_erasures() == []


@pytest.mark.parametrize("operation", [SqliteStore.open, SqliteStore.check, lambda store: store.latest(1)])
def test_a_database_with_a_newer_schema_is_rejected(path: Path, operation: Any) -> None:
    with SqliteStore(path) as store:
        store.record("w", sealed("w", drafts(0, 1)))
    execute(path, "PRAGMA user_version = 999")

    with pytest.raises(HistoryError) as refused:
        operation(SqliteStore(path))

    assert "999" in refused.value.message
    assert path.resolve() not in {file.resolve() for file in Path("/proc/self/fd").iterdir()}


def test_the_entries_of_the_first_release_can_be_read_before_and_after_the_migration(path: Path) -> None:
    create_with_version(path, 1)
    (entry,) = sealed("w", drafts(0, 1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO writers VALUES (1, 'w')")
        connection.execute(read_statement("insert.sql"), store_module._to_columns(1, entry))

    assert list(SqliteStore(path).chain("w")) == [entry]
    with SqliteStore(path) as store:
        store.record("w", sealed("w", drafts(0, 2)))
        assert list(store.chain("w")) == sealed("w", drafts(0, 2))


def test_the_erasures_of_the_second_release_can_be_read_before_the_migration(path: Path) -> None:
    create_with_version(path, 2)
    entry = seal_erasure(0, None, Erasure(1, "user", "erase", b"{}", 3, 1))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO erasures VALUES (?, ?, ?)", [entry.seq, entry.head, entry.link])

    assert SqliteStore(path).erasures() == [entry]
    assert execute(path, "PRAGMA user_version") == [(2,)]
