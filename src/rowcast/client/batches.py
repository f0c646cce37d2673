"""Splits many rows into requests that a server accepts. This module does no network IO.

The client does not know the server's limits. It starts with the default limits, and halves any request that the server,
or a proxy in front of the server, rejects as too large.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from rowcast.client.encoding import encode
from rowcast.client.errors import BadCall, ErrorReply

MAX_ROWS: Final = 10_000
MAX_BYTES: Final = 4 * 1024 * 1024
OPENING, CLOSING = b'{"rows":[', b"]}"

T = TypeVar("T")
Row = Mapping[str, Any] | msgspec.Raw
"""A mapping from column names to values, or a JSON object as text. JSON text is sent and recorded unchanged."""


class DataFrame(Protocol):
    """A pandas or polars data frame. The client imports neither library."""

    @property
    def columns(self) -> Any: ...
    @property
    def shape(self) -> Any: ...


Rows = Iterable[Row] | DataFrame


class BatchBody(msgspec.Struct, frozen=True):
    """The body of one request, and the rows that it contains."""

    body: bytes
    rows: range
    is_whole: bool
    """Whether the request contains all rows."""


class Batches(Generic[T]):
    """The requests that send the rows of one call, in order. Rows are read from an iterator only when they are needed.

    The caller sends each request that `next` returns, and calls `split` if the reply is an error.
    """

    def __init__(self, rows: Rows, build: Callable[[BatchBody], T]) -> None:
        self._encoded = _encode_each(rows_of(rows))
        self._build = build
        self._waiting: deque[bytes] = deque()
        self._sent: list[bytes] = []
        self._first = 0
        self._max_rows = MAX_ROWS
        self._max_bytes = MAX_BYTES

    def next(self) -> T | None:
        """Return the next request, or None if all rows have been sent."""
        self._first += len(self._sent)
        self._sent = []
        size = len(OPENING) + len(CLOSING) - 1  # the number of commas is one less than the number of rows
        while (row := self._peek()) is not None and len(self._sent) < self._max_rows:
            size += len(row) + 1
            if self._sent and size > self._max_bytes:
                break
            self._sent.append(self._waiting.popleft())
        if not self._sent:
            return None
        rows = range(self._first, self._first + len(self._sent))
        body = OPENING + b",".join(self._sent) + CLOSING
        return self._build(BatchBody(body, rows, is_whole=not self._first and self._peek() is None))

    def split(self, error: ErrorReply) -> None:
        """Halve the last request if it was too large; otherwise raise the error."""
        if len(self._sent) < 2 or not (error.status == 413 or error.slug == "too-many-rows"):
            raise error
        if error.slug == "too-many-rows":
            self._max_rows = len(self._sent) // 2
        else:
            self._max_bytes = (sum(map(len, self._sent)) + len(self._sent)) // 2
        self._waiting.extendleft(reversed(self._sent))
        self._sent = []

    def _peek(self) -> bytes | None:
        """Return the next row without removing it."""
        if not self._waiting:
            self._waiting.extend(row for row in [next(self._encoded, None)] if row is not None)
        return self._waiting[0] if self._waiting else None


def rows_of(rows: Rows) -> Iterable[Row]:
    """Return the rows of a data frame or of an iterable."""
    if hasattr(rows, "columns") and hasattr(rows, "shape"):
        names = [str(name) for name in rows.columns]
        if len(set(names)) < len(names):
            raise BadCall("several columns of the data frame have the same name; rename them")
        frame: Any = rows
        cells = frame.iter_rows() if hasattr(frame, "iter_rows") else frame.itertuples(index=False, name=None)
        return (dict(zip(names, row, strict=True)) for row in cells)
    if isinstance(rows, Mapping | str | bytes | msgspec.Raw):
        raise BadCall("expected a list of rows or a data frame; use `predict` to send one row")
    return rows


def _encode_each(rows: Iterable[Row]) -> Iterator[bytes]:
    for number, row in enumerate(rows):
        yield encode(row, f"row {number}")
