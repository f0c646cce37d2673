"""A connection to Redis for commands and for checks before the event loop runs. Each call blocks its thread."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rowcast.adapters.redis.address import parse_address
from rowcast.adapters.redis.resp import (
    ConnectionLost,
    ReplyError,
    ReplyParser,
    Word,
    encode_command,
)

BLOCK_BYTES = 65536


class BlockingClient:
    """Executes one command after another."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parser = ReplyParser()

    def execute(self, *words: Word) -> Any:
        """Return the reply to a command; raise RedisError or OSError if it fails."""
        self._connection.sendall(encode_command(words))
        replies: Sequence[Any] = ()
        while not replies:
            data = self._connection.recv(BLOCK_BYTES)
            if not data:
                raise ConnectionLost("Redis has closed the connection")
            replies = self._parser.feed(data)
        if isinstance(replies[0], ReplyError):
            raise replies[0]
        return replies[0]


@contextmanager
def connected(url: str, seconds: float) -> Iterator[BlockingClient]:
    """Connect to the server at a URL during a `with` block; `seconds` limits each wait for the server."""
    address = parse_address(url)
    try:
        connection = _open(address.path or (address.host, address.port), seconds)
    except OSError as error:
        raise ConnectionLost(f"cannot connect to {address.place}: {error.strerror or error}") from None
    with connection:
        if address.tls is not None:
            connection = address.tls.wrap_socket(connection, server_hostname=address.server_name)
        with connection:
            client = BlockingClient(connection)
            for words in address.greeting():
                try:
                    client.execute(*words)
                except ReplyError as error:
                    raise address.refusal(words, error) from None
            yield client


def _open(place: str | tuple[str, int], seconds: float) -> socket.socket:
    if not isinstance(place, str):
        return socket.create_connection(place, seconds)
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(seconds)
    try:
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection
