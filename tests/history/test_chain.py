"""The chain: every change, removal, insertion and reordering of entries is detected."""

from __future__ import annotations

import pytest

from rowcast.history import chain
from rowcast.history.chain import ERASURES, Erasure, SealedEntry, decode_erasure, seal_erasure
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
    "change", [{"row": b"{}"}, {"salt": b"?" * 16}, {"head": b"\x90"}, {"row_hash": b"?" * 32}, {"link": b"?" * 32}]
)
def test_a_change_to_any_field_breaks_the_chain(change: dict[str, bytes]) -> None:
    assert first_break([*ENTRIES[:2], ENTRIES[2]._replace(**change), *ENTRIES[3:]]) == 2


def test_changing_the_order_or_number_of_entries_breaks_the_chain() -> None:
    assert first_break([*ENTRIES[:2], *ENTRIES[3:]]) == 2
    assert first_break([*ENTRIES[:2], ENTRIES[1], *ENTRIES[2:]]) == 2
    assert first_break([ENTRIES[1], ENTRIES[0], *ENTRIES[2:]]) == 0


def test_a_chain_fails_verification_as_the_chain_of_another_writer() -> None:
    assert first_break(ENTRIES, "v") == 0


def test_erasure_records_form_a_chain() -> None:
    first = seal_erasure(0, None, Erasure(1, "user", "erase", b"{}", 3, 1))
    second = seal_erasure(1, first.link, Erasure(2, "retention", "retention", b"{}", 4))

    assert first_break([first, second], ERASURES) is None
    assert [decode_erasure(entry.head).rows for entry in (first, second)] == [3, 4]
