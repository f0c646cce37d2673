"""Signatures made with a key that is not in the store. Forging them requires more than write access to the store."""

from __future__ import annotations

import hmac
from hashlib import sha256

import msgspec

from rowcast.history.chain import ERASURES, Erasure, SealedEntry, encode_head, genesis, seal_erasure
from rowcast.history.heads import ChainHead
from rowcast.history.ports import Position

HEAD_RULE, ERASURE_RULE = b"rowcast-head-1\0", b"rowcast-erasure-1\0"


def sign_head(head: ChainHead, key: bytes) -> ChainHead:
    """Return the head with its signature."""
    return msgspec.structs.replace(head, signature=_head_signature(head, key))


def has_valid_signature(head: ChainHead, key: bytes) -> bool:
    """Return whether the head was signed with this key."""
    return hmac.compare_digest(head.signature, _head_signature(head, key))


def _head_signature(head: ChainHead, key: bytes) -> str:
    content = msgspec.json.encode([head.writer, head.seq, head.link])
    return hmac.digest(key, HEAD_RULE + content, sha256).hex()


def sign_erasure(erasure: Erasure, *, seq: int, previous: bytes | None, key: bytes) -> Erasure:
    """Return the erasure with its signature, which also covers its position in the chain."""
    return msgspec.structs.replace(erasure, signature=_erasure_signature(erasure, seq, previous, key))


def seal_next_erasure(last: Position | None, erasure: Erasure, key: bytes | None) -> SealedEntry:
    """Return the entry that follows `last` in the erasure chain. If `key` is None, the entry is not signed."""
    seq, previous = (0, None) if last is None else (last.seq + 1, last.link)
    if key is not None:
        erasure = sign_erasure(erasure, seq=seq, previous=previous, key=key)
    return seal_erasure(seq, previous, erasure)


def is_signed_erasure(erasure: Erasure, *, seq: int, previous: bytes | None, key: bytes) -> bool:
    """Return whether the erasure was signed with this key for this position in the chain."""
    return hmac.compare_digest(erasure.signature, _erasure_signature(erasure, seq, previous, key))


def _erasure_signature(erasure: Erasure, seq: int, previous: bytes | None, key: bytes) -> bytes:
    content = encode_head(msgspec.structs.replace(erasure, signature=b""))
    position = seq.to_bytes(8) + (genesis(ERASURES) if previous is None else previous)
    return hmac.digest(key, ERASURE_RULE + position + content, sha256)
