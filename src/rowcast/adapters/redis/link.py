"""A connection to Redis that delays a request by at most a fixed time.

Each call has a time limit. The first failed call opens a circuit breaker: until Redis responds to a background probe,
calls return immediately. Nothing in this module raises an exception to a request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import structlog

from rowcast.adapters.redis.address import parse_address
from rowcast.adapters.redis.client import RedisClient
from rowcast.adapters.redis.resp import AuthenticationError, RedisError, ReplyError
from rowcast.events import Listener, RedisFailed, RedisFailure, RedisSwitched, RedisUse

T = TypeVar("T")

CONNECT_SECONDS: Final = 1.0
"""The minimum time limit for connecting. Requests do not wait for a connection."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0
"""The pauses between probes, in seconds. Each pause is twice as long as the previous one."""
STABLE_SECONDS: Final = 10.0
"""If Redis fails again within this time after a successful probe, the pauses keep growing."""
GRACE_TURNS: Final = 8
"""How many more iterations of the event loop to wait for a reply after the time limit. If the event loop was busy, a
reply that arrived in time may not have been read yet.
"""

log = structlog.get_logger("rowcast.redis")


class RedisLink:
    """The connection to Redis for one purpose, such as the cache. It starts and stops with the server.

    `verify` prepares the Redis server for this purpose, or raises an exception if the server cannot be used. `fallback`
    describes what happens without Redis.
    """

    def __init__(
        self,
        url: str,
        use: RedisUse,
        *,
        seconds: float,
        verify: Callable[[RedisClient], Awaitable[None]],
        fallback: str,
        listen: Listener,
    ) -> None:
        self.seconds = seconds
        """The time limit for a call."""
        self._url = url
        self._use: RedisUse = use
        self._verify = verify
        self._fallback = fallback
        self._listen = listen
        self._client: RedisClient | None = None
        self._reason = "this process has not connected to Redis yet"
        self._pause = FIRST_PAUSE
        self._connected_at = 0.0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._twin: RedisLink | None = None
        self._context = Context()  # an empty context, so that log lines do not contain the ids of an unrelated request

    @property
    def is_available(self) -> bool:
        """Whether calls are sent to Redis."""
        return self._client is not None

    def share_outages(self, twin: RedisLink) -> None:
        """Share outages with another connection to the same server: if either fails, both are treated as unavailable.

        A request that uses both connections therefore waits only once.
        """
        self._twin, twin._twin = twin, self

    def problem(self) -> str | None:
        """Return why Redis is not in use, or None if it is in use."""
        return None if self._client is not None else f"{self._reason}; {self._fallback}"

    async def start(self) -> None:
        """Connect. If Redis cannot be used, try again in the background."""
        failure = await self._connect()
        if failure:
            self._report(failure)
            self.run(self._reconnect())

    async def stop(self) -> None:
        """Close the connections without waiting for replies."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def call(self, command: Callable[[RedisClient], Awaitable[T]], *, blocks: float = 0.0) -> T | None:
        """Return the result of a command, or None if Redis fails, is too slow or is not available.

        `blocks` is the time for which the command itself waits for data, in seconds.
        """
        client = self._client
        if client is None:
            return None
        task = self.run(_await(command(client)))
        await asyncio.wait((task,), timeout=self.seconds + blocks)
        for _ in range(GRACE_TURNS):
            if not task.done():
                await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            self._fail(client, "timeout", f"no reply within {(self.seconds + blocks) * 1000:g} ms")
            return None
        if task.cancelled():  # by `stop`
            return None
        error = task.exception()
        if error is not None:
            self._fail(client, failure_kind(error), self._describe(error))
            return None
        return task.result()

    def report_failure(self, kind: RedisFailure) -> None:
        """Count a failure that does not prevent the use of Redis."""
        self._listen(RedisFailed(self._use, kind))

    def run(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a task that ends when the server stops."""
        task = asyncio.get_running_loop().create_task(work, context=self._context)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # asyncio would log an exception that was never retrieved

    def _fail(self, client: RedisClient, kind: RedisFailure, reason: str) -> None:
        """Open the breaker, unless another call has already opened it."""
        self._listen(RedisFailed(self._use, kind))
        if client is self._client:
            self._open(client, reason)
            if self._twin is not None and self._twin._client is not None and kind != "reply":
                self._twin._open(self._twin._client, reason)

    def _open(self, client: RedisClient, reason: str) -> None:
        self._client = None
        client.close()  # a connection whose reply is late must not be used again
        if asyncio.get_running_loop().time() - self._connected_at > STABLE_SECONDS:
            self._pause = FIRST_PAUSE
        self._report(reason)
        self.run(self._reconnect())

    def _report(self, reason: str) -> None:
        self._reason = f"Redis cannot be used: {reason}"
        self._listen(RedisSwitched(self._use, is_available=False))
        log.warning("Redis cannot be used", use=self._use, reason=reason, consequence=self._fallback)

    async def _reconnect(self) -> None:
        """Probe Redis until it can be used."""
        while True:
            await asyncio.sleep(self._pause)
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            failure = await self._connect()
            if not failure:
                log.info("Redis is in use again", use=self._use)
                return
            self._reason = f"Redis cannot be used: {failure}"

    async def _connect(self) -> str:
        """Connect and use this connection if Redis responds in time; otherwise, return the reason."""
        limit = max(CONNECT_SECONDS, self.seconds)
        client: RedisClient | None = None
        try:
            client = RedisClient(parse_address(self._url))
            async with asyncio.timeout(limit):
                await self._verify(client)
            limit = self.seconds
            async with asyncio.timeout(limit):
                await client.execute("PING")
            self._client = client
        except TimeoutError:
            return f"no reply within {limit * 1000:g} ms"
        except Exception as error:
            return self._describe(error)
        finally:
            if client is not None and self._client is not client:
                client.close()
        self._connected_at = asyncio.get_running_loop().time()
        self._listen(RedisSwitched(self._use, is_available=True))
        return ""

    def _describe(self, error: BaseException) -> str:
        return describe(error, self._url)


def describe(error: BaseException, url: str) -> str:
    """Describe a failure on a single line, without the password in the URL."""
    if isinstance(error, AuthenticationError) or (isinstance(error, ReplyError) and error.code == "NOAUTH"):
        return "Redis rejects the user name or password"
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, ReplyError) and error.code == "NOPERM":
        text = f"the Redis user lacks a permission: {text}"
    password = urlsplit(url).password
    if password:
        text = text.replace(unquote(password), "(hidden)").replace(password, "(hidden)")
    return text


def failure_kind(error: BaseException) -> RedisFailure:
    """Return the kind of failure, for metrics."""
    if isinstance(error, TimeoutError):
        return "timeout"
    if isinstance(error, ReplyError):
        return "reply"
    return "connection" if isinstance(error, RedisError | OSError) else "reply"


async def _await(result: Awaitable[T]) -> T:
    return await result
