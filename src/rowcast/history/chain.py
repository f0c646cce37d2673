"""The history chain: each entry's hash covers the one before it, so nothing can be changed, dropped or added unseen.

    row hash = H(salt ‖ row)              erasing row and salt keeps the hash, and with it the chain
    link     = H(previous ‖ seq ‖ row hash ‖ head)

`head` is the encoded `Entry`: time, bundle digest, reply and who asked. `seq` counts a writer's entries from 0, eight
bytes, big-endian; its first entry links to `genesis(writer)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import NamedTuple

import msgspec

SALT_BYTES = 16
CHAIN_RULE = b"rc1-"
ERASURES = "erasures"
"""The writer of the chain in which erasures are recorded; its entries never have a row."""


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What history says about one prediction, without the row. Fields are only ever appended."""

    at: int
    """UTC microseconds."""
    digest: str
    source: str
    """Dialect or job that asked."""
    request_id: str
    reply: bytes
    """The prediction as it was sent, JSON."""
    key_id: str = ""
    tenant: str = ""
    entity: str = ""
    """The caller's own reference, such as an application number."""
    withheld: tuple[str, ...] = ()
    """Sensitive columns of the row that were hashed or dropped before it was kept."""


class Erasure(msgspec.Struct, frozen=True, array_like=True):
    """That rows were erased: the head of an entry in the chain of erasures. Fields are only ever appended."""

    at: int
    """UTC microseconds."""
    by: str
    reason: str
    """`erase`, `purge` or `retention`."""
    wanted: bytes
    """The selection, JSON."""
    rows: int
    request: int = 0
    """All transactions of one request have its number; those of retention have none."""


class Sealed(NamedTuple):
    """One entry as it is kept: encoded head, the row as received with its salt (both gone after erasure), the link."""

    seq: int
    head: bytes
    salt: bytes | None
    row: bytes | None
    row_hash: bytes
    link: bytes


class Broken(NamedTuple):
    """The first entry of a writer that does not verify, and why."""

    writer: str
    seq: int
    reason: str


encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(Entry).decode


def decode_head(head: bytes) -> Entry:
    """The entry of an encoded head."""
    return _decode_head(head)


_decode_erasure = msgspec.msgpack.Decoder(Erasure).decode
NO_ROW = sha256(b"").digest()
"""The row hash of an entry that never has a row."""


def decode_erasure(head: bytes) -> Erasure:
    """The erasure of an encoded head."""
    return _decode_erasure(head)


def sealed_erasure(seq: int, previous: bytes | None, erasure: Erasure) -> Sealed:
    """The next entry of the chain of erasures, behind the link `previous`."""
    head = encode_head(erasure)
    linked = link(genesis(ERASURES) if previous is None else previous, seq, head, NO_ROW)
    return Sealed(seq, head, None, None, NO_ROW, linked)


def genesis(writer: str) -> bytes:
    """What a writer's first entry links to."""
    return sha256(CHAIN_RULE + writer.encode()).digest()


def row_hash(salt: bytes, row: bytes) -> bytes:
    """A commitment to the row that reveals nothing once row and salt are gone."""
    return sha256(salt + row).digest()


def link(previous: bytes, seq: int, head: bytes, hashed_row: bytes) -> bytes:
    """The hash of one entry."""
    return sha256(previous + seq.to_bytes(8) + hashed_row + head).digest()


class Draft(msgspec.Struct, frozen=True, gc=False):
    """An entry before it is sealed."""

    head: bytes
    salt: bytes
    row: bytes


class Chain:
    """Links one writer's entries in order. Not thread-safe: a chain belongs to one writer."""

    def __init__(self, writer: str) -> None:
        self.writer = writer
        self.seq = 0
        self.previous = genesis(writer)

    def extend(self, head: bytes, salt: bytes, row: bytes) -> bytes:
        """The link of the next entry. HOT: two hashes an entry."""
        hashed_row = sha256(salt + row).digest()
        self.previous = linked = sha256(self.previous + self.seq.to_bytes(8) + hashed_row + head).digest()
        self.seq += 1
        return linked


def verify(writer: str, entries: Iterable[Sealed], previous: bytes | None = None, first: int = 0) -> Iterator[Broken]:
    """Yield the first break of one writer's chain, or nothing; `entries` come in order of `seq`."""
    expected = genesis(writer) if previous is None else previous
    for position, entry in enumerate(entries, first):
        if entry.seq != position:
            yield Broken(writer, position, f"entry {position} is missing; the next one kept is {entry.seq}")
            return
        if entry.row is not None and entry.salt is not None and row_hash(entry.salt, entry.row) != entry.row_hash:
            yield Broken(writer, position, "the stored row is not the row that was scored")
            return
        if link(expected, position, entry.head, entry.row_hash) != entry.link:
            yield Broken(writer, position, "the entry or the one before it was changed")
            return
        expected = entry.link
