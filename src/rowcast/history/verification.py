"""Verifies the links of all chains, and compares the chains with published heads."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import msgspec

from rowcast.errors import HistoryError
from rowcast.history import chain
from rowcast.history.chain import ERASURES, ChainBreak, SealedEntry, decode_erasure
from rowcast.history.heads import ChainHead
from rowcast.history.signing import has_valid_signature, is_signed_erasure


class Verification(msgspec.Struct, frozen=True):
    """The result of verifying every chain."""

    writers: int
    entries: int
    erased: int
    """The number of entries whose rows have been erased."""
    unrecorded: int
    """The number of erased rows without a recorded erasure; Rowcast did not erase them."""
    heads: int
    """The number of published heads that are still in their chains."""
    unsigned_heads: int
    """The number of published heads without a signature. They may be forged."""
    unsigned_erasures: int
    """The number of erasures without a signature. They come from earlier releases or are forged."""
    broken: list[dict[str, Any]]
    """The first break in each broken chain."""


class ChainAudit:
    """Collects the results while the chains are verified one after another."""

    def __init__(self, published: Iterable[ChainHead], key: bytes | None = None) -> None:
        self._key = key
        self._unsigned_heads = 0
        self._unsigned_erasures = 0
        self._entries = 0
        self._erased = 0
        self._recorded = 0
        self._confirmed = 0
        self._breaks: list[ChainBreak] = []
        self._lengths: dict[str, int] = {}
        self._published: defaultdict[str, dict[int, str]] = defaultdict(dict)
        for head in published:
            self._published[head.writer][head.seq] = head.link
            if not head.signature or key is None:
                self._unsigned_heads += 1
            elif not has_valid_signature(head, key):
                reason = "the signature of the published head is forged or was made with another key"
                self._breaks.append(ChainBreak(head.writer, head.seq, reason))

    def check_writer(self, writer: str, entries: Iterable[SealedEntry]) -> None:
        """Verify one writer's chain and count its entries."""

        def counted() -> Iterator[SealedEntry]:
            for entry in entries:
                self._entries += 1
                self._erased += entry.row is None and entry.row_hash != chain.NO_ROW  # a job's entry never had a row
                yield entry

        self._check(writer, counted())

    def check_erasures(self, entries: Sequence[SealedEntry]) -> None:
        """Verify the erasure chain, and count the rows that it records as erased."""
        self._check(ERASURES, entries)
        with suppress(msgspec.MsgspecError):  # `_check` has reported a damaged entry
            self._recorded = sum(decode_erasure(entry.head).rows for entry in entries)
            self._check_signatures(entries)

    def check_copies(self, writer: str, changed: Iterable[tuple[int, str]]) -> None:
        """Report a writer's first entry whose fields differ from the columns that queries use.

        A chain that is already broken is not reported again.
        """
        if any(each.writer == writer for each in self._breaks):
            return
        for seq, column in islice(changed, 1):
            reason = f"the column {column!r} in the store differs from the recorded entry"
            self._breaks.append(ChainBreak(writer, seq, reason))

    def _check_signatures(self, entries: Sequence[SealedEntry]) -> None:
        previous: bytes | None = None
        signed_before = False
        for entry in entries:
            erasure = decode_erasure(entry.head)
            if not erasure.signature or self._key is None:
                self._unsigned_erasures += 1
                if signed_before and self._key is not None:
                    self._report_forged(entry.seq, "is not signed, although an earlier erasure is signed")
            elif is_signed_erasure(erasure, seq=entry.seq, previous=previous, key=self._key):
                signed_before = True
            else:
                self._report_forged(entry.seq, "has a signature that is forged or was made with another key")
            previous = entry.link

    def _report_forged(self, seq: int, reason: str) -> None:
        self._breaks.append(ChainBreak(ERASURES, seq, f"the erasure {reason}"))

    def report_lost(self, writer: str, seq: int) -> None:
        """Report a damaged journal that is unreadable from `seq` on, unless the store contains the lost entries."""
        if self._lengths.get(writer, 0) <= seq and all(each.writer != writer for each in self._breaks):
            reason = f"entry {seq} and all later entries are lost: their journal is damaged"
            self._breaks.append(ChainBreak(writer, seq, reason))

    def report_missing_writers(self, writers: Sequence[str]) -> None:
        """Report each published head whose chain no longer exists."""
        for writer in self._published.keys() - {*writers, ERASURES}:
            self._report_truncated(writer, self._published[writer])

    def result(self, writers: int) -> Verification:
        """Return the result of all checks."""
        return Verification(
            writers=writers,
            entries=self._entries,
            erased=self._erased,
            unrecorded=max(0, self._erased - self._recorded),
            heads=self._confirmed,
            unsigned_heads=self._unsigned_heads,
            unsigned_erasures=self._unsigned_erasures,
            broken=[each._asdict() for each in self._breaks],
        )

    def _check(self, writer: str, entries: Iterable[SealedEntry]) -> None:
        length = 0
        heads = self._published[writer]

        def walked() -> Iterator[SealedEntry]:
            nonlocal length
            for entry in entries:
                length = entry.seq + 1
                if entry.seq in heads:
                    self._compare_head(writer, entry, heads.pop(entry.seq))
                yield entry

        walk = walked()
        try:
            self._breaks += chain.verify(writer, walk)
            for _ in walk:
                pass  # entries after a break are still counted and compared with published heads
        except HistoryError as error:
            self._breaks.append(ChainBreak(writer, length, error.message))
        self._lengths[writer] = length
        self._report_truncated(writer, heads)

    def _compare_head(self, writer: str, entry: SealedEntry, link: str) -> None:
        if entry.link.hex() == link:
            self._confirmed += 1
        else:
            reason = "the link differs from the published head: the chain was rewritten"
            self._breaks.append(ChainBreak(writer, entry.seq, reason))

    def _report_truncated(self, writer: str, heads: Mapping[int, str]) -> None:
        if heads:
            last = max(heads)
            reason = f"entry {last} was published as the head but is missing: the chain was truncated"
            self._breaks.append(ChainBreak(writer, last, reason))
