"""Copies a history into another store, so that every chain, head and erasure stays valid.

A copy can be interrupted at any time and repeated: it continues after the last entry of each writer in the target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Protocol

import msgspec

from rowcast.errors import HistoryError
from rowcast.history.chain import SealedEntry
from rowcast.history.ports import Store

BATCH = 1000


class CopyTarget(Store, Protocol):
    """A store into which a history can be copied."""

    def erase_copies(self, writer: str, seqs: Sequence[int]) -> None:
        """Erase these rows, without recording an erasure: the copied erasure chain already records it."""
        ...

    def add_erasures(self, erasures: Sequence[SealedEntry]) -> None:
        """Continue the erasure chain with these entries, and never use their request numbers again."""
        ...


class StoreCopy(msgspec.Struct, frozen=True):
    """The result of copying a history."""

    writers: int
    copied: int
    """The number of entries that this run copied."""
    present: int
    """The number of entries that the target already contained."""
    erasures: int
    """The number of recorded erasures that this run copied."""


def copy_store(source: Store, target: CopyTarget, report: Callable[[int], None]) -> StoreCopy:
    """Copy all entries and erasures; raise HistoryError before copying if the target's entries or erasures conflict
    with the source's.

    `report` receives the number of the source's entries that the target contains so far.
    """
    if source.open_erasures():
        raise HistoryError(
            "an erasure is not complete; start a server with this store, and copy again when the erasure is complete"
        )
    starts = {writer: _common_seq(source, target, writer) for writer in source.writers()}
    new_erasures = _new_erasures(source.erasures(), target.erasures())
    present, copied = sum(start + 1 for start in starts.values()), 0
    for writer, start in starts.items():
        for batch in _batches(source.chain(writer, start)):
            target.record(writer, batch)
            copied += len(batch)
            report(present + copied)
    if new_erasures:
        for writer, start in starts.items():
            erased = (entry for entry in source.chain(writer) if entry.row is None and entry.seq <= start)
            for batch in _batches(erased):
                target.erase_copies(writer, [entry.seq for entry in batch])
        target.add_erasures(new_erasures)
        target.scrub()
    return StoreCopy(len(starts), copied, present, len(new_erasures))


def _batches(entries: Iterator[SealedEntry]) -> Iterator[list[SealedEntry]]:
    while batch := list(islice(entries, BATCH)):
        yield batch


def _common_seq(source: Store, target: Store, writer: str) -> int:
    """Return the writer's last `seq` that both stores contain, or -1."""
    theirs, own = target.position(writer), source.position(writer)
    if theirs is None or own is None:
        return -1
    seq = min(theirs.seq, own.seq)
    links = [next(store.chain(writer, seq - 1)).link for store in (source, target)]
    if links[0] != links[1]:
        raise HistoryError(
            f"the target's entries from writer {writer} are different, starting at or before entry {seq}; "
            "copy into an empty database"
        )
    return seq


def _new_erasures(own: Sequence[SealedEntry], theirs: Sequence[SealedEntry]) -> Sequence[SealedEntry]:
    """Return the erasures that the target lacks; raise HistoryError if the erasure chains conflict."""
    common = min(len(own), len(theirs))
    if own and theirs and own[common - 1].link != theirs[common - 1].link:
        raise HistoryError(
            "the stores have recorded different erasures, so their erasure chains cannot be joined; "
            "copy into an empty database"
        )
    return own[common:]
