"""The scorer: one call scores the rows of all requests, and a failed row affects only its own request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rowcast.access.context import RequestContext
from rowcast.errors import NoAnswer
from rowcast.schema.encoding import EncodedRow
from rowcast.schema.prediction import Score
from rowcast.serving.live_models import LiveModel
from rowcast.serving.requests import PendingRequest
from rowcast.serving.rows import Row
from rowcast.serving.scorer import LocalScorer
from support import models


@pytest.fixture
def model(tmp_path: Path) -> LiveModel:
    schema = models.number_columns(1)
    return models.live(tmp_path / "models", "m", models.sum_graph(1), schema, models.REGRESSION, "values")


def rows(model: LiveModel, *values: float) -> list[Row]:
    bodies = [b'{"x0":%r}' % value for value in values]
    return [Row(model.encoder.read(body), body) for body in bodies]


class Calls:
    """Wraps a model's `score` method: records each call and fails on negative scores."""

    def __init__(self, model: LiveModel) -> None:
        self._score = model.score
        self.sizes: list[int] = []
        self.threads: set[str] = set()
        model.score = self  # type: ignore[method-assign,assignment]

    def __call__(self, encoded: Sequence[EncodedRow]) -> list[Score]:
        self.sizes.append(len(encoded))
        self.threads.add(threading.current_thread().name)
        scores = self._score(encoded)
        negative = [number for number, score in enumerate(scores) if score.prediction < 0]  # type: ignore[operator]
        if negative:
            raise NoAnswer(negative)
        return scores


def predictions(scores: Sequence[Score]) -> list[Any]:
    return [score.prediction for score in scores]


def test_the_rows_of_all_requests_are_scored_in_one_call(model: LiveModel) -> None:
    calls = Calls(model)

    batch = LocalScorer().score(model, [rows(model, 1), rows(model, 2, 3)])

    assert (predictions(batch.scores), batch.errors, calls.sizes) == ([1, 2, 3], {}, [3])


def test_a_row_without_a_score_affects_only_its_own_request(model: LiveModel) -> None:
    Calls(model)

    batch = LocalScorer().score(model, [rows(model, 1), rows(model, 2, -3, -4), rows(model, 5)])

    assert predictions(batch.scores) == [1, 5]
    assert {number: error.rows for number, error in batch.errors.items()} == {1: [1, 2]}


def test_cached_scores_are_not_computed_again(model: LiveModel) -> None:
    calls = Calls(model)
    known, fresh = rows(model, 1, 2)
    known = msgspec.structs.replace(known, cached_score=Score(100.0))

    batch = LocalScorer().score(model, [[fresh, known], [known]])

    assert (predictions(batch.scores), calls.sizes) == ([2, 100, 100], [1])


def test_an_error_uses_the_row_numbers_of_the_request_even_if_some_rows_are_cached(model: LiveModel) -> None:
    Calls(model)
    known, bad = rows(model, 1, -2)
    known = msgspec.structs.replace(known, cached_score=Score(100.0))

    batch = LocalScorer().score(model, [[known, bad]])

    assert batch.errors[0].rows == [1]


async def test_a_slow_model_runs_in_a_separate_thread(model: LiveModel) -> None:
    calls = Calls(model)

    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    request = PendingRequest(model, rows(model, 1), RequestContext("test", "r"), answer, True)
    batch = await LocalScorer().score_later(model, [request])

    assert predictions(batch.scores) == [1]
    assert threading.current_thread().name not in calls.threads
