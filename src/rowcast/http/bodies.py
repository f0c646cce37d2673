"""Handle optional request headers: the content encoding, timeout, trace context and request id."""

from __future__ import annotations

import itertools
import math
import os
import re
import zlib
from collections.abc import Mapping

from rowcast.errors import BodyError, RequestError

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}").fullmatch
MAX_TIMEOUT_SECONDS = 3600.0
WINDOW_BITS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
"""The `wbits` argument of zlib for each content encoding. In HTTP, `deflate` means the zlib format (RFC 9110)."""
_match_traceparent = re.compile(rb"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})").fullmatch
_match_seconds = re.compile(rb"[0-9]{1,6}(\.[0-9]{1,9})?").fullmatch


def decompress(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """Return the decompressed body; raise BodyError as soon as its size exceeds `max_bytes`."""
    coding = encoding.strip().lower()
    if coding in (b"", b"identity"):
        return body
    if coding not in WINDOW_BITS:
        shown = coding.decode("latin-1")[:40]
        raise RequestError(
            f"unsupported content encoding {shown!r}; use gzip or deflate, or send the body uncompressed",
            slug="unsupported-encoding",
        )
    decompressor = zlib.decompressobj(WINDOW_BITS[coding])
    try:
        plain = decompressor.decompress(body, max_bytes + 1)
    except zlib.error:
        raise BodyError(f"the body is not valid {coding.decode()} data") from None
    if len(plain) > max_bytes:
        raise BodyError(
            f"the decompressed body is larger than {max_bytes} bytes; send fewer rows", slug="body-too-large"
        )
    if not decompressor.eof or decompressor.unused_data:
        raise BodyError(f"the body must be exactly one complete {coding.decode()} stream")
    return plain


def deadline(timeout: bytes, started: float) -> float:
    """Return the time at which a request's `X-Request-Timeout` expires; raise RequestError if the header is invalid."""
    seconds = float(timeout) if _match_seconds(timeout) else math.nan
    if not 0 < seconds <= MAX_TIMEOUT_SECONDS:
        raise RequestError(
            "X-Request-Timeout must be a number of seconds greater than 0 and at most 3600", slug="bad-option"
        )
    return started + seconds


def trace_id(traceparent: bytes) -> str:
    """Return the trace id of a `traceparent` header, or an empty string if the header is invalid."""
    match = _match_traceparent(traceparent)
    return "" if match is None or not match[1].strip(b"0") or not match[2].strip(b"0") else match[1].decode()


def child_traceparent(traceparent: bytes) -> bytes:
    """Return the `traceparent` of a new span in the client's trace, or in a new trace if the header is invalid."""
    match = _match_traceparent(traceparent)
    if match is None or not trace_id(traceparent):
        return b"00-%s-%s-01" % (os.urandom(16).hex().encode(), os.urandom(8).hex().encode())
    return b"00-%s-%s-%s" % (match[1], os.urandom(8).hex().encode(), match[3])


class RequestIds:
    """Generates the request ids of one process. `prefix` distinguishes them from the ids of other processes."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._numbers = itertools.count()

    def id_of(self, headers: Mapping[bytes, bytes]) -> str:
        """Return the client's request id if it is valid, otherwise a new id. Hot path."""
        sent = headers.get(b"x-request-id")
        if sent is not None and REQUEST_ID(sent):
            return sent.decode()
        return f"{self._prefix}-{next(self._numbers):x}"
