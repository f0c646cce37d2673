"""The synchronous and asynchronous clients. They do the IO; `exchange` and `calls` contain the logic."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, Unpack, cast, overload

import httpx
import msgspec

from rowcast.client import calls
from rowcast.client.batches import Row, Rows
from rowcast.client.calls import (
    ApiCall,
    CheckedOptions,
    Download,
    Format,
    ModelCalls,
    PredictOptions,
    ServerAddress,
    is_header_value,
)
from rowcast.client.errors import BadCall, ErrorReply
from rowcast.client.exchange import Flow, HttpReply, HttpRequest, NoReply, RetryPolicy, Send, Wait, exchange
from rowcast.client.jobs import AsyncJobs, Jobs, file_size, read_pieces
from rowcast.client.replies import HistoryEntry, PredictionReply, RowErrors
from rowcast.serving.fleet import ReloadResult
from rowcast.serving.health import HealthReport
from rowcast.serving.model_descriptions import ServedModel
from rowcast.version import VERSION

T = TypeVar("T")
CONNECT_SECONDS = 5.0
POOL = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=60.0)


class _BaseClient:
    """The base class of both clients. It contains the configuration and converts requests for httpx."""

    def __init__(
        self, url: str, api_key: str | None, *, timeout: float, retries: int, headers: Mapping[str, str] | None
    ) -> None:
        if not (timeout > 0 and math.isfinite(timeout)):
            raise BadCall("timeout must be a positive number of seconds")
        if retries < 0:
            raise BadCall("retries must not be negative")
        if api_key is not None and not is_header_value(api_key):
            raise BadCall("api_key must be 1 to 255 visible ASCII characters, without spaces or line breaks")
        self._address = ServerAddress.parse(url)
        self._policy = RetryPolicy(timeout, retries)
        self._model_calls = ModelCalls(lambda: uuid.uuid4().hex, retries=retries)
        defaults = {"user-agent": f"rowcast/{VERSION}", "accept": "application/json, */*;q=0.5"}
        self._headers = {**defaults, **(headers or {}), **({"x-api-key": api_key} if api_key is not None else {})}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address.shown!r})"

    def _flow(self, request: HttpRequest, timeout: float | None) -> Flow:
        policy = self._policy if timeout is None else msgspec.structs.replace(self._policy, timeout=timeout)
        return exchange(request, policy, self._address.shown, clock=time.monotonic, random=random.random)

    def _httpx_options(self) -> dict[str, Any]:
        # A proxy configured in the environment cannot reach a server on this machine's loopback address.
        return {"headers": self._headers, "limits": POOL, "trust_env": not self._address.is_local}

    def _httpx_request(self, send: Send) -> dict[str, Any]:
        request = send.request
        # If the length is set, the file is not sent with chunked encoding, which some proxies reject.
        length = {} if request.file is None else {"content-length": str(file_size(request.file))}
        return {
            "method": request.method,
            "url": self._address.base + request.path,
            "params": list(request.query) or None,
            "headers": {**request.headers, **length},
            "content": request.body,  # `_send` replaces this with the file, if there is one
            "timeout": httpx.Timeout(send.seconds, connect=min(send.seconds, CONNECT_SECONDS)),
        }


class Client(_BaseClient):
    """A synchronous client that threads can share. Use it in a `with` block, or call `close` when done.

    `timeout` is the limit in seconds for a whole call, including retries. Predictions are safe to retry because each
    call has its own Idempotency-Key: if a request is repeated, the server returns the first reply and adds no history
    entry. With `retries=0`, each request is sent once, without a generated key.
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
    ) -> None:
        super().__init__(url, api_key, timeout=timeout, retries=retries, headers=headers)
        self.jobs = Jobs(self._perform)
        """Submit, follow and cancel jobs."""
        self._client = httpx.Client(transport=transport, **self._httpx_options())

    def predict(self, row: Row, model: str | None = None, **options: Unpack[PredictOptions]) -> PredictionReply:
        """Return the prediction for one row; raise RowsRejected if the row is invalid.

        If `model` is None, the server uses its default model.
        """
        checked = CheckedOptions(**options)
        return self._perform(self._model_calls.predict(row, model, checked), checked.timeout)

    @overload
    def predict_many(
        self,
        rows: Rows,
        model: str | None = None,
        *,
        partial: Literal[False] = False,
        **options: Unpack[PredictOptions],
    ) -> list[PredictionReply]: ...
    @overload
    def predict_many(
        self, rows: Rows, model: str | None = None, *, partial: bool, **options: Unpack[PredictOptions]
    ) -> list[PredictionReply | RowErrors]: ...
    def predict_many(
        self, rows: Rows, model: str | None = None, *, partial: bool = False, **options: Unpack[PredictOptions]
    ) -> Any:
        """Return the predictions for many rows, in order.

        `rows` can be a pandas or polars data frame. Raise RowsRejected if a row is invalid. With `partial=True`, return
        a RowErrors for each invalid row instead. Each problem contains its row's position.

        Rows that do not fit in one request are sent in several requests, one after another. Each request has its own
        timeout. If a request fails, the rows of earlier requests are already recorded. To continue, repeat the call
        with the same `idempotency_key`.
        """
        checked = CheckedOptions(**options)
        batches = self._model_calls.predict_many(rows, model, checked, partial=partial)
        predictions: list[PredictionReply | RowErrors] = []
        while (call := batches.next()) is not None:
            try:
                replies = self._perform(call, checked.timeout)
            except ErrorReply as error:
                batches.split(error)
            else:
                predictions += replies
        return predictions

    def models(self) -> list[ServedModel]:
        """Return the descriptions of all models that the caller can use."""
        return self._perform(calls.models())

    def model(self, name: str | None = None) -> ServedModel:
        """Return the description of the named model, or of the default model if `name` is None."""
        return self._perform(self._model_calls.model(name))

    def sample(self) -> dict[str, Any]:
        """Return an example row for the default model."""
        return self._perform(calls.sample())

    def reload(self, *, timeout: float = 60.0) -> ReloadResult:
        """Make the server reload its models from the registry; return the state of each server process."""
        return self._perform(calls.reload(), timeout)

    def health(self) -> HealthReport:
        """Return the health of the server and of each of its processes."""
        return self._perform(calls.health())

    def ready(self) -> bool:
        """Return whether the server is ready to serve predictions. The request is never retried."""
        return self._perform(calls.ready())

    def history(self, *, page: int = 200, **filters: Any) -> Iterator[HistoryEntry]:
        """Yield the history entries, newest first; fetch up to `page` entries per request.

        The filters are `model`, `version`, `label`, `entity`, `since` and `until`.
        """
        cursor = None
        while True:
            batch = self._perform(calls.history_page(filters, page, cursor))
            yield from batch.predictions
            if (cursor := batch.next) is None:
                return

    def prediction(self, prediction_id: str) -> HistoryEntry:
        """Return the history entry for a prediction. The entry exists as soon as the prediction has been returned."""
        return self._perform(calls.history_entry(prediction_id))

    def export(self, path: str | Path, format: Format = "jsonl", **filters: Any) -> int:  # noqa: A002
        """Download the history to a file and return the file's size. The file appears only when it is complete."""
        file = Download(path)
        try:
            size = self._perform(calls.export(file, format, filters))
            file.publish()
        finally:
            file.discard()
        return size

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _perform(self, call: ApiCall[T], timeout: float | None = None) -> T:
        flow = self._flow(call.request, timeout)
        step = next(flow)
        while True:
            try:
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    step = next(flow)
                else:
                    step = flow.send(self._send(step))
            except StopIteration as done:
                return call.read(cast(HttpReply, done.value))

    def _send(self, send: Send) -> HttpReply | NoReply:
        deadline = time.monotonic() + send.seconds
        sink = send.request.sink
        try:
            options = self._httpx_request(send)
            if send.request.file is not None:
                options["content"] = read_pieces(send.request.file)
            with self._client.stream(**options) as response:
                if sink is not None and response.status_code == 200:
                    sink.begin()
                    for chunk in response.iter_bytes():
                        sink.write(chunk)
                    return _http_reply(response)
                # httpx's timeout limits each read, not the whole response.
                chunks = []
                for chunk in response.iter_bytes():
                    chunks.append(chunk)
                    if time.monotonic() > deadline:
                        return NoReply(_timeout_reason(send.seconds), sent=True)
                return _http_reply(response, b"".join(chunks))
        except httpx.HTTPError as error:
            return _no_reply(error, send.seconds)


class AsyncClient(_BaseClient):
    """The counterpart of `Client` for asyncio. Use it in an `async with` block, or call `aclose` when done."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(url, api_key, timeout=timeout, retries=retries, headers=headers)
        self.jobs = AsyncJobs(self._perform)
        """See `Client.jobs`."""
        self._client = httpx.AsyncClient(transport=transport, **self._httpx_options())

    async def predict(self, row: Row, model: str | None = None, **options: Unpack[PredictOptions]) -> PredictionReply:
        """See `Client.predict`."""
        checked = CheckedOptions(**options)
        return await self._perform(self._model_calls.predict(row, model, checked), checked.timeout)

    @overload
    async def predict_many(
        self,
        rows: Rows,
        model: str | None = None,
        *,
        partial: Literal[False] = False,
        **options: Unpack[PredictOptions],
    ) -> list[PredictionReply]: ...
    @overload
    async def predict_many(
        self, rows: Rows, model: str | None = None, *, partial: bool, **options: Unpack[PredictOptions]
    ) -> list[PredictionReply | RowErrors]: ...
    async def predict_many(
        self, rows: Rows, model: str | None = None, *, partial: bool = False, **options: Unpack[PredictOptions]
    ) -> Any:
        """See `Client.predict_many`."""
        checked = CheckedOptions(**options)
        batches = self._model_calls.predict_many(rows, model, checked, partial=partial)
        predictions: list[PredictionReply | RowErrors] = []
        while (call := batches.next()) is not None:
            try:
                replies = await self._perform(call, checked.timeout)
            except ErrorReply as error:
                batches.split(error)
            else:
                predictions += replies
        return predictions

    async def models(self) -> list[ServedModel]:
        """See `Client.models`."""
        return await self._perform(calls.models())

    async def model(self, name: str | None = None) -> ServedModel:
        """See `Client.model`."""
        return await self._perform(self._model_calls.model(name))

    async def sample(self) -> dict[str, Any]:
        """See `Client.sample`."""
        return await self._perform(calls.sample())

    async def reload(self, *, timeout: float = 60.0) -> ReloadResult:  # noqa: ASYNC109
        """See `Client.reload`."""
        return await self._perform(calls.reload(), timeout)

    async def health(self) -> HealthReport:
        """See `Client.health`."""
        return await self._perform(calls.health())

    async def ready(self) -> bool:
        """See `Client.ready`."""
        return await self._perform(calls.ready())

    async def history(self, *, page: int = 200, **filters: Any) -> AsyncIterator[HistoryEntry]:
        """See `Client.history`."""
        cursor = None
        while True:
            batch = await self._perform(calls.history_page(filters, page, cursor))
            for entry in batch.predictions:
                yield entry
            if (cursor := batch.next) is None:
                return

    async def prediction(self, prediction_id: str) -> HistoryEntry:
        """See `Client.prediction`."""
        return await self._perform(calls.history_entry(prediction_id))

    async def export(self, path: str | Path, format: Format = "jsonl", **filters: Any) -> int:  # noqa: A002
        """See `Client.export`. The file is written in a separate thread."""
        file = Download(path)
        try:
            size = await self._perform(calls.export(file, format, filters))
            await asyncio.to_thread(file.publish)
        finally:
            file.discard()
        return size

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _perform(self, call: ApiCall[T], timeout: float | None = None) -> T:  # noqa: ASYNC109
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
                return call.read(cast(HttpReply, done.value))

    async def _send(self, send: Send) -> HttpReply | NoReply:
        sink = send.request.sink
        options = self._httpx_request(send)
        if send.request.file is not None:
            options["content"] = _read_pieces(send.request.file)
        try:
            async with (
                asyncio.timeout(None if sink else send.seconds),
                self._client.stream(**options) as response,
            ):
                if sink is not None and response.status_code == 200:
                    await asyncio.to_thread(sink.begin)
                    async for chunk in response.aiter_bytes():
                        await asyncio.to_thread(sink.write, chunk)
                    return _http_reply(response)
                return _http_reply(response, await response.aread())
        except TimeoutError:
            return NoReply(_timeout_reason(send.seconds), sent=True)
        except httpx.HTTPError as error:
            return _no_reply(error, send.seconds)


async def _read_pieces(path: Path) -> AsyncIterator[bytes]:
    pieces = read_pieces(path)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _http_reply(response: httpx.Response, body: bytes = b"") -> HttpReply:
    return HttpReply(response.status_code, dict(response.headers), body)


def _no_reply(error: httpx.HTTPError, seconds: float) -> NoReply:
    """Describe the failure without quoting any part of the request."""
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return NoReply("connection timed out", sent=False)
        case httpx.TimeoutException():
            return NoReply(_timeout_reason(seconds), sent=True)
        case httpx.ConnectError():
            return NoReply(_connection_error(error), sent=False)
        case _:
            return NoReply("connection closed before the response arrived", sent=True)


def _timeout_reason(seconds: float) -> str:
    return f"timed out after {seconds:.3g} s"


def _connection_error(error: BaseException) -> str:
    """Return the operating system's reason for a failed connection, for example "connection refused"."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            # A failed name lookup has a negative errno, which `os.strerror` does not support.
            return (os.strerror(cause.errno) if cause.errno and cause.errno > 0 else cause.strerror).lower()
        cause = cause.__cause__ or cause.__context__
    return "connection failed"
