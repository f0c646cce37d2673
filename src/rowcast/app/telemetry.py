"""What a server tells others about itself: pushed metrics, spans, a line a request. Imported by servers alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rowcast.http.request_log import note_rows
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from rowcast.serving.waiting import Ask, Render

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from rowcast.adapters.files.worker_state import ServerFolder
    from rowcast.adapters.telemetry.otel import Spans
    from rowcast.adapters.telemetry.prometheus import Metrics
    from rowcast.adapters.telemetry.pushgateway import Pusher
    from rowcast.history.blocks import Block, BlockColumn
    from rowcast.settings import Settings

ALIVE = ("ready", "draining")


class NotingPredictor(Predictor):
    """Tells the request at hand which model was asked for how many rows."""

    def _wait(
        self, model: LiveModel, rows: Sequence[Row], ask: Ask, alone: bool, render: Render | None = None
    ) -> asyncio.Future[Any]:
        note_rows(model.name, model.version, len(rows))
        return super()._wait(model, rows, ask, alone, render)

    def predict_block(
        self,
        model: LiveModel,
        tensors: Mapping[str, NDArray[Any]],
        columns: Sequence[BlockColumn],
        body: bytes,
        ask: Ask,
    ) -> Block:
        """As without notes."""
        block = super().predict_block(model, tensors, columns, body, ask)
        note_rows(model.name, model.version, block.rows)
        return block


def spans(settings: Settings) -> Spans | None:
    """Who makes spans, when somebody wants them."""
    if settings.otel_endpoint is None:
        return None
    from rowcast.adapters.telemetry.otel import Spans

    return Spans(settings.otel_endpoint, settings.otel_ratio)


def push_target(settings: Settings) -> tuple[str, tuple[str, str] | None]:
    """Where metrics are pushed, and as whom."""
    from rowcast.adapters.telemetry.pushgateway import push_url

    name, password = settings.push_username, settings.push_password
    auth = (name, password.get_secret_value()) if name is not None and password is not None else None
    return push_url(settings.push_gateway or "", settings.push_job), auth


def pusher(settings: Settings, metrics: Metrics, board: ServerFolder, number: int) -> Pusher | None:
    """Who pushes metrics: the first worker that lives, and whoever ends last."""
    if settings.push_gateway is None:
        return None
    from rowcast.adapters.telemetry.pushgateway import Pusher

    def mine() -> bool:
        alive = [worker.worker for worker in board.workers() if worker.state in ALIVE]
        return alive[:1] in ([], [number])

    return Pusher(*push_target(settings), settings.push_seconds, metrics.exposition, mine)
