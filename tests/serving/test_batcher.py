"""Replies of another form, made in the tick of the native ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.serving.batcher import Predictor
from rowcast.serving.live_models import Deployment
from rowcast.serving.rows import Row
from rowcast.serving.waiting import Ask
from support import models

BODY = b'{"x0":1,"x1":2}'


async def test_a_reply_that_cannot_be_made_harms_nobody_else(tmp_path: Path) -> None:
    schema = models.number_columns(2)
    model = models.live(tmp_path / "models", "m", models.sum_graph(2), schema, models.REGRESSION, "values")
    predictor = Predictor(Deployment({"m": model}), MemoryJournal(MemoryStore(), "w"), lambda event: None)
    row, ask = Row(model.encoder.read(BODY), BODY), Ask("test", "r")

    def broken(reply: bytes) -> bytes:
        raise ZeroDivisionError

    asked = [predictor.predict(model, row, ask, render) for render in (None, broken, len, None)]  # type: ignore[arg-type]
    found = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in found] == [bytes, ZeroDivisionError, int, bytes]
