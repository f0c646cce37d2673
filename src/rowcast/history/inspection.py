"""The state of a store: its schema, its tables and a sample of its chains."""

from __future__ import annotations

from itertools import pairwise

import msgspec

from rowcast.history.chain import link, row_hash
from rowcast.history.ports import StoreReader

WRITERS, ENTRIES = 100, 200
"""The number of writers that a spot check covers, and the number of entries that it reads per writer."""


class SchemaState(msgspec.Struct, frozen=True):
    """The schema version and the state of a store's tables, as reported by the store's adapter."""

    schema: int
    """The store's schema version; 0 if the store does not exist yet."""
    newest: int
    """The newest schema version that this release supports."""
    partitions: list[str]
    problems: list[str]


class StoreState(SchemaState, frozen=True):
    """The state of a store."""

    location: str
    writers: int
    entries: int
    """The number of entries in the spot check."""


def spot_check(store: StoreReader) -> tuple[int, int, list[str]]:
    """Verify the newest entries of some writers; return how many writers and entries were checked, and the problems."""
    problems: list[str] = []
    count, writers = 0, store.writers()[:WRITERS]
    for writer in writers:
        position = store.position(writer)
        assert position is not None
        entries = list(store.chain(writer, max(-1, position.seq - ENTRIES)))
        count += len(entries)
        for before, entry in pairwise(entries):
            is_linked = entry.seq == before.seq + 1 and entry.link == link(
                before.link, entry.seq, entry.head, entry.row_hash
            )
            if not is_linked or (entry.row is not None and row_hash(entry.salt or b"", entry.row) != entry.row_hash):
                problems.append(f"the chain of writer {writer} is broken at entry {entry.seq}; run `rowcast verify`")
                break
    return len(writers), count, problems
