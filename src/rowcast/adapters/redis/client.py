"""The connections of this process to one Redis server.

Commands share a connection: they are sent at once, without waiting for the replies to earlier commands. A command that
blocks until there is data uses another connection. Time limits are the caller's (`link.py`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

from rowcast.adapters.redis.address import Address
from rowcast.adapters.redis.resp import (
    ConnectionLost,
    RedisError,
    ReplyError,
    ReplyParser,
    Word,
    encode_command,
)


class RedisConnection(asyncio.Protocol):
    """One connection. Replies arrive in the order of the commands."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = ReplyParser()
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._transport: asyncio.Transport | None = None
        self._reason = "Redis has closed the connection"

    @property
    def is_open(self) -> bool:
        """Whether commands can be sent."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Use the transport."""
        self._transport = cast("asyncio.Transport", transport)

    def send(self, commands: Sequence[Sequence[Word]]) -> list[asyncio.Future[Any]]:
        """Send commands at once; each future returns a reply, or raises a ReplyError or ConnectionLost. Hot path."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionLost(self._reason)
        replies = [self._loop.create_future() for _ in commands]
        self._waiting.extend(replies)
        self._transport.write(b"".join([encode_command(words) for words in commands]))
        return replies

    def data_received(self, data: bytes) -> None:
        """Deliver the replies. Hot path."""
        try:
            replies = self._parser.feed(data)
            for reply in replies:
                waiting = self._waiting.popleft()
                if waiting.done():
                    continue  # the caller no longer waits
                if isinstance(reply, ReplyError):
                    waiting.set_exception(reply)
                else:
                    waiting.set_result(reply)
        except (RedisError, IndexError) as error:
            self.close(f"a reply cannot be read: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the commands whose replies have not arrived."""
        self._transport = None
        reason = f"the connection was lost: {error}" if error is not None else self._reason
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_exception(ConnectionLost(reason))
                waiting.exception()  # asyncio would log an exception that was never retrieved

    def close(self, reason: str = "the connection is closed") -> None:
        """Close the connection without waiting for replies."""
        self._reason = reason
        if self._transport is not None:
            self._transport.abort()


class RedisClient:
    """Opens connections when they are needed, and replaces connections that the server has closed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._shared: RedisConnection | None = None
        self._opening: asyncio.Lock = asyncio.Lock()
        self._idle: list[RedisConnection] = []
        """The connections for commands that block; none of them is in use."""
        self._open: set[RedisConnection] = set()
        self._is_closed = False

    async def execute(self, *words: Word) -> Any:
        """Return the reply to a command; raise RedisError or OSError if it fails. Hot path."""
        connection = self._shared
        if connection is None or not connection.is_open:
            connection = await self._share()
        (reply,) = connection.send((words,))
        return await reply

    async def execute_all(self, commands: Sequence[Sequence[Word]]) -> list[Any]:
        """Send commands together, and return their replies. A ReplyError is returned, not raised."""
        replies = (await self._share()).send(commands)
        return [_unless_lost(result) for result in await asyncio.gather(*replies, return_exceptions=True)]

    async def execute_atomically(self, *commands: Sequence[Word]) -> list[Any]:
        """Execute commands in a transaction, and return their replies; raise ReplyError if one of them fails."""
        replies = await self.execute_all([("MULTI",), *commands, ("EXEC",)])
        results = replies[-1]
        for reply in (results, *(results if isinstance(results, list) else ())):
            if isinstance(reply, ReplyError):
                raise reply
        return list(results)

    async def wait(self, *words: Word) -> Any:
        """Return the reply to a command that blocks until there is data."""
        connection = self._take_idle() or await self._connect()
        try:
            (reply,) = connection.send((words,))
            result = await reply
        except ReplyError:
            self._idle.append(connection)
            raise
        except BaseException:  # a late reply must not be taken for the reply to another command
            connection.close()
            self._open.discard(connection)
            raise
        self._idle.append(connection)
        return result

    def close(self) -> None:
        """Close all connections without waiting for replies."""
        self._is_closed = True
        for connection in self._open:
            connection.close()

    def _take_idle(self) -> RedisConnection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return connection
            self._open.discard(connection)
        return None

    async def _share(self) -> RedisConnection:
        """Return the shared connection; open it if necessary."""
        async with self._opening:
            if self._shared is None or not self._shared.is_open:
                if self._shared is not None:
                    self._open.discard(self._shared)
                self._shared = await self._connect()
            return self._shared

    async def _connect(self) -> RedisConnection:
        address, loop = self._address, asyncio.get_running_loop()
        try:
            if address.path:
                _, connection = await loop.create_unix_connection(RedisConnection, address.path)
            else:
                _, connection = await loop.create_connection(
                    RedisConnection, address.host, address.port, ssl=address.tls, server_hostname=address.server_name
                )
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {address.place}: {error.strerror or error}") from None
        try:
            if self._is_closed:
                raise ConnectionLost("the connection is closed")
            await _greet(connection, address)
        except BaseException:
            connection.close()
            raise
        self._open.add(connection)
        return connection


async def _greet(connection: RedisConnection, address: Address) -> None:
    """Log in and select the database."""
    for words in address.greeting():
        (reply,) = connection.send((words,))
        try:
            await reply
        except ReplyError as error:
            raise address.refusal(words, error) from None


def _unless_lost(result: Any) -> Any:
    """Return a reply or a ReplyError; raise any other exception."""
    if isinstance(result, BaseException) and not isinstance(result, ReplyError):
        raise result
    return result
