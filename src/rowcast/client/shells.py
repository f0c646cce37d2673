"""The two clients: the same calls, one waits and one awaits. What is decided is decided in `exchange` and `calls`."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar, Unpack, cast, overload

import httpx
import msgspec

from rowcast.client import calls
from rowcast.client.calls import Address, Answering, Asked, Call, Download, Format, Options, Row
from rowcast.client.errors import BadCall
from rowcast.client.exchange import Flow, Lost, Policy, Reply, Request, Send, Wait, exchange
from rowcast.client.replies import Entry, Health, Model, Prediction, Reload, RowRefused
from rowcast.version import VERSION

T = TypeVar("T")
CONNECT_SECONDS = 5.0
POOL = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=60.0)


class Chances(NamedTuple):
    """What a client takes from the world: time, chance and new keys."""

    clock: Callable[[], float] = time.monotonic
    random: Callable[[], float] = random.random
    new_key: Callable[[], str] = lambda: uuid.uuid4().hex


class _Shell:
    """What both clients are made of."""

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout: float,
        retries: int,
        headers: Mapping[str, str] | None,
        chances: Chances,
    ) -> None:
        if not (timeout > 0 and math.isfinite(timeout)):
            raise BadCall("timeout must be seconds above 0")
        if retries < 0:
            raise BadCall("retries must be 0 or more")
        if api_key is not None and not calls.HEADER(api_key):
            raise BadCall("the API key holds a character that no key has; was it cut or wrapped?")
        self._address = Address.read(url)
        self._policy = Policy(timeout, retries)
        self._chances = chances
        self._answering = Answering(chances.new_key, retries=retries)
        own = {"user-agent": f"rowcast/{VERSION}", "accept": "application/json, */*;q=0.5", **(headers or {})}
        self._headers = {**own, **({"x-api-key": api_key} if api_key is not None else {})}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address.shown!r})"

    def _flow(self, request: Request, timeout: float | None) -> Flow:
        policy = self._policy if timeout is None else msgspec.structs.replace(self._policy, timeout=timeout)
        return exchange(request, policy, self._address.shown, self._chances.clock, self._chances.random)

    def _options(self) -> dict[str, Any]:
        # A proxy cannot reach what only this machine can.
        return {"headers": self._headers, "limits": POOL, "trust_env": not self._address.local}

    def _http(self, send: Send) -> dict[str, Any]:
        request = send.request
        return {
            "method": request.method,
            "url": self._address.base + request.path,
            "params": list(request.query) or None,
            "headers": dict(request.headers),
            "content": request.body,
            "timeout": httpx.Timeout(send.seconds, connect=min(send.seconds, CONNECT_SECONDS)),
        }


class Client(_Shell):
    """Asks a Rowcast server. Safe to share between threads; use it in a `with` block, or close it.

    `timeout` is for a whole call with all its retries, in seconds. Predictions are sent again after a failure because
    each call carries an Idempotency-Key of its own: whatever happens on the way, it is answered with one entry.
    `retries=0` sends once and without such a key.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
        chances: Chances = Chances(),  # noqa: B008 - a value that never changes
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(url, api_key, timeout, retries, headers, chances)
        self._sleep = sleep
        self._client = httpx.Client(transport=transport, **self._options())

    def predict(self, row: Row, model: str | None = None, **options: Unpack[Options]) -> Prediction:
        """The prediction for one row; RowsRefused says what does not fit. `model=None` is the server's default."""
        asked = Asked(**options)
        return self._do(self._answering.predict(row, model, asked), asked.timeout)

    @overload
    def predict_many(
        self,
        rows: Iterable[Row],
        model: str | None = None,
        *,
        partial: Literal[False] = False,
        **options: Unpack[Options],
    ) -> list[Prediction]: ...
    @overload
    def predict_many(
        self, rows: Iterable[Row], model: str | None = None, *, partial: bool, **options: Unpack[Options]
    ) -> list[Prediction | RowRefused]: ...
    def predict_many(
        self, rows: Iterable[Row], model: str | None = None, *, partial: bool = False, **options: Unpack[Options]
    ) -> Any:
        """Predictions in the order of the rows, all or none; with `partial` a RowRefused stands for each that does not
        fit. One request: a server takes 10,000 rows unless it was told otherwise."""
        asked = Asked(**options)
        return self._do(self._answering.predict_many(rows, model, partial, asked), asked.timeout)

    def models(self) -> list[Model]:
        """Every model that the key may use."""
        return self._do(calls.models())

    def model(self, name: str | None = None) -> Model:
        """One model with its schema; asked again it is only sent when it changed. None is the default one."""
        return self._do(self._answering.model(name))

    def sample(self) -> dict[str, Any]:
        """A row that the default model takes."""
        return self._do(calls.sample())

    def reload(self, *, timeout: float = 60.0) -> Reload:
        """Have the server follow its registry now; each worker's state."""
        return self._do(calls.reload(), timeout)

    def health(self) -> Health:
        """Every part and every worker, with what is wrong."""
        return self._do(calls.health())

    def ready(self) -> bool:
        """Whether models are loaded and proven; asked once, without retries."""
        return self._do(calls.ready())

    def history(self, *, page: int = 200, **filters: Any) -> Iterator[Entry]:
        """Entries, newest first: model, version, label, entity, since, until. Pages come as they are needed."""
        cursor = None
        while True:
            found = self._do(calls.page(filters, page, cursor))
            yield from found.predictions
            if (cursor := found.next) is None:
                return

    def prediction(self, prediction_id: str) -> Entry:
        """One prediction with its evidence; it is there as soon as it was answered."""
        return self._do(calls.entry(prediction_id))

    def export(self, path: str | Path, format: Format = "jsonl", **filters: Any) -> int:  # noqa: A002
        """History into a file, which is there when it is whole; its bytes."""
        file = Download(path)
        try:
            size = self._do(calls.export(file, format, filters))
            file.keep()
        finally:
            file.drop()
        return size

    def close(self) -> None:
        """Give up the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, call: Call[T], timeout: float | None = None) -> T:
        flow = self._flow(call.request, timeout)
        step = next(flow)
        while True:
            try:
                if isinstance(step, Wait):
                    self._sleep(step.seconds)
                    step = next(flow)
                else:
                    step = flow.send(self._send(step))
            except StopIteration as done:
                return call.read(cast(Reply, done.value))

    def _send(self, send: Send) -> Reply | Lost:
        until = self._chances.clock() + send.seconds
        sink = send.request.sink
        try:
            with self._client.stream(**self._http(send)) as response:
                if sink is not None and response.status_code == 200:
                    sink.begin()
                    for piece in response.iter_bytes():
                        sink.write(piece)
                    return _reply(response)
                pieces = []
                for piece in response.iter_bytes():
                    pieces.append(piece)
                    if self._chances.clock() > until:
                        return Lost("the answer did not come in time", sent=True)
                return _reply(response, b"".join(pieces))
        except httpx.HTTPError as error:
            return _lost(error, send.seconds)


class AsyncClient(_Shell):
    """The same for asyncio; use it in an `async with` block, or close it with `aclose`."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        chances: Chances = Chances(),  # noqa: B008 - a value that never changes
    ) -> None:
        super().__init__(url, api_key, timeout, retries, headers, chances)
        self._client = httpx.AsyncClient(transport=transport, **self._options())

    async def predict(self, row: Row, model: str | None = None, **options: Unpack[Options]) -> Prediction:
        """As `Client.predict`."""
        asked = Asked(**options)
        return await self._do(self._answering.predict(row, model, asked), asked.timeout)

    @overload
    async def predict_many(
        self,
        rows: Iterable[Row],
        model: str | None = None,
        *,
        partial: Literal[False] = False,
        **options: Unpack[Options],
    ) -> list[Prediction]: ...
    @overload
    async def predict_many(
        self, rows: Iterable[Row], model: str | None = None, *, partial: bool, **options: Unpack[Options]
    ) -> list[Prediction | RowRefused]: ...
    async def predict_many(
        self, rows: Iterable[Row], model: str | None = None, *, partial: bool = False, **options: Unpack[Options]
    ) -> Any:
        """As `Client.predict_many`."""
        asked = Asked(**options)
        return await self._do(self._answering.predict_many(rows, model, partial, asked), asked.timeout)

    async def models(self) -> list[Model]:
        """As `Client.models`."""
        return await self._do(calls.models())

    async def model(self, name: str | None = None) -> Model:
        """As `Client.model`."""
        return await self._do(self._answering.model(name))

    async def sample(self) -> dict[str, Any]:
        """As `Client.sample`."""
        return await self._do(calls.sample())

    async def reload(self, *, timeout: float = 60.0) -> Reload:  # noqa: ASYNC109
        """As `Client.reload`."""
        return await self._do(calls.reload(), timeout)

    async def health(self) -> Health:
        """As `Client.health`."""
        return await self._do(calls.health())

    async def ready(self) -> bool:
        """As `Client.ready`."""
        return await self._do(calls.ready())

    async def history(self, *, page: int = 200, **filters: Any) -> AsyncIterator[Entry]:
        """As `Client.history`."""
        cursor = None
        while True:
            found = await self._do(calls.page(filters, page, cursor))
            for entry in found.predictions:
                yield entry
            if (cursor := found.next) is None:
                return

    async def prediction(self, prediction_id: str) -> Entry:
        """As `Client.prediction`."""
        return await self._do(calls.entry(prediction_id))

    async def export(self, path: str | Path, format: Format = "jsonl", **filters: Any) -> int:  # noqa: A002
        """As `Client.export`; the file is written on a thread."""
        file = Download(path)
        try:
            size = await self._do(calls.export(file, format, filters))
            await asyncio.to_thread(file.keep)
        finally:
            file.drop()
        return size

    async def aclose(self) -> None:
        """Give up the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _do(self, call: Call[T], timeout: float | None = None) -> T:  # noqa: ASYNC109
        flow = self._flow(call.request, timeout)
        step = next(flow)
        while True:
            try:
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    step = next(flow)
                else:
                    step = flow.send(await self._send(step))
            except StopIteration as done:
                return call.read(cast(Reply, done.value))

    async def _send(self, send: Send) -> Reply | Lost:
        sink = send.request.sink
        try:
            async with (
                asyncio.timeout(None if sink else send.seconds),
                self._client.stream(**self._http(send)) as response,
            ):
                if sink is not None and response.status_code == 200:
                    await asyncio.to_thread(sink.begin)
                    async for piece in response.aiter_bytes():
                        await asyncio.to_thread(sink.write, piece)
                    return _reply(response)
                return _reply(response, await response.aread())
        except TimeoutError:
            return Lost(f"no answer within {send.seconds:.3g} s", sent=True)
        except httpx.HTTPError as error:
            return _lost(error, send.seconds)


def _reply(response: httpx.Response, body: bytes = b"") -> Reply:
    return Reply(response.status_code, dict(response.headers), body)


def _lost(error: httpx.HTTPError, seconds: float) -> Lost:
    """What happened, in words that hold nothing of the request."""
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return Lost("no connection in time", sent=False)
        case httpx.TimeoutException():
            return Lost(f"no answer within {seconds:.3g} s", sent=True)
        case httpx.ConnectError():
            return Lost(_system_says(error), sent=False)
        case _:
            return Lost("the connection broke before the answer came", sent=True)


def _system_says(error: BaseException) -> str:
    """The reason at the bottom of a failed connection, such as "connection refused"."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, OSError) and below.strerror:  # names that cannot be looked up have negative numbers
            return (os.strerror(below.errno) if below.errno and below.errno > 0 else below.strerror).lower()
        below = below.__cause__ or below.__context__
    return "no connection"
