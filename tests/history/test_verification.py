"""Verification of chains: gaps, several broken chains, removed rows and published heads."""

from __future__ import annotations

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.history.heads import ChainHead
from rowcast.history.service import History
from rowcast.history.verification import Verification
from support.entries import drafts, sealed


def verify(store: MemoryStore, *published: ChainHead) -> Verification:
    return History(store, EmptyJournalReader()).verify(published)


def places(verification: Verification) -> list[tuple[str, int]]:
    return [(each["writer"], each["seq"]) for each in verification.broken]


def test_a_chain_with_a_gap_is_reported_as_broken() -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 5))
    store.record("w", entries[:2] + entries[3:])

    assert places(verify(store)) == [("w", 2)]


def test_every_broken_chain_is_reported() -> None:
    store = MemoryStore()
    for writer, start in (("a", 0), ("b", 10), ("c", 20)):
        entries = sealed(writer, drafts(start, start + 3))
        store.record(writer, entries if writer == "b" else [entries[0], entries[2]])

    verification = verify(store)

    assert [writer for writer, _ in places(verification)] == ["a", "c"]
    assert (verification.writers, verification.entries) == (3, 7)


def test_rows_removed_without_an_erasure_are_counted_as_unrecorded() -> None:
    store = MemoryStore()
    store.record("w", [entry._replace(row=None, salt=None) for entry in sealed("w", drafts(0, 3))])

    verification = verify(store)

    assert (verification.erased, verification.unrecorded, verification.broken) == (3, 3, [])


def test_published_heads_are_confirmed_at_any_position_in_the_chain() -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 5))
    store.record("w", entries)

    verification = verify(store, *(ChainHead("w", seq, entries[seq].link.hex()) for seq in (1, 4)))

    assert (verification.heads, verification.broken) == (2, [])


def test_damaged_or_missing_chains_do_not_match_their_published_heads() -> None:
    store = MemoryStore()
    truncated, rewritten, missing = (
        sealed(writer, drafts(start, start + 5)) for writer, start in zip("trm", (0, 10, 20), strict=True)
    )
    store.record("t", truncated[:3])
    store.record("r", sealed("r", drafts(110, 115)))

    verification = verify(
        store,
        ChainHead("t", 4, truncated[4].link.hex()),
        ChainHead("r", 2, rewritten[2].link.hex()),
        ChainHead("m", 4, missing[4].link.hex()),
    )

    assert verification.heads == 0
    assert sorted(places(verification)) == [("m", 4), ("r", 2), ("t", 4)]
