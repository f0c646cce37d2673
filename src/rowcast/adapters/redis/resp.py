"""RESP2, the protocol of Redis: encodes commands and parses replies. This module does no IO."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

Word: TypeAlias = "str | bytes | int"
"""One word of a command."""


class RedisError(Exception):
    """Redis, or the connection to it, has failed."""


class ConnectionLost(RedisError):
    """The connection was closed before the reply arrived, or could not be opened."""


class AuthenticationError(RedisError):
    """Redis rejects the user name or the password."""


class ReplyError(RedisError):
    """Redis has replied with an error."""

    @property
    def code(self) -> str:
        """The first word of the error, such as NOSCRIPT."""
        return str(self).partition(" ")[0]


class _IncompleteError(Exception):
    """The rest of the reply has not arrived yet."""


def encode_command(words: Sequence[Word]) -> bytes:
    """Encode a command. Hot path of servers and workers with a queue."""
    pieces = [b"*%d\r\n" % len(words)]
    for word in words:
        value = word if isinstance(word, bytes) else str(word).encode()
        pieces.append(b"$%d\r\n%b\r\n" % (len(value), value))
    return b"".join(pieces)


class ReplyParser:
    """Parses a stream of replies. An error is returned as a ReplyError, also within a list of replies."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Any]:
        """Return the replies that are complete; raise RedisError if the data is not RESP2. Hot path."""
        if self._rest:
            data = self._rest + data
        replies: list[Any] = []
        position = 0
        try:
            while position < len(data):
                reply, position = _parse(data, position)
                replies.append(reply)
        except _IncompleteError:
            pass
        self._rest = data[position:]
        return replies


def _parse(data: bytes, start: int) -> tuple[Any, int]:
    """Return the reply that starts at this position, and the position after it."""
    end = data.find(b"\r\n", start)
    if end < 0:
        raise _IncompleteError
    kind, position = data[start], end + 2
    if kind == 43:  # +: a short text
        return data[start + 1 : end], position
    if kind == 45:  # -: an error
        return ReplyError(data[start + 1 : end].decode(errors="replace")), position
    try:
        number = int(data[start + 1 : end])
    except ValueError:
        raise RedisError("the server does not speak the protocol of Redis") from None
    if kind == 36:  # $: bytes of this length, or nothing if the length is negative
        return (None, position) if number < 0 else _parse_bytes(data, position, position + number)
    if kind == 42:  # *: a list of this length
        if number < 0:
            return None, position
        items: list[Any] = []
        for _ in range(number):
            item, position = _parse(data, position)
            items.append(item)
        return items, position
    if kind == 58:  # :: a number
        return number, position
    raise RedisError("the server does not speak the protocol of Redis")


def _parse_bytes(data: bytes, start: int, end: int) -> tuple[bytes, int]:
    if len(data) < end + 2:
        raise _IncompleteError
    return data[start:end], end + 2


def parse_info(text: bytes) -> dict[str, str]:
    """Return the fields of the reply to INFO."""
    lines = (line.partition(":") for line in text.decode(errors="replace").splitlines() if not line.startswith("#"))
    return {name: value for name, colon, value in lines if colon}


def parse_entries(entries: Sequence[Any] | None) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Return the id and the fields of each entry of a stream."""
    return [(entry, dict(zip(fields[::2], fields[1::2], strict=True))) for entry, fields in entries or ()]
