"""The heads of earlier requests. Most clients send the same head in every request, so it is parsed only once."""

from __future__ import annotations

from typing import NamedTuple

MAX_HEADS = 1024
MAX_HEAD_BYTES = 1024
END = b"\r\n\r\n"


class KnownHead(NamedTuple):
    """The parsed head of a plain prediction request."""

    path: str
    query: bytes
    headers: dict[bytes, bytes]
    body_bytes: int


class KnownHeads:
    """Maps the exact bytes of a head to its parsed form."""

    def __init__(self) -> None:
        self._heads: dict[bytes, KnownHead] = {}

    def find(self, data: bytes) -> KnownHead | None:
        """Return the head if `data` is one complete request with a known head. Hot path."""
        end = data.find(END) + len(END)
        head = self._heads.get(data[:end])
        return head if head is not None and len(data) - end == head.body_bytes else None

    def add(self, data: bytes, url: bytes, headers: dict[bytes, bytes], body_bytes: int) -> None:
        """Store the head of a request if `data` is the whole request and the client may send this head again."""
        end = data.find(END) + len(END)
        if len(data) - end != body_bytes or end > MAX_HEAD_BYTES or b"x-request-id" in headers:
            return
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        path, _, query = url.partition(b"?")
        self._heads[data[:end]] = KnownHead(path.decode("latin-1"), query, headers, body_bytes)
