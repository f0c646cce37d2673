"""The prediction service: quotas, the cache and batching."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rowcast.access.callers import Caller
from rowcast.access.context import RequestContext
from rowcast.access.quotas import Meter, Quota
from rowcast.errors import NoAnswer, OverQuota, TooLate, Unavailable
from rowcast.history.blocks import BlockColumn
from rowcast.schema.encoding import NUMBERS
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from support import models
from support.fronts import Front

BODY = b'{"x0":1,"x1":2}'
ANYONE = RequestContext("native", "r")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    return models.live(folder, "m", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


def rows(model: LiveModel, count: int) -> list[Row]:
    return [Row(model.encoder.read(BODY), BODY) for _ in range(count)]


async def test_every_row_gets_a_recorded_reply(model: LiveModel) -> None:
    front = Front(model)

    predictions = await front.service.predict(model, rows(model, 3), ANYONE)

    assert [msgspec.json.decode(reply)["prediction"] for reply in predictions.replies] == [3, 3, 3]
    assert predictions.cache_hit is None
    assert front.store.count() == 3


async def test_all_rows_except_the_first_are_charged_and_rows_over_quota_are_not_scored(model: LiveModel) -> None:
    front = Front(model)
    context = RequestContext("native", "r", Caller(meter=Meter(Quota(3, 60))))

    await front.service.predict(model, rows(model, 1), context)  # the HTTP layer has already charged the first row
    await front.service.predict(model, rows(model, 4), context)
    with pytest.raises(OverQuota):
        await front.service.predict(model, rows(model, 2), context)

    assert front.store.count() == 5


async def test_invalid_rows_are_also_charged(model: LiveModel) -> None:
    context = RequestContext("native", "r", Caller(meter=Meter(Quota(3, 60))))

    with pytest.raises(OverQuota):
        await Front(model).service.predict(model, [], context, charged_rows=5)


async def test_a_request_without_valid_rows_gets_no_replies(model: LiveModel) -> None:
    assert (await Front(model).service.predict(model, [], ANYONE)).replies == []


async def test_a_cache_hit_is_reported_only_if_all_rows_are_cached(model: LiveModel) -> None:
    front = Front(model, has_cache=True)

    hits = [(await front.service.predict(model, rows(model, count), ANYONE)).cache_hit for count in (1, 2)]
    declined = await front.service.predict(model, rows(model, 1), ANYONE, use_cache=False)

    assert hits == [False, True]
    assert declined.cache_hit is None
    assert front.store.count() == 4


async def test_a_canceled_call_is_neither_recorded_nor_left_in_the_queue(model: LiveModel) -> None:
    front = Front(model)
    task = asyncio.create_task(front.service.predict(model, rows(model, 1), ANYONE))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (front.store.count(), front.batcher.queue().rows) == (0, 0)


async def test_blocks_are_rejected_for_the_same_reasons_as_rows(model: LiveModel) -> None:
    front = Front(model)
    tensors = {NUMBERS: np.ones((2, 2), np.float32)}
    late = RequestContext("v2", "r", deadline=time.perf_counter() - 1)

    with pytest.raises(TooLate):
        await front.service.predict_block(model, tensors, [], b"", late)
    front.batcher.refuse("the disk is full")
    with pytest.raises(Unavailable):
        await front.service.predict_block(model, tensors, [], b"", ANYONE)


def test_blocks_are_recorded_only_for_fast_models_without_a_cache(model: LiveModel, tmp_path: Path) -> None:
    schema = models.number_columns(2)
    slow = models.live(tmp_path, "slow", models.sum_graph(2), schema, models.REGRESSION, "values")
    slow.is_slow = True

    assert Front(model).service.can_record_blocks(model)
    assert not Front(model, has_cache=True).service.can_record_blocks(model)
    assert not Front(slow).service.can_record_blocks(slow)


async def test_all_rows_of_a_block_except_the_first_are_charged(model: LiveModel) -> None:
    front = Front(model)
    context = RequestContext("v2", "r", Caller(meter=Meter(Quota(3, 60))))
    cells = np.ones(8, "<f8").tobytes()
    columns = [BlockColumn("x0", "FP64", 32), BlockColumn("x1", "FP64", 32)]

    await front.service.predict_block(model, {NUMBERS: np.ones((4, 2), np.float32)}, columns, cells, context)
    with pytest.raises(OverQuota):
        await front.service.predict_block(model, {NUMBERS: np.ones((2, 2), np.float32)}, [], b"", context)

    assert front.store.count() == 4


async def test_the_error_for_a_request_over_quota_counts_all_rows(model: LiveModel) -> None:
    context = RequestContext("v2", "r", Caller(meter=Meter(Quota(3, 60))))

    with pytest.raises(OverQuota) as refused:
        await Front(model).service.predict(model, rows(model, 9), context)

    assert refused.value.message.endswith(": 9; send fewer rows per request")


async def test_a_block_with_a_row_without_a_finite_score_is_not_recorded(model: LiveModel) -> None:
    front = Front(model)
    cells = np.ones((2, 2), np.float32)
    cells[1, 0] = np.nan

    with pytest.raises(NoAnswer) as refused:
        await front.service.predict_block(model, {NUMBERS: cells}, [], b"", ANYONE)

    assert refused.value.rows == [1]
    assert front.store.count() == 0


async def test_only_the_rows_of_a_request_after_the_first_are_charged(model: LiveModel) -> None:
    meter = Meter(Quota(10, 60))
    context = RequestContext("native", "r", Caller(meter=meter))
    front = Front(model)

    await front.service.predict(model, rows(model, 1), context)
    await front.service.predict(model, rows(model, 2), context)
    await front.service.predict(model, rows(model, 1), context, charged_rows=4)
    await front.service.predict(model, rows(model, 3), context, charged_rows=0)
    await front.service.predict(model, [], context)

    assert b"r=6;" in meter.headers(time.perf_counter())


async def test_a_request_whose_rows_all_skip_the_cache_is_neither_a_hit_nor_a_miss(model: LiveModel) -> None:
    front = Front(model, has_cache=True)
    (row,) = rows(model, 1)
    skipping = msgspec.structs.replace(row, uses_cache=False)

    replies = [await front.service.predict(model, part, ANYONE) for part in ([skipping], [skipping, row], [], [row])]

    assert [reply.cache_hit for reply in replies] == [None, False, None, True]


async def test_a_reply_to_a_single_row_is_one_prediction(model: LiveModel) -> None:
    (reply,) = (await Front(model).service.predict(model, rows(model, 1), ANYONE, is_single=True)).replies

    assert msgspec.json.decode(reply)["prediction"] == 3


def test_blocks_are_not_recorded_for_imported_models(model: LiveModel, tmp_path: Path) -> None:
    imported = models.live(tmp_path, "i", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    imported.is_own_export = False

    assert not Front(imported).service.can_record_blocks(imported)


async def test_the_error_for_a_block_over_quota_counts_all_rows(model: LiveModel) -> None:
    context = RequestContext("v2", "r", Caller(meter=Meter(Quota(3, 60))))

    with pytest.raises(OverQuota) as refused:
        await Front(model).service.predict_block(model, {NUMBERS: np.ones((9, 2), np.float32)}, [], b"", context)

    assert refused.value.message.endswith(": 9; send fewer rows per request")
