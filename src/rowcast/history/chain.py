"""The history chain: each link covers the previous link, so that changes, removals and insertions are detected.

    row hash = H(salt ‖ row)              remains after the row and the salt are erased, so the chain stays valid
    link     = H(previous ‖ seq ‖ row hash ‖ head)

`head` is the encoded `Entry`: time, bundle digest, reply and caller. `seq` is the position of the entry in the writer's
chain, starting at 0 (eight bytes, big-endian). The link that precedes the first entry is `genesis(writer)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

import msgspec

SALT_BYTES = 16
CHAIN_RULE = b"rc1-"
ERASURES = "erasures"
"""The writer name of the chain that records erasures; its entries never have a row."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The record of one prediction, without its row. Part of the file format: add new fields only at the end."""

    at: int
    """A Unix timestamp in microseconds."""
    digest: str
    source: str
    """The request's dialect."""
    request_id: str
    reply: bytes
    """The prediction, as the JSON text that was sent."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    """The caller's own reference, for example an application number."""
    withheld: tuple[str, ...] = ()
    """The sensitive columns that were hashed or dropped before the row was recorded."""


class Erasure(msgspec.Struct, frozen=True, array_like=True):
    """The head of an entry in the erasure chain. Part of the file format: add new fields only at the end."""

    at: int
    """A Unix timestamp in microseconds."""
    by: str
    reason: str
    """`erase`, `purge` or `retention`."""
    selection: bytes
    """The selection of entries whose rows were erased, as JSON."""
    rows: int
    request: int = 0
    """The number that identifies the erasure request; 0 for retention."""
    signature: bytes = b""
    """The signature (see `signing.py`); empty if an earlier release recorded the erasure."""


class SealedEntry(NamedTuple):
    """One recorded entry. `salt` and `row` are None once the row has been erased."""

    seq: int
    head: bytes
    salt: bytes | None
    row: bytes | None
    row_hash: bytes
    link: bytes


class ChainBreak(NamedTuple):
    """The first invalid entry in a chain, and the reason."""

    writer: str
    seq: int
    reason: str


encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Entry).decode


def decode_head(head: bytes) -> Entry:
    """Decode the head of an entry."""
    return _decode_head(head)


_decode_erasure = msgspec.msgpack.Decoder(Erasure).decode
NO_ROW = sha256(b"").digest()
"""The row hash of an entry that never had a row."""


def decode_erasure(head: bytes) -> Erasure:
    """Decode the head of an erasure."""
    return _decode_erasure(head)


def seal_erasure(seq: int, previous: bytes | None, erasure: Erasure) -> SealedEntry:
    """Return the next entry in the erasure chain; `previous` is the preceding link, or None for the first entry."""
    head = encode_head(erasure)
    linked = link(genesis(ERASURES) if previous is None else previous, seq, head, NO_ROW)
    return SealedEntry(seq, head, None, None, NO_ROW, linked)


def genesis(writer: str) -> bytes:
    """Return the link that precedes a writer's first entry."""
    return sha256(CHAIN_RULE + writer.encode()).digest()


def row_hash(salt: bytes, row: bytes) -> bytes:
    """Return a hash that commits to the row. Once the salt is erased, the hash reveals nothing about the row."""
    return sha256(salt + row).digest()


def link(previous: bytes, seq: int, head: bytes, hashed_row: bytes) -> bytes:
    """Return the link of one entry."""
    return sha256(previous + seq.to_bytes(8) + hashed_row + head).digest()


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An entry before it is sealed."""

    head: bytes
    salt: bytes
    row: bytes


class Chain:
    """Links the entries of one writer in order. Not thread-safe."""

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self.seq = 0
        self.previous = genesis(writer)

    def extend(self, head: bytes, salt: bytes, row: bytes) -> bytes:
        """Append an entry and return its link. Hot path: two hashes per entry."""
        hashed_row = sha256(salt + row).digest()
        self.previous = linked = sha256(self.previous + self.seq.to_bytes(8) + hashed_row + head).digest()
        self.seq += 1
        return linked

    def seal(self, draft: Draft) -> SealedEntry:
        """Append a draft and return it as a sealed entry."""
        seq, hashed_row = self.seq, row_hash(draft.salt, draft.row)
        linked = self.extend(draft.head, draft.salt, draft.row)
        return SealedEntry(seq, draft.head, draft.salt, draft.row, hashed_row, linked)


def verify(writer: str, entries: Iterable[SealedEntry]) -> Iterator[ChainBreak]:
    """Yield the first break in one writer's chain, if any. `entries` must be in order of `seq`."""
    expected = genesis(writer)
    for position, entry in enumerate(entries):
        if entry.seq != position:
            yield ChainBreak(writer, position, f"entry {position} is missing; the next recorded entry is {entry.seq}")
            return
        if entry.row is not None and row_hash(entry.salt or b"", entry.row) != entry.row_hash:
            yield ChainBreak(writer, position, "the stored row is not the row that was scored")
            return
        if link(expected, position, entry.head, entry.row_hash) != entry.link:
            yield ChainBreak(writer, position, "this entry or the previous entry was changed")
            return
        expected = entry.link
