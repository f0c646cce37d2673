"""Request headers that few requests carry: content encodings, deadlines, trace contexts, request ids."""

from __future__ import annotations

import itertools
import math
import os
import re
import zlib
from collections.abc import Mapping

from rowcast.errors import BodyError, RequestError

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
LONGEST_TIMEOUT = 3600.0
ENCODINGS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""Coding to zlib's window bits: `deflate` means the zlib format (RFC 9110)."""
_traceparent = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
_seconds = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,9})?").fullmatch


def unpacked(body: bytes, encoding: bytes, most: int) -> bytes:
    """The body without its content coding; refused as soon as it grows beyond `most` bytes."""
    coding = encoding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding not in ENCODINGS:
        shown = coding.decode("latin-1")[:40]
        raise RequestError(
            f"the content encoding is {shown!r}; send gzip, deflate or none", slug="unsupported-encoding"
        )
    unpacker = zlib.decompressobj(ENCODINGS[coding])
    try:
        plain = unpacker.decompress(body, most + 1)
    except zlib.error:
        raise BodyError(f"the body is not {coding.decode()} data") from None
    if len(plain) > most:
        raise BodyError(f"the body is larger than {most} bytes when unpacked; send fewer rows", slug="body-too-large")
    if not unpacker.eof or unpacker.unused_data:
        raise BodyError(f"the body is not one whole piece of {coding.decode()} data")
    return plain


def deadline(given: bytes, started: float) -> float:
    """The moment after which the caller of `X-Request-Timeout` waits no longer."""
    seconds = float(given) if _seconds(given) else math.nan
    if not 0 < seconds <= LONGEST_TIMEOUT:
        raise RequestError("X-Request-Timeout must be seconds, above 0 and at most 3600", slug="bad-option")
    return started + seconds


def trace_id(given: bytes) -> str:
    """The trace that a `traceparent` names; empty when it is none."""
    found = _traceparent(given)
    return "" if found is None or not int(found[1], 16) or not int(found[2], 16) else found[1].decode()


def traced(given: bytes) -> bytes:
    """The `traceparent` of our own part: the caller's trace, or a new one when what it sent is invalid."""
    found = _traceparent(given)
    if found is None or not trace_id(given):
        return b"00-%s-%s-01" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())
    return b"00-%s-%s-%s" % (found[1], os.urandom(8).hex().encode(), found[3])


class RequestIds:
    """Ids for the requests of one process; `prefix` keeps them apart from the ids of other processes."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._numbers = itertools.count()

    def id_of(self, headers: Mapping[bytes, bytes]) -> str:
        """Return the client's id for this request if it is valid, else a new one. HOT"""
        sent = headers.get(b"x-request-id")
        if sent is not None and REQUEST_ID(sent):
            return sent.decode()
        return f"{self._prefix}-{next(self._numbers):x}"
