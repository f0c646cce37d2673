"""Requests and replies in the form of a model's wire template; all else is the native dialect's."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from rowcast.http.routes import Request
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from rowcast.serving.waiting import Ask
from rowcast.wire.codec import WireCodec, WireRequest
from rowcast.wire.reply import NativeReplies

SOURCE = "wire"
MENDED = b"x-wire-warning"

log = structlog.get_logger("rowcast.http")


class WireApi:
    """`/predict` and `/predict/batch` of models with a template."""

    def __init__(self, predictor: Predictor, *, max_rows: int) -> None:
        self._predictor = predictor
        self._max_rows = max_rows

    def predict_row(
        self, model: LiveModel, wire: WireCodec, render: Callable[[bytes], bytes], request: Request, ask: Ask
    ) -> Awaitable[bytes]:
        """A request that is a row and nothing else. HOT."""
        encoded, received, filled, ignored = wire.read_row(request.body)
        if filled or ignored:
            _warn(model, request, filled, ignored)
        return self._predictor.predict(model, Row(encoded, received), ask, render)

    async def predict(self, model: LiveModel, wire: WireCodec, request: Request, ask: Ask, *, cache: bool) -> bytes:
        """One request."""
        started = time.perf_counter()
        asked = wire.read(request.body, self._max_rows)
        replies = await self._many(model, [asked], request, ask, cache=cache)
        if asked.filled or asked.ignored:
            _warn(model, request, asked.filled, asked.ignored)
        return wire.render(NativeReplies(replies, time.perf_counter() - started))

    async def batch(self, model: LiveModel, wire: WireCodec, request: Request, ask: Ask, *, cache: bool) -> bytes:
        """Several requests in one body, answered together."""
        started = time.perf_counter()
        asked = wire.read_batch(request.body, self._max_rows)
        replies = iter(await self._many(model, asked, request, ask, cache=cache))
        filled, ignored = sum(one.filled for one in asked), sum(one.ignored for one in asked)
        if filled or ignored:
            _warn(model, request, filled, ignored)
        seconds = time.perf_counter() - started
        return wire.render_batch([NativeReplies([next(replies) for _ in one.rows], seconds) for one in asked], seconds)

    def _many(
        self, model: LiveModel, asked: Sequence[WireRequest], request: Request, ask: Ask, *, cache: bool
    ) -> Awaitable[Sequence[bytes]]:
        """The native replies to all rows, in order."""
        rows = [(Row(encoded, received, ttl=one.ttl), one.use_cache) for one in asked for encoded, received in one.rows]
        request.spend(len(rows))
        if cache and self._predictor.caching and any(may for _, may in rows):
            return self._recalled(model, rows, request, ask)
        return self._predictor.predict_all(model, [row for row, _ in rows], ask)

    async def _recalled(
        self, model: LiveModel, rows: Sequence[tuple[Row, bool]], request: Request, ask: Ask
    ) -> Sequence[bytes]:
        known = iter(await self._predictor.recall(model, [row for row, may in rows if may]))
        looked = [next(known) if may else row for row, may in rows]
        request.note_cache(all(row.known for row in looked))
        return await self._predictor.predict_all(model, looked, ask)


def _warn(model: LiveModel, request: Request, filled: int, ignored: int) -> None:
    """Say that the template mended the request: in the reply and in the log, without names or values of the caller."""
    request.note(MENDED, b"filled=%d, ignored=%d" % (filled, ignored))
    log.warning(
        "a request was mended by its wire template",
        model=model.name,
        request_id=request.request_id,
        filled=filled,
        ignored=ignored,
    )
