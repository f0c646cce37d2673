"""The service that every dialect uses to score rows, record predictions and build replies."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from rowcast.access.context import RequestContext
from rowcast.history.blocks import Block, BlockColumn
from rowcast.serving.batcher import Batcher
from rowcast.serving.cache import ScoreCache
from rowcast.serving.deployment import Deployment
from rowcast.serving.interface import ModelInterface
from rowcast.serving.quota import charge
from rowcast.serving.recorder import Recorder
from rowcast.serving.requests import PendingRequest
from rowcast.serving.rows import Row

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rowcast.serving.live_models import LiveModel


class Predictions(NamedTuple):
    """The replies for the rows of one request, in order."""

    replies: list[bytes]
    cache_hit: bool | None = None
    """Whether every row was a cache hit; None if the cache was not used."""


class PredictionService:
    """Turns rows into recorded predictions."""

    def __init__(
        self,
        deployment: Deployment[ModelInterface],
        batcher: Batcher,
        recorder: Recorder,
        *,
        max_rows: int,
        cache: ScoreCache | None = None,
    ) -> None:
        self.deployment = deployment
        self.max_rows = max_rows
        self.has_cache = cache is not None
        self._batcher = batcher
        self.submit = batcher.submit
        """Scores and records a request without a cache lookup or a charge."""
        self._recorder = recorder
        self._cache = cache

    async def predict(
        self,
        model: ModelInterface,
        rows: Sequence[Row],
        context: RequestContext,
        *,
        charged_rows: int | None = None,
        use_cache: bool = True,
        is_single: bool = False,
    ) -> Predictions:
        """Return the predictions for the rows of a request. `charged_rows` includes rejected rows."""
        await _charge(context, len(rows) if charged_rows is None else charged_rows)
        cache_hit = None
        if self._cache is not None and use_cache and any(row.uses_cache for row in rows):
            rows = await self._cache.look_up(model, rows, context.caller.tenant)
            cache_hit = bool(rows) and all(row.cached_score is not None for row in rows)
        if not rows:
            return Predictions([], cache_hit)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._batcher.submit(PendingRequest(model, rows, context, answer, is_single))
        reply = await answer
        return Predictions([reply] if is_single else reply, cache_hit)

    def can_record_blocks(self, model: ModelInterface) -> TypeGuard[LiveModel]:
        """Return whether rows of this model can be scored and recorded as one block of columns."""
        own_way = self.has_cache or model.is_slow or not model.is_own_export
        return not own_way and self._recorder.can_record_blocks(model)

    async def predict_block(
        self,
        model: LiveModel,
        tensors: Mapping[str, NDArray[Any]],
        columns: Sequence[BlockColumn],
        body: bytes,
        context: RequestContext,
    ) -> Block:
        """Score and record many rows that arrived as columns. Hot path."""
        await _charge(context, len(next(iter(tensors.values()))))
        return self._batcher.record_block(model, tensors, columns, body, context)


async def _charge(context: RequestContext, rows: int) -> None:
    """Charge all rows of a request except the first, which was charged when the request arrived."""
    if rows > 1:
        charging = charge(context.caller, rows - 1, time.perf_counter(), total=rows)
        if charging is not None:
            await charging
