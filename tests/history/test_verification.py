"""Verification of chains: gaps, broken chains, removed rows, published heads, copied fields and signatures."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.store import MemoryStore
from rowcast.adapters.sqlite.store import SqliteStore
from rowcast.errors import HistoryError
from rowcast.history.chain import ERASURES, Erasure, SealedEntry, decode_erasure, seal_erasure
from rowcast.history.entry_filter import Selection
from rowcast.history.heads import ChainHead
from rowcast.history.ports import ErasureRequest
from rowcast.history.service import History
from rowcast.history.signing import sign_head
from rowcast.history.verification import Verification
from support.entries import draft, drafts, sealed

KEY = b"k" * 32


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


def test_entries_after_a_break_are_counted_and_compared_with_published_heads() -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 6))
    store.record("w", [*entries[:2], entries[2]._replace(row=b"{}"), *entries[3:]])

    verification = verify(store, ChainHead("w", 5, entries[5].link.hex()))

    assert places(verification) == [("w", 2)]
    assert (verification.entries, verification.heads) == (6, 1)


def erased(path: Path, *, key: bytes | None = KEY) -> SqliteStore:
    """Return a store with three entries and two erasures."""
    store = SqliteStore(path, None if key is None else lambda: key)
    store.record("w", sealed("w", [draft(number, entity=f"e{number}") for number in range(3)]))
    for number in range(2):
        store.erase(ErasureRequest(Selection(entity=f"e{number}"), "me", "erase"), number=number, at=1, limit=9)
    return store


def forge(path: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


@pytest.mark.parametrize("column", ["id", "model", "version", "label", "tenant", "entity"])
def test_a_changed_copy_of_a_field_is_reported(tmp_path: Path, column: str) -> None:
    with erased(tmp_path / "history.db") as store:
        history = History(store, EmptyJournalReader())
        assert history.verify(key=KEY).broken == []

        forge(tmp_path / "history.db", f"UPDATE entries SET {column} = '7' || seq WHERE seq > 0")

        (broken,) = history.verify(key=KEY).broken
    assert (broken["writer"], broken["seq"]) == ("w", 1)
    assert f"{column!r} in the store differs" in broken["reason"]


def test_a_forged_erasure_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with erased(path) as store:
        history = History(store, EmptyJournalReader())
        last = store.erasures()[-1]
        forged = Erasure(2, "me", "erase", b"{}", 1, 9)
        for signature, reason in (
            (b"", "is not signed, although an earlier erasure is signed"),
            (b"x" * 32, "has a signature that is forged or was made with another key"),
            (decode_erasure(last.head).signature, "has a signature that is forged or was made with another key"),
        ):
            entry = seal_erasure(2, last.link, msgspec.structs.replace(forged, signature=signature))
            forge(path, "DELETE FROM erasures WHERE seq = 2")
            forge(path, "INSERT INTO erasures VALUES (?, ?, ?)", entry.seq, entry.head, entry.link)
            (broken,) = history.verify(key=KEY).broken
            assert (broken["writer"], broken["seq"], broken["reason"]) == (ERASURES, 2, f"the erasure {reason}")


def test_erasures_from_earlier_releases_are_counted_as_unsigned(tmp_path: Path) -> None:
    with erased(tmp_path / "history.db", key=None) as store:
        unsigned = History(store, EmptyJournalReader()).verify(key=KEY)
    with erased(tmp_path / "other.db") as store:
        history = History(store, EmptyJournalReader())
        signed, without_key = history.verify(key=KEY), history.verify()

    assert (unsigned.unsigned_erasures, unsigned.broken) == (2, [])
    assert (signed.unsigned_erasures, signed.broken) == (0, [])
    assert (without_key.unsigned_erasures, without_key.broken) == (2, [])


def test_a_recomputed_chain_does_not_match_its_published_head_and_the_head_cannot_be_forged() -> None:
    store, recomputed = MemoryStore(), MemoryStore()
    store.record("w", sealed("w", drafts(0, 3)))
    recomputed.record("w", sealed("w", [*drafts(0, 2), draft(2, label="Forged")]))
    published = sign_head(ChainHead("w", 2, list(store.chain("w"))[2].link.hex()), KEY)
    history = History(recomputed, EmptyJournalReader())
    assert History(store, EmptyJournalReader()).verify([published], KEY).broken == []

    assert "the chain was rewritten" in history.verify([published], KEY).broken[0]["reason"]
    moved = msgspec.structs.replace(published, link=list(recomputed.chain("w"))[2].link.hex())
    assert "forged" in history.verify([moved], KEY).broken[0]["reason"]
    unsigned = history.verify([msgspec.structs.replace(moved, signature="")], KEY)
    assert (unsigned.broken, unsigned.unsigned_heads) == ([], 1)


def test_the_result_counts_writers_entries_and_erased_rows(tmp_path: Path) -> None:
    with erased(tmp_path / "history.db") as store:
        heads = [sign_head(head, KEY) for head in History(store, EmptyJournalReader()).heads()]

        verification = History(store, EmptyJournalReader()).verify([*heads, ChainHead("w", 1, heads[0].link)], KEY)

    assert verification == Verification(
        writers=1,
        entries=3,
        erased=2,
        unrecorded=0,
        heads=2,
        unsigned_heads=1,
        unsigned_erasures=0,
        broken=[
            {
                "writer": "w",
                "seq": 1,
                "reason": "the link differs from the published head: the chain was rewritten",
            }
        ],
    )


def test_an_erasure_that_was_signed_at_another_position_is_reported_as_forged(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with erased(path) as store:
        second = decode_erasure(store.erasures()[1].head)
        entry = seal_erasure(0, None, second)
        forge(path, "DELETE FROM erasures")
        forge(path, "INSERT INTO erasures VALUES (?, ?, ?)", entry.seq, entry.head, entry.link)

        verification = History(store, EmptyJournalReader()).verify(key=KEY)

    assert places(verification) == [(ERASURES, 0)]
    assert (verification.erased, verification.unrecorded, verification.unsigned_erasures) == (2, 1, 0)


def test_an_unsigned_erasure_after_a_signed_one_is_counted_and_a_later_signed_one_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with erased(path) as store:
        last = store.erasures()[-1]
        entry = seal_erasure(2, last.link, Erasure(2, "me", "erase", b"{}", 1, 9))
        forge(path, "INSERT INTO erasures VALUES (?, ?, ?)", entry.seq, entry.head, entry.link)
        store.erase(ErasureRequest(Selection(entity="e2"), "me", "erase"), number=3, at=1, limit=9)

        verification = History(store, EmptyJournalReader()).verify(key=KEY)

    assert places(verification) == [(ERASURES, 2)]
    assert verification.unsigned_erasures == 1


def test_a_damaged_erasure_is_reported_once(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with erased(path) as store:
        forge(path, "UPDATE erasures SET head = x'c1' WHERE seq = 1")

        verification = History(store, EmptyJournalReader()).verify(key=KEY)

    assert places(verification) == [(ERASURES, 1)]


def test_only_the_first_changed_copy_of_a_writer_is_reported_and_none_if_its_chain_is_broken(tmp_path: Path) -> None:
    path = tmp_path / "history.db"
    with erased(path) as store:
        store.record("v", sealed("v", drafts(10, 12)))
        forge(path, "UPDATE entries SET label = 'x', tenant = 'y'")
        history = History(store, EmptyJournalReader())
        assert places(history.verify(key=KEY)) == [("v", 0), ("w", 0)]

        forge(path, "DELETE FROM entries WHERE seq = 0 AND writer = 1")

        reasons = {each["writer"]: each["reason"] for each in history.verify(key=KEY).broken}
    assert "'label'" in reasons.pop("v")
    assert reasons == {"w": "entry 0 is missing; the next recorded entry is 1"}


def test_the_entries_of_a_lost_journal_are_reported_unless_the_store_contains_them() -> None:
    class DamagedJournals(EmptyJournalReader):
        """Journals in which each writer's entries are unreadable from a given sequence number onward."""

        def __init__(self, **seqs: int) -> None:
            self.seqs = seqs

        def unreadable(self) -> dict[str, int]:
            return self.seqs

    store = MemoryStore()
    store.record("w", sealed("w", drafts(0, 5)))
    store.record("v", sealed("v", drafts(10, 15))[:1] + sealed("v", drafts(10, 15))[2:])

    assert places(History(store, DamagedJournals(w=4, v=0)).verify()) == [("v", 1)]
    (broken, lost, unknown) = History(store, DamagedJournals(w=5, v=9, u=0)).verify().broken
    assert (broken["writer"], broken["seq"]) == ("v", 1)
    assert lost == {
        "writer": "w",
        "seq": 5,
        "reason": "entry 5 and all later entries are lost: their journal is damaged",
    }
    assert (unknown["writer"], unknown["seq"]) == ("u", 0)


def test_the_latest_missing_head_of_a_truncated_chain_is_reported() -> None:
    store, entries = MemoryStore(), sealed("w", drafts(0, 5))
    store.record("w", entries[:2])

    (broken,) = verify(store, *(ChainHead("w", seq, entries[seq].link.hex()) for seq in (1, 4, 3))).broken

    assert broken == {
        "writer": "w",
        "seq": 4,
        "reason": "entry 4 was published as the head but is missing: the chain was truncated",
    }


def test_published_heads_of_the_chain_of_erasures_are_compared(tmp_path: Path) -> None:
    with erased(tmp_path / "history.db") as store:
        head = History(store, EmptyJournalReader()).heads()[-1]
        assert head.writer == ERASURES
        forge(tmp_path / "history.db", "DELETE FROM erasures WHERE seq = 1")

        assert places(History(store, EmptyJournalReader()).verify([head], KEY)) == [(ERASURES, 1)]
    assert places(verify(MemoryStore(), head)) == [(ERASURES, 1)]


def test_a_chain_whose_first_entry_cannot_be_read_is_broken_at_its_start() -> None:
    class DamagedJournals(EmptyJournalReader):
        """Journals with one writer whose entries cannot be read."""

        def writers(self) -> list[str]:
            return ["w"]

        def chain(self, writer: str, after: int = -1) -> Iterator[SealedEntry]:
            raise HistoryError("damaged")

    verification = History(MemoryStore(), DamagedJournals()).verify()

    assert verification.broken == [{"writer": "w", "seq": 0, "reason": "damaged"}]
    assert (verification.writers, verification.entries) == (1, 0)
