"""What everything promises that keeps replies for an Idempotency-Key."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowcast.access.ports import Repeats
from rowcast.adapters.memory import MemoryRepeats
from rowcast.adapters.sqlite.idempotency import SqliteRepeats
from rowcast.errors import RepeatConflict, Unavailable


@pytest.fixture(params=["memory", "sqlite"])
def repeats(request: pytest.FixtureRequest, tmp_path: Path) -> Repeats:
    return MemoryRepeats(60) if request.param == "memory" else SqliteRepeats(tmp_path / "a" / "repeats.db", 60)


def test_the_first_answers_and_the_others_get_its_reply(repeats: Repeats) -> None:
    assert repeats.claim("k", b"f", 1.0) is None
    repeats.keep("k", b"reply", 2.0)

    assert repeats.claim("k", b"f", 3.0) == b"reply"
    assert repeats.claim("other", b"f", 3.0) is None


def test_while_the_first_is_in_flight_the_others_are_told_so(repeats: Repeats) -> None:
    repeats.claim("k", b"f", 1.0)

    with pytest.raises(RepeatConflict) as refused:
        repeats.claim("k", b"f", 2.0)
    assert refused.value.slug == "repeat-in-flight"


@pytest.mark.parametrize("answered", [False, True])
def test_another_request_is_told_so(repeats: Repeats, answered: bool) -> None:
    repeats.claim("k", b"f", 1.0)
    if answered:
        repeats.keep("k", b"reply", 1.0)

    with pytest.raises(RepeatConflict) as refused:
        repeats.claim("k", b"g", 2.0)
    assert refused.value.slug == "repeat-differs"


def test_what_is_released_can_be_claimed_again(repeats: Repeats) -> None:
    repeats.claim("k", b"f", 1.0)
    repeats.release("k")

    assert repeats.claim("k", b"g", 1.0) is None


def test_a_claim_held_for_too_long_is_void(repeats: Repeats) -> None:
    repeats.claim("k", b"f", 1.0)

    assert repeats.claim("k", b"f", 61.0) is None


def test_what_is_old_is_forgotten(repeats: Repeats) -> None:
    for key, at in (("old", 1.0), ("new", 9.0)):
        repeats.claim(key, b"f", at)
        repeats.keep(key, b"reply", at)
    repeats.purge(5.0)

    assert repeats.claim("old", b"f", 10.0) is None
    assert repeats.claim("new", b"f", 10.0) == b"reply"


def ended_process() -> int:
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_a_claim_of_a_dead_process_is_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dead = ended_process()
    with monkeypatch.context() as patched:
        patched.setattr("os.getpid", lambda: dead)
        SqliteRepeats(tmp_path / "r.db").claim("k", b"f", 1.0)

    assert SqliteRepeats(tmp_path / "r.db").claim("k", b"f", 1.5) is None


def test_of_many_workers_one_is_the_first(tmp_path: Path) -> None:
    def claim(number: int) -> bool:
        try:
            return SqliteRepeats(tmp_path / "r.db").claim("k", b"f", 1.0) is None
        except RepeatConflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(claim, range(8)))

    assert sum(won) == 1


@pytest.mark.parametrize("spoil", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"no database" * 100)])
def test_a_file_that_cannot_be_used_is_an_outage(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "r.db")

    with pytest.raises(Unavailable, match=r"r\.db"):
        SqliteRepeats(tmp_path / "r.db").claim("k", b"f", 1.0)
