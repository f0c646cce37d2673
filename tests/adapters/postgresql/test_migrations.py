"""Schema migrations of the PostgreSQL history."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rowcast.adapters.postgresql.migrations import LOCKS, MIGRATIONS, STORE_LOCK
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.errors import HistoryError, Unavailable
from support.entries import drafts, sealed
from support.postgresql import Postgres


def test_the_version_table_of_a_new_store_lists_all_migrations(postgres: Postgres, database: str) -> None:
    with PostgresStore(database):
        pass

    rows = postgres.execute("SELECT version, name FROM rowcast.schema_versions ORDER BY version")
    assert rows == list(enumerate(MIGRATIONS, 1))


def test_several_processes_can_create_a_store_concurrently(postgres: Postgres, database: str) -> None:
    def create(number: int) -> None:
        with PostgresStore(database) as store:
            store.record(f"w{number}", sealed(f"w{number}", drafts(number, number + 1)))

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(create, range(6)))

    assert PostgresStore(database).count() == 6
    assert postgres.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == [(0,)]


@pytest.mark.parametrize("operation", [PostgresStore.open, PostgresStore.check, lambda store: store.latest(1)])
def test_a_store_written_by_a_newer_release_is_refused(postgres: Postgres, database: str, operation: Any) -> None:
    with PostgresStore(database):
        pass
    newer = len(MIGRATIONS) + 1
    postgres.execute(f"INSERT INTO rowcast.schema_versions (version, name) VALUES ({newer}, 'later.sql')")

    with pytest.raises(HistoryError) as refused:
        operation(PostgresStore(database))
    assert f"schema version {newer}" in refused.value.message


def test_a_migration_waits_for_the_store_wide_lock(
    postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rowcast.adapters.postgresql.database.LOCK_SECONDS", 1)
    holder = PostgresStore(database)
    with holder._database.connect() as connection:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCKS, STORE_LOCK])
        with pytest.raises(Unavailable):
            PostgresStore(database).open()
        assert postgres.execute("SELECT to_regnamespace('rowcast')") == [(None,)]

    with PostgresStore(database) as store:
        assert store.count() == 0


def test_a_database_that_does_not_use_utf_8_is_refused(postgres: Postgres, database: str) -> None:
    postgres.execute("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    try:
        with pytest.raises(Unavailable) as refused:
            PostgresStore(database.replace("/postgres", "/latin")).open()
        assert "LATIN1" in refused.value.message
    finally:
        postgres.execute("DROP DATABASE latin WITH (FORCE)")
