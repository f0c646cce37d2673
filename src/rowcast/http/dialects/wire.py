"""Predictions in the format of a model's wire template."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import structlog

from rowcast.http.authentication import allow_model
from rowcast.http.routes import QuickHandler, Request, Response
from rowcast.serving.ports import Answer
from rowcast.serving.requests import PendingRequest
from rowcast.serving.rows import Row
from rowcast.wire.codec import WireCodec, WireRequest
from rowcast.wire.reply import NativeReplies

if TYPE_CHECKING:
    from rowcast.serving.interface import ModelInterface
    from rowcast.serving.service import PredictionService

WARNING_HEADER = b"x-wire-warning"

log = structlog.get_logger("rowcast.http")


class WireHandler:
    """Handles `/predict` and `/predict/batch` for a model with a template."""

    def __init__(self, model: ModelInterface, wire: WireCodec, service: PredictionService) -> None:
        self._model = model
        self._wire = wire
        self._service = service

    def quick(self) -> QuickHandler | None:
        """Return the quick path's handler, or None if one row's native reply is not enough to render a reply."""
        return None if self._wire.render_row is None else QuickWire(self._model, self._wire, self._service)

    async def predict(self, request: Request) -> Response:
        """Answer a request to `/predict`."""
        started = time.perf_counter()
        parsed = self._wire.read(request.body, self._service.max_rows)
        replies = await self._score([parsed], request)
        return Response(self._wire.render(NativeReplies(replies, time.perf_counter() - started)))

    async def predict_batch(self, request: Request) -> Response:
        """Answer a request to `/predict/batch`, whose body contains several requests."""
        started = time.perf_counter()
        requests = self._wire.read_batch(request.body, self._service.max_rows)
        replies = iter(await self._score(requests, request))
        seconds = time.perf_counter() - started
        replies_by_request = [NativeReplies([next(replies) for _ in item.rows], seconds) for item in requests]
        return Response(self._wire.render_batch(replies_by_request, seconds))

    async def _score(self, requests: Sequence[WireRequest], request: Request) -> list[bytes]:
        """Score the rows of all requests; return the native replies in order."""
        rows = [
            Row(encoded, received, item.use_cache, cache_seconds=item.ttl)
            for item in requests
            for encoded, received in item.rows
        ]
        predictions = await self._service.predict(
            self._model, rows, request.context, use_cache=request.options.use_cache
        )
        request.used(self._model, len(rows), predictions.cache_hit)
        filled, ignored = sum(item.filled for item in requests), sum(item.ignored for item in requests)
        unusual = sum(len(row.encoded.warnings) for row in rows)
        if filled or ignored or unusual:
            _warn(self._model, request, filled, ignored, unusual)
        return predictions.replies


class QuickWire:
    """The hot path of a model with a template, for single-row requests without options."""

    def __init__(self, model: ModelInterface, wire: WireCodec, service: PredictionService) -> None:
        self._model = model
        self._read_row = wire.read_row
        self._render_row = wire.render_row
        self._submit = service.submit

    def accepts(self, query: bytes, body: bytes) -> bool:
        """Return whether the request has no query parameters."""
        return not query

    def submit(self, request: Request, answer: Answer) -> None:
        """Submit the row for scoring. Hot path."""
        if request.context.caller.models:
            allow_model(request.context.caller, self._model.name)
        encoded, received, filled, ignored = self._read_row(request.body)
        if filled or ignored or encoded.warnings:
            _warn(self._model, request, filled, ignored, len(encoded.warnings))
        rows = (Row(encoded, received),)
        pending = PendingRequest(self._model, rows, request.context, answer, True, self._render_row)
        self._submit(pending, is_alone=request.is_alone)


def _warn(model: ModelInterface, request: Request, filled: int, ignored: int, unusual: int) -> None:
    """Report in the response what the template changed, and how many values did not occur in training.

    The log reports only what the template changed, because new data often contains unusual values. Neither the log nor
    the response contains any client data.
    """
    counts = b"filled=%d, ignored=%d" % (filled, ignored)
    request.add_header(WARNING_HEADER, counts + b", unusual=%d" % unusual if unusual else counts)
    if filled or ignored:
        log.warning(
            "a wire template changed a request",
            model=model.name,
            request_id=request.context.request_id,
            filled=filled,
            ignored=ignored,
        )
