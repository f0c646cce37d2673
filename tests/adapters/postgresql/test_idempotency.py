"""The PostgreSQL idempotency store when connections are lost, clocks differ or several processes clean up at once."""

from __future__ import annotations

import time

import psycopg
import pytest

from rowcast.adapters.postgresql import idempotency
from rowcast.adapters.postgresql.idempotency import PostgresIdempotencyStore
from rowcast.adapters.postgresql.migrations import LOCKS, REPEATS_LOCK
from rowcast.errors import RepeatConflict, Unavailable
from support.postgresql import OTHERS, PASSWORD, Postgres
from support.servers import free_port


def test_the_error_for_an_unavailable_database_has_its_own_slug_and_contains_no_password() -> None:
    store = PostgresIdempotencyStore(f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/db")

    for operation in (store.check, lambda: store.claim("k", b"f", 1.0), lambda: store.claim("k", b"f", 1.0)):
        with pytest.raises(Unavailable) as refused:
            operation()
        assert refused.value.slug == "idempotency-unavailable"
        assert PASSWORD not in refused.value.message


def test_after_a_failure_the_database_is_not_called_for_one_second(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    store = PostgresIdempotencyStore(database)
    with monkeypatch.context() as patch:
        patch.setattr(store._database, "_parameters", {"host": "127.0.0.1", "port": free_port()})
        with pytest.raises(Unavailable):
            store.claim("k", b"f", 1.0)

    with pytest.raises(Unavailable):
        store.claim("k", b"f", 1.0)
    now = 101.0
    assert store.claim("k", b"f", 1.0) is None


def test_a_connection_that_the_database_closed_is_replaced(database: str, postgres: Postgres) -> None:
    store = PostgresIdempotencyStore(database)
    store.claim("k", b"f", 1.0)
    postgres.execute(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE {OTHERS}")

    store.save_reply("k", b"reply", 1.0)

    assert store.claim("k", b"f", 1.0) == b"reply"


def test_a_lease_is_measured_with_the_database_clock(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    PostgresIdempotencyStore(database).claim("k", b"f", real())
    monkeypatch.setattr(idempotency.time, "time", lambda: real() + 3600)  # this machine's clock is wrong
    store = PostgresIdempotencyStore(database)

    with pytest.raises(RepeatConflict):
        store.claim("k", b"f", real() + 3600 + 15)
    assert store.claim("k", b"f", real() + 3600 + 21) is None


def test_only_one_process_at_a_time_deletes_replies(database: str) -> None:
    store = PostgresIdempotencyStore(database)
    store.claim("a", b"f", 1.0)
    store.save_reply("a", b"reply", 1.0)
    with psycopg.connect(database) as other:
        other.execute("SELECT pg_advisory_xact_lock(%s, %s)", [LOCKS, REPEATS_LOCK])
        store.purge(5.0)
        store.trim(0)
        assert store.claim("a", b"f", 2.0) == b"reply"
    store.purge(5.0)

    assert store.claim("a", b"f", 2.0) is None
