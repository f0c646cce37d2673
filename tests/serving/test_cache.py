"""The score cache: lookup, storage and expiry of scores."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from rowcast.adapters.memory.cache import MemoryCache
from rowcast.schema.prediction import Score
from rowcast.serving.cache import ScoreCache
from rowcast.serving.live_models import LiveModel
from rowcast.serving.rows import Row
from support import models


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiveModel:
    folder: Path = tmp_path_factory.mktemp("models")
    return models.live(folder, "m", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def row(model: LiveModel, body: bytes = b'{"x0":1,"x1":2}', **fields: object) -> Row:
    return msgspec.structs.replace(Row(model.encoder.read(body), body), **fields)


async def test_a_stored_score_is_found_for_equivalent_rows(model: LiveModel) -> None:
    cache, score = ScoreCache(MemoryCache(10, 60)), Score(3.0)

    (unknown,) = await cache.look_up(model, [row(model)], "")
    cache.store([unknown], [score])
    equal, other = await cache.look_up(model, [row(model, b'{"x1":2.0, "x0":1}'), row(model, b'{"x0":2,"x1":1}')], "")

    assert unknown.cached_score is None
    assert (equal.cached_score, other.cached_score) == (score, None)


async def test_a_row_that_skips_the_cache_is_neither_looked_up_nor_stored(model: LiveModel) -> None:
    cache = ScoreCache(MemoryCache(10, 60))

    rows = await cache.look_up(model, [row(model, uses_cache=False)], "")
    cache.store(rows, [Score(3.0)])
    (later,) = await cache.look_up(model, [row(model)], "")

    assert rows[0].cache_key == ""
    assert later.cached_score is None


async def test_cached_rows_and_rows_that_skip_the_cache_stay_in_order(model: LiveModel) -> None:
    cache = ScoreCache(MemoryCache(10, 60))
    bodies = [b'{"x0":%d,"x1":0}' % number for number in range(4)]
    cache.store(
        await cache.look_up(model, [row(model, body) for body in bodies], ""), [Score(float(n)) for n in range(4)]
    )

    rows = await cache.look_up(model, [row(model, body, uses_cache=n != 1) for n, body in enumerate(bodies)], "")

    assert [each.cached_score for each in rows] == [Score(0.0), None, Score(2.0), Score(3.0)]
    assert [each.received for each in rows] == bodies


async def test_each_score_is_cached_for_as_long_as_its_request_specifies(model: LiveModel) -> None:
    clock = Clock()
    cache = ScoreCache(MemoryCache(10, 60, clock))
    bodies = [b'{"x0":1,"x1":0}', b'{"x0":2,"x1":0}']
    rows = await cache.look_up(model, [row(model, bodies[0]), row(model, bodies[1], cache_seconds=5)], "")
    cache.store(rows, [Score(1.0), Score(2.0)])

    clock.now = 6.0
    rows = await cache.look_up(model, [row(model, body) for body in bodies], "")

    assert [each.cached_score for each in rows] == [Score(1.0), None]


async def test_using_a_cached_score_does_not_extend_its_lifetime(model: LiveModel) -> None:
    clock = Clock()
    cache = ScoreCache(MemoryCache(10, 60, clock))
    cache.store(await cache.look_up(model, [row(model)], ""), [Score(3.0)])

    clock.now = 50.0
    cache.store(await cache.look_up(model, [row(model)], ""), [Score(3.0)])
    clock.now = 70.0

    assert (await cache.look_up(model, [row(model)], ""))[0].cached_score is None
