"""The SQLite idempotency store with concurrent processes and damaged files."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
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
