"""Rendered replies: the batcher turns native replies into those of a wire template."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rowcast.adapters.memory.journal import MemoryJournal
from rowcast.adapters.memory.store import MemoryStore
from rowcast.serving.rows import Row
from support import models
from support.serving import Serving

BODY = b'{"x0":1,"x1":2}'


async def test_a_reply_that_cannot_be_rendered_fails_its_own_request_only(tmp_path: Path) -> None:
    schema = models.number_columns(2)
    model = models.live(tmp_path / "models", "m", models.sum_graph(2), schema, models.REGRESSION, "values")
    serving = Serving(MemoryJournal(MemoryStore(), "w"))
    row = Row(model.encoder.read(BODY), BODY)

    def broken(reply: bytes) -> bytes:
        raise ZeroDivisionError

    answers = [serving.predict(model, row, render=render) for render in (None, broken, len, None)]  # type: ignore[arg-type]
    results = await asyncio.gather(*answers, return_exceptions=True)

    assert [type(result) for result in results] == [bytes, ZeroDivisionError, int, bytes]
