"""The chain: every change, removal, insertion and reordering of entries is detected."""

from __future__ import annotations

import msgspec
import pytest

from rowcast.history import chain
from rowcast.history.chain import ERASURES, Erasure, SealedEntry, decode_erasure, decode_head, seal_erasure
from support.entries import drafts, sealed

ENTRIES = sealed("w", drafts(0, 5))


def first_break(entries: list[SealedEntry], writer: str = "w") -> int | None:
    """Return the sequence number of the first broken entry."""
    return next((each.seq for each in chain.verify(writer, entries)), None)


def test_an_unchanged_chain_passes_verification() -> None:
    assert first_break(ENTRIES) is None


def test_an_erased_row_does_not_break_the_chain() -> None:
    assert first_break([ENTRIES[0]._replace(row=None, salt=None), *ENTRIES[1:]]) is None


@pytest.mark.parametrize(
    "change",
    [
        {"row": b"{}"},
        {"salt": b"?" * 16},
        {"salt": None},
        {"row": b"{}", "salt": None},
        {"head": b"\x90"},
        {"row_hash": b"?" * 32},
        {"link": b"?" * 32},
    ],
)
def test_a_change_to_any_field_breaks_the_chain(change: dict[str, bytes | None]) -> None:
    assert first_break([*ENTRIES[:2], ENTRIES[2]._replace(**change), *ENTRIES[3:]]) == 2  # type: ignore[arg-type]


def test_changing_the_order_or_number_of_entries_breaks_the_chain() -> None:
    assert first_break([*ENTRIES[:2], *ENTRIES[3:]]) == 2
    assert first_break([*ENTRIES[:2], ENTRIES[1], *ENTRIES[2:]]) == 2
    assert first_break([ENTRIES[1], ENTRIES[0], *ENTRIES[2:]]) == 0


def test_a_chain_fails_verification_if_it_is_presented_as_the_chain_of_another_writer() -> None:
    assert first_break(ENTRIES, "v") == 0


def test_erasure_records_form_a_chain() -> None:
    first = seal_erasure(0, None, Erasure(1, "user", "erase", b"{}", 3, 1))
    second = seal_erasure(1, first.link, Erasure(2, "retention", "retention", b"{}", 4))

    assert first_break([first, second], ERASURES) is None
    assert [decode_erasure(entry.head).rows for entry in (first, second)] == [3, 4]


def test_the_links_of_a_chain_never_change() -> None:
    """Published heads and the journals of earlier releases contain these links."""
    erasure = seal_erasure(0, None, Erasure(1, "user", "erase", b"{}", 3, 1))

    assert chain.genesis("w").hex() == "e801b12eccdc0c03b03dc2f97c08bf3a879d9f19b73c1e4bba470392b624a226"
    assert [entry.link.hex()[:16] for entry in ENTRIES[:3]] == [
        "b436bbe6f18f8ed0",
        "01a83e65693e0b56",
        "10aeb20a310e0931",
    ]
    assert erasure.link.hex() == "7f897589fa7f30c310277a4ea5319592e6f40ce94403b3b7f5dd0d7bea794eaf"


def test_fields_that_earlier_releases_did_not_record_are_empty() -> None:
    entry = decode_head(msgspec.msgpack.encode([1, "rb1-00", "native", "r", b"{}"]))
    erasure = decode_erasure(msgspec.msgpack.encode([1, "user", "erase", b"{}", 3]))

    assert (entry.key_id, entry.tenant, entry.entity, entry.withheld) == ("", "", "", ())
    assert (erasure.request, erasure.signature) == (0, b"")


def test_the_reason_for_a_break_says_what_was_changed() -> None:
    def reason(*entries: SealedEntry) -> str:
        return next(each.reason for each in chain.verify("w", entries))

    assert reason(ENTRIES[0], ENTRIES[3]) == "entry 1 is missing; the next recorded entry is 3"
    assert "row" in reason(ENTRIES[0]._replace(row=b"{}"))
    assert "entry or the previous entry was changed" in reason(ENTRIES[0]._replace(head=b"\x90"))
