"""The contract of `IdempotencyStore`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rowcast.access.ports import IdempotencyStore
from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.postgresql.idempotency import PostgresIdempotencyStore
from rowcast.adapters.sqlite.idempotency import SqliteIdempotencyStore
from rowcast.errors import RepeatConflict


def new_store(request: pytest.FixtureRequest, folder: Path) -> IdempotencyStore:
    if request.param == "memory":
        return MemoryIdempotencyStore(60)
    if request.param == "sqlite":
        return SqliteIdempotencyStore(folder / "a" / "repeats.db", 60)
    return PostgresIdempotencyStore(request.getfixturevalue("database"), 60)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> IdempotencyStore:
    return new_store(request, tmp_path)


@pytest.fixture(params=["sqlite", "postgresql"])
def owners(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[IdempotencyStore, IdempotencyStore]:
    """Two instances of the same store, as if two processes had opened it."""
    return new_store(request, tmp_path), new_store(request, tmp_path)


def test_the_first_request_claims_the_key_and_later_requests_get_the_saved_reply(store: IdempotencyStore) -> None:
    assert store.claim("k", b"f", 1.0) is None
    store.save_reply("k", b"reply", 2.0)

    assert store.claim("k", b"f", 3.0) == b"reply"
    assert store.claim("other", b"f", 3.0) is None


def test_claiming_the_key_of_a_request_in_progress_raises_a_conflict(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)

    with pytest.raises(RepeatConflict) as refused:
        store.claim("k", b"f", 2.0)
    assert refused.value.slug == "repeat-in-flight"


@pytest.mark.parametrize("has_reply", [False, True])
def test_claiming_a_key_for_a_different_request_raises_a_conflict(store: IdempotencyStore, has_reply: bool) -> None:
    store.claim("k", b"f", 1.0)
    if has_reply:
        store.save_reply("k", b"reply", 1.0)

    with pytest.raises(RepeatConflict) as refused:
        store.claim("k", b"g", 2.0)
    assert refused.value.slug == "repeat-differs"


def test_a_released_key_can_be_claimed_again(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)
    store.release("k")

    assert store.claim("k", b"g", 1.0) is None


def test_a_claim_expires(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)

    with pytest.raises(RepeatConflict):
        store.claim("k", b"f", 60.5)
    assert store.claim("k", b"f", 61.5) is None
    with pytest.raises(RepeatConflict):  # the second claim starts a new period
        store.claim("k", b"f", 121.0)


def test_a_renewed_claim_expires_later(store: IdempotencyStore) -> None:
    for key in ("k", "l", "other"):
        store.claim(key, b"f", 1.0)
    store.renew(["k", "l", "unknown"], 50.0)

    assert store.claim("other", b"f", 100.0) is None
    for key in ("k", "l"):
        with pytest.raises(RepeatConflict):
            store.claim(key, b"f", 109.5)
        assert store.claim(key, b"f", 110.5) is None


def test_renewing_does_not_change_a_saved_reply(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)
    store.save_reply("k", b"reply", 1.0)
    store.renew(["k"], 9.0)
    store.purge(5.0)

    assert store.claim("k", b"g", 10.0) is None


def test_an_owner_that_lost_its_claim_changes_nothing(owners: tuple[IdempotencyStore, IdempotencyStore]) -> None:
    slow, fast = owners
    slow.claim("k", b"f", 1.0)
    assert fast.claim("k", b"f", 62.0) is None

    slow.release("k")
    slow.renew(["k"], 100.0)
    slow.save_reply("k", b"late", 63.0)
    with pytest.raises(RepeatConflict):
        slow.claim("k", b"f", 63.0)
    fast.save_reply("k", b"reply", 64.0)

    assert slow.claim("k", b"f", 66.0) == fast.claim("k", b"f", 66.0) == b"reply"


def test_exactly_one_of_several_owners_claims_a_key(owners: tuple[IdempotencyStore, IdempotencyStore]) -> None:
    def claim(number: int) -> bool:
        try:
            return owners[number % 2].claim("k", b"f", 1.0) is None
        except RepeatConflict:
            return False

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(claim, range(16))) == 1


def test_purging_deletes_only_old_replies(store: IdempotencyStore) -> None:
    for key, at in (("old", 4.0), ("new", 6.0)):
        store.claim(key, b"f", at)
        store.save_reply(key, b"reply", at)
    store.purge(5.0)

    assert store.claim("old", b"f", 10.0) is None
    assert store.claim("new", b"f", 10.0) == b"reply"


def test_trimming_deletes_the_oldest_replies_and_no_claims(store: IdempotencyStore) -> None:
    for at, key in enumerate(("a", "b", "c")):
        store.claim(key, b"f", float(at))
        store.save_reply(key, b"12345678", float(at))
    store.claim("open", b"f", 0.0)

    store.trim(16)

    assert [store.claim(key, b"f", 9.0) for key in ("a", "b", "c")] == [None, b"12345678", b"12345678"]
    with pytest.raises(RepeatConflict):
        store.claim("open", b"f", 9.0)


def test_trimming_deletes_the_replies_of_the_owners_with_the_most_data(store: IdempotencyStore) -> None:
    keys = ["small:a", *(f"large:{number}" for number in range(5)), "medium:a", "medium:b"]
    for at, key in enumerate(keys):
        store.claim(key, b"f", float(at))
        store.save_reply(key, b"12345678", float(at))

    store.trim(40)

    kept = [key for key in keys if store.claim(key, b"f", 9.0) is not None]
    assert kept == ["small:a", "large:3", "large:4", "medium:a", "medium:b"]


def test_a_healthy_store_passes_its_check_before_and_after_the_first_claim(store: IdempotencyStore) -> None:
    store.check()
    store.claim("k", b"f", 1.0)
    store.check()


def test_releasing_a_key_keeps_a_saved_reply(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)
    store.save_reply("k", b"reply", 2.0)
    store.release("k")

    assert store.claim("k", b"f", 3.0) == b"reply"


def test_a_store_can_be_used_after_a_conflict(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)
    with pytest.raises(RepeatConflict):
        store.claim("k", b"g", 1.0)

    assert store.claim("other", b"f", 1.0) is None
    store.save_reply("k", b"reply", 1.0)
    assert store.claim("k", b"f", 1.0) == b"reply"


def test_the_age_of_a_reply_counts_from_when_it_was_saved(store: IdempotencyStore) -> None:
    store.claim("k", b"f", 1.0)
    store.save_reply("k", b"reply", 6.0)
    store.purge(5.0)

    assert store.claim("k", b"f", 7.0) == b"reply"
