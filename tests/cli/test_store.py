"""`rowcast store`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rowcast.adapters.files.keys import FileKeys
from rowcast.adapters.files.secret import FileSecret
from rowcast.adapters.postgresql.keys import PostgresKeys
from rowcast.adapters.postgresql.migrations import MIGRATIONS
from rowcast.adapters.postgresql.secret import PostgresSecret
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.adapters.sqlite.store import SqliteStore
from support.access import new_key
from support.commands import rowcast
from support.entries import drafts, sealed
from support.postgresql import PASSWORD, Postgres

SECRET = bytes(range(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A home with a SQLite history, an API key and a hashing key."""
    with SqliteStore(tmp_path / "history.db") as store:
        store.record("w", sealed("w", drafts(0, 20)))
    FileKeys(tmp_path / "keys.json").change(lambda keys: [new_key("a")])
    FileSecret(tmp_path / "history.key").keep(SECRET)
    return tmp_path


def run(*arguments: str, folder: Path, store: str = "", status: int = 0) -> Any:
    settings = {"ROWCAST_STORE": store} if store else {}
    finished = rowcast("store", *arguments, "--json", "--home", folder, cwd=folder, settings=settings)
    assert finished.returncode == status, finished.stderr
    assert PASSWORD not in finished.stdout + finished.stderr
    return json.loads(finished.stdout) if finished.stdout else finished.stderr


def test_a_copy_contains_the_history_the_api_keys_and_the_hashing_key(folder: Path, database: str) -> None:
    first = run("copy", "--to", database, folder=folder)
    again = run("copy", "--to", database, folder=folder)

    assert (first["copied"], first["keys"], first["has_history_key"]) == (20, 1, True)
    assert (again["copied"], again["present"], again["keys"]) == (0, 20, 0)
    assert list(PostgresStore(database).chain("w")) == sealed("w", drafts(0, 20))
    assert [key.id for key in PostgresKeys(database).all()] == ["a"]
    assert PostgresSecret(database, "history").find() == SECRET


def test_nothing_is_copied_if_the_target_has_a_different_hashing_key(folder: Path, database: str) -> None:
    PostgresSecret(database, "history").keep(bytes(32))

    run("copy", "--to", database, folder=folder, status=2)

    assert PostgresStore(database).count() == 0


def test_only_a_sqlite_history_is_copied_and_only_to_postgresql(folder: Path, database: str) -> None:
    run("copy", "--to", "sqlite:////tmp/other.db", folder=folder, status=2)
    run("copy", "--to", database, folder=folder, store=database, status=2)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_store_is_migrated_once(tmp_path: Path, kind: str, request: pytest.FixtureRequest) -> None:
    store = request.getfixturevalue("database") if kind == "postgresql" else ""

    assert run("check", folder=tmp_path, store=store)["schema"] == 0
    first, again = [run("migrate", folder=tmp_path, store=store) for _ in range(2)]

    assert (first["before"], again["before"]) == (0, first["schema"])
    state = run("check", folder=tmp_path, store=store)
    assert (state["schema"], state["problems"]) == (first["schema"], [])


def test_the_check_covers_indexes_partitions_and_chains(folder: Path, database: str, postgres: Postgres) -> None:
    run("copy", "--to", database, folder=folder)
    healthy = run("check", folder=folder, store=database)
    partition = healthy["partitions"][0]
    postgres.execute(f"DROP INDEX rowcast.{partition}_writer")
    postgres.execute("DROP INDEX rowcast.entries_tenant")
    postgres.execute("UPDATE rowcast.entries SET head = head || 'x' WHERE seq = 7")
    postgres.execute("UPDATE rowcast.writers SET last_seq = 18")
    damaged = run("check", folder=folder, store=database, status=1)

    assert (healthy["schema"], healthy["newest"]) == (len(MIGRATIONS), len(MIGRATIONS))
    assert (healthy["writers"], healthy["entries"], healthy["problems"]) == (1, 20, [])
    problems = " ".join(damaged["problems"])
    assert all(word in problems for word in (partition, "entries_tenant", "entry 7", "writer w"))


def test_the_check_finds_a_missing_index_of_a_sqlite_history(folder: Path) -> None:
    import sqlite3

    with sqlite3.connect(folder / "history.db") as connection:
        (name,) = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'index' AND name NOT LIKE 'sqlite_%' LIMIT 1"
        ).fetchone()
        connection.execute(f"DROP INDEX {name}")

    assert name in run("check", folder=folder, status=1)["problems"][0]
