"""Connections to PostgreSQL: URLs, messages without secrets, and lost connections."""

from __future__ import annotations

import gc
import os
import signal
from contextlib import closing

import psycopg
import pytest

from rowcast.adapters.postgresql import database as database_module
from rowcast.adapters.postgresql import store as store_module
from rowcast.adapters.postgresql.database import MAX_IDLE, Database
from rowcast.adapters.postgresql.store import PostgresStore
from rowcast.errors import SettingsError, Unavailable
from support.entries import draft, drafts, sealed
from support.postgresql import OTHERS, PASSWORD, Postgres
from support.servers import free_port


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:not-to-be-shown%zz@host/db",
        "postgresql://user:not-to-be-shown/x@host/db",
        "postgresql://user:not-to-be-shown?x@host/db",
        "postgresql://user:not-to-be-shown#x@host/db",
        "postgresql://user:not-to-be-shown@x@host/db",
        "postgresql://user:not-to-be-shown@host:port/db",
        "postgresql://user:not-to-be-shown@host/db?unknown=1",
        "postgresql://user:not-to-be-shown@[::1/db",
        "postgresql://host/db?password=not-to-be-shown%zz",
        "postgresql:user:not-to-be-shown",
    ],
)
def test_an_invalid_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(SettingsError) as refused:
        PostgresStore(url)

    assert "'store'" in refused.value.message
    assert "not-to-be-shown" not in refused.value.message


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("postgresql://user:not-to-be-shown@host/db?sslmode=require", "postgresql://host/db"),
        ("postgres://user@host:5433/db", "postgresql://host:5433/db"),
        ("postgresql://host?password=not-to-be-shown", "postgresql://host"),
        ("postgresql://[::1]:5432,other/db", "postgresql://[::1]:5432,other/db"),
        ("postgresql:///db", "postgresql:///db"),
    ],
)
def test_the_location_contains_neither_a_user_nor_a_password_nor_parameters(url: str, location: str) -> None:
    assert Database(url).location == location


def test_parameters_in_the_url_override_the_defaults(database: str) -> None:
    with closing(Database(f"{database}?application_name=other").connect()) as connection:
        assert connection.execute("SELECT current_setting('application_name')").fetchone() == ("other",)
    with closing(Database(database).connect()) as connection:
        assert connection.execute("SELECT current_setting('application_name')").fetchone() == ("rowcast",)


def test_a_database_that_cannot_be_reached_is_unavailable_and_the_message_has_no_password(database: str) -> None:
    urls = [
        f"postgresql://user:not-to-be-shown@127.0.0.1:{free_port()}/db",
        database.replace(f":{PASSWORD}@", ":not-to-be-shown-either@"),
        f"{database}_missing",
    ]
    operations = (
        PostgresStore.open,
        PostgresStore.check,
        PostgresStore.count,
        lambda store: store.record("w", sealed("w", drafts(0, 1))),
    )
    for url in urls:
        for operation in operations:
            with pytest.raises(Unavailable) as refused:
                operation(PostgresStore(url))
            assert "not-to-be-shown" not in refused.value.message
            assert "postgresql://127.0.0.1" in refused.value.message


def test_a_message_contains_no_part_of_a_row(database: str) -> None:
    with PostgresStore(database) as store:
        store.record("a", sealed("a", [draft(0, entity="customer-7", row=b'{"name":"Ada"}')]))
        with pytest.raises(Unavailable) as refused:
            store.record("b", sealed("b", [draft(0, entity="customer-7", row=b'{"name":"Ada"}')]))

    assert "id already exists" in refused.value.message
    assert not any(part in refused.value.message for part in ("customer-7", "Ada", "DETAIL", "CONTEXT"))


def end_connections(postgres: Postgres) -> None:
    postgres.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OTHERS}")


def test_after_a_connection_is_lost_a_write_fails_once_and_reads_reconnect(postgres: Postgres, database: str) -> None:
    entries = sealed("w", drafts(0, 4))
    with PostgresStore(database) as store:
        store.record("w", entries[:2])
        assert store.count() == 2
        end_connections(postgres)

        assert store.count() == 2
        with pytest.raises(Unavailable):
            store.record("w", entries)
        store.record("w", entries)

        assert list(store.chain("w")) == entries


def test_a_connection_that_stops_responding_is_closed_and_replaced(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "READ_SECONDS", 0.3)
    with PostgresStore(database) as store:
        store.record("w", sealed("w", drafts(0, 1)))
        connection = store._database.connect_reader()
        process = connection.info.backend_pid
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(psycopg.OperationalError, match="did not respond within"):
                store._readers._run(connection, "SELECT 1", ())
            assert connection.closed
            assert store.count() == 1
        finally:
            os.kill(process, signal.SIGCONT)


def test_entries_are_stored_soon_after_a_connection_is_lost_without_being_closed(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "RECORD_SECONDS", 0.3)
    entries = sealed("w", drafts(0, 2))
    with PostgresStore(database) as store:
        store.record("w", entries[:1])
        assert store._connection is not None
        process = store._connection.info.backend_pid
        os.kill(process, signal.SIGSTOP)
        try:
            with pytest.raises(Unavailable, match="did not respond within"):
                store.record("w", entries)
            store.record("w", entries)

            assert list(store.chain("w")) == entries
        finally:
            os.kill(process, signal.SIGCONT)


def test_a_slow_database_gets_more_time_after_each_failure(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "RECORD_SECONDS", 0.2)
    entries = sealed("w", drafts(0, 1))
    with PostgresStore(database) as store, closing(Database(database).connect()) as other, other.transaction():
        other.execute("LOCK TABLE rowcast.writers IN ACCESS EXCLUSIVE MODE")
        limits = []
        for _ in range(3):
            with pytest.raises(Unavailable) as failed:
                store.record("w", entries)
            limits.append(failed.value.message.split()[-2])

    assert limits == ["0.2", "0.4", "0.8"]


def test_the_locks_of_a_lost_connection_are_released(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "IDLE_TRANSACTION_SECONDS", 1)
    entries = sealed("w", drafts(0, 2))
    with PostgresStore(database) as store, closing(Database(database).connect_writer()) as lost:
        store.record("w", entries[:1])
        lost.execute("BEGIN")
        lost.execute("SELECT FROM rowcast.writers FOR UPDATE")

        store.record("w", entries)

        assert list(store.chain("w")) == entries


def test_the_database_notices_within_a_minute_that_a_writer_is_unreachable(database: str) -> None:
    with closing(Database(database).connect_writer()) as connection:
        names = ("idle", "interval", "count")
        idle, interval, count = (connection.execute(f"SHOW tcp_keepalives_{name}").fetchone() for name in names)

    assert (idle, interval, count) == (("30",), ("10",), ("3",))


def test_few_idle_connections_are_kept_and_closing_the_store_closes_them(postgres: Postgres, database: str) -> None:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE {OTHERS}"
    with PostgresStore(database) as store:
        store.record("w", sealed("w", drafts(0, 1)))
        readers = [store._database.connect_reader() for _ in range(MAX_IDLE + 2)]
        for reader in readers:
            store._readers._run(reader, "SELECT 1", ())
        assert postgres.execute(query) == [(MAX_IDLE + 1,)]
        assert store.count() == 1

    assert [reader.closed for reader in readers] == [True] * (MAX_IDLE + 2)


def test_a_store_that_was_never_closed_closes_its_connections_when_it_is_garbage_collected(database: str) -> None:
    with PostgresStore(database) as store:
        store.record("w", sealed("w", drafts(0, 1)))
    store = PostgresStore(database)
    assert store.count() == 1
    (connection,) = store._readers._idle

    del store
    gc.collect()

    assert connection.closed
