"""The SQLite idempotency store with concurrent processes and damaged files."""

from __future__ import annotations

import sqlite3
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore
from rowcast.errors import RepeatConflict, Unavailable


def ended_process() -> int:
    """Return the ID of a process that has exited."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_the_claim_of_a_dead_process_is_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = ended_process()
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: dead)
        SqliteIdempotencyStore(tmp_path / "r.db").claim("k", b"f", 1.0)

    assert SqliteIdempotencyStore(tmp_path / "r.db").claim("k", b"f", 1.5) is None


def test_exactly_one_of_several_concurrent_claims_succeeds(tmp_path: Path) -> None:
    def claim(number: int) -> bool:
        try:
            return SqliteIdempotencyStore(tmp_path / "r.db").claim("k", b"f", 1.0) is None
        except RepeatConflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        successes = list(threads.map(claim, range(8)))

    assert sum(successes) == 1


@pytest.mark.parametrize("damage", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"no database" * 100)])
def test_an_unusable_file_makes_the_store_unavailable(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    damage(tmp_path / "r.db")

    for operation in (lambda store: store.claim("k", b"f", 1.0), lambda store: store.check()):
        with pytest.raises(Unavailable) as refused:
            operation(SqliteIdempotencyStore(tmp_path / "r.db"))
        assert "r.db" in refused.value.message
        assert refused.value.slug == "idempotency-unavailable"


def test_a_claim_lasts_20_seconds_by_default(tmp_path: Path) -> None:
    store = SqliteIdempotencyStore(tmp_path / "r.db")
    store.claim("k", b"f", 1.0)

    with pytest.raises(RepeatConflict):
        store.claim("k", b"f", 20.9)
    assert store.claim("k", b"f", 21.0) is None


def test_only_the_owner_can_read_the_file_and_its_folder(tmp_path: Path) -> None:
    store = SqliteIdempotencyStore(tmp_path / "a" / "r.db")
    store.claim("k", b"f", 1.0)

    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a", *(tmp_path / "a").iterdir())}
    assert modes == {"a": 0o700, "r.db": 0o600, "r.db-wal": 0o600, "r.db-shm": 0o600}
    store.release("k")


def test_other_processes_can_use_the_file_concurrently(tmp_path: Path) -> None:
    store = SqliteIdempotencyStore(tmp_path / "r.db")
    store.claim("k", b"f", 1.0)
    connection = store._connection
    assert connection is not None

    pragmas = {
        name: connection.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("journal_mode", "synchronous", "busy_timeout", "user_version")
    }

    assert pragmas == {"journal_mode": "wal", "synchronous": 1, "busy_timeout": 10_000, "user_version": 2}


def test_a_store_can_be_used_by_several_threads(tmp_path: Path) -> None:
    store = SqliteIdempotencyStore(tmp_path / "r.db")
    store.claim("k", b"f", 1.0)

    with ThreadPoolExecutor(1) as threads:
        threads.submit(store.save_reply, "k", b"reply", 2.0).result()

    assert store.claim("k", b"f", 3.0) == b"reply"


def test_a_file_from_a_newer_release_is_rejected_and_not_locked(tmp_path: Path) -> None:
    SqliteIdempotencyStore(tmp_path / "r.db").claim("k", b"f", 1.0)
    with closing(sqlite3.connect(tmp_path / "r.db")) as connection:
        connection.execute("PRAGMA user_version = 3")

    with pytest.raises(Unavailable) as refused:
        SqliteIdempotencyStore(tmp_path / "r.db").claim("k", b"f", 1.0)

    assert "newer" in refused.value.message
    with closing(sqlite3.connect(tmp_path / "r.db", timeout=0)) as connection:
        connection.execute("BEGIN IMMEDIATE")


def test_a_damaged_page_is_found_by_the_check(tmp_path: Path) -> None:
    store = SqliteIdempotencyStore(tmp_path / "r.db")
    for number in range(200):
        store.claim(f"k{number}", b"f", 1.0)
    assert store._connection is not None
    store._connection.close()
    store.check()
    content = bytearray((tmp_path / "r.db").read_bytes())
    content[-3000:-2000] = bytes(1000)
    (tmp_path / "r.db").write_bytes(content)

    with pytest.raises(Unavailable):
        store.check()
