"""The Python API: a loaded model returns the same predictions as the server."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest

import rowcast
from rowcast.errors import InvalidRows
from support.waiting import eventually_async


async def test_a_loaded_model_returns_the_same_predictions_as_the_server(
    app_home: Path, client: httpx.AsyncClient
) -> None:
    model = rowcast.load("loans", home=app_home)
    rows = [{**(await client.get("/sample")).json(), "credit_score": score} for score in (350, 600, 850)]

    replies = (await client.post("/models/loans/predict", json={"rows": rows})).json()["predictions"]

    scores = model.predict(rows)
    assert [(score.prediction, score.score) for score in scores] == [
        (reply["prediction"], reply["score"]) for reply in replies
    ]
    assert model.predict([]) == []


async def test_every_invalid_row_is_reported(app_home: Path, client: httpx.AsyncClient) -> None:
    model = rowcast.load("loans", home=app_home)
    good = (await client.get("/sample")).json()

    with pytest.raises(InvalidRows) as rejected:
        model.predict([{**good, "loan_term": "long"}, good, {**good, "credit_score": float("nan")}])

    assert [(problem.row, problem.column) for problem in rejected.value.problems] == [
        (0, "loan_term"),
        (2, "credit_score"),
    ]


async def test_only_the_owner_can_read_recorded_rows(app_home: Path, client: httpx.AsyncClient) -> None:
    assert (await client.post("/predict", json=(await client.get("/sample")).json())).status_code == 200

    async def healthy() -> bool:  # heartbeats pause during tests that do not run the event loop
        checks = (await client.get("/health")).json()["checks"]
        return bool(checks == {"history": "ok", "disk": "ok", "workers": "ok"})

    await eventually_async(healthy)
    files = [app_home / "history.db", *(app_home / "journal").glob("*.journal")]

    assert len(files) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
