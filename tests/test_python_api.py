"""The Python face: the server's answers without a server."""

from __future__ import annotations

import stat
from pathlib import Path

import httpx
import pytest

import rowcast
from rowcast.errors import InvalidRows
from support.waiting import eventually_async


async def test_a_loaded_model_answers_as_the_server_does(app_home: Path, client: httpx.AsyncClient) -> None:
    model = rowcast.load("loans", home=app_home)
    rows = [{**(await client.get("/sample")).json(), "credit_score": score} for score in (350, 600, 850)]

    answered = (await client.post("/models/loans/predict", json={"rows": rows})).json()["predictions"]

    found = model.predict(rows)
    assert [(one.prediction, one.score) for one in found] == [(one["prediction"], one["score"]) for one in answered]
    assert model.predict([]) == []


async def test_every_row_that_does_not_fit_is_named(app_home: Path, client: httpx.AsyncClient) -> None:
    model = rowcast.load("loans", home=app_home)
    good = (await client.get("/sample")).json()

    with pytest.raises(InvalidRows) as refused:
        model.predict([{**good, "loan_term": "long"}, good, {**good, "credit_score": float("nan")}])

    assert [(one.row, one.column) for one in refused.value.problems] == [(0, "loan_term"), (2, "credit_score")]


async def test_what_people_sent_is_for_the_owner_alone(app_home: Path, client: httpx.AsyncClient) -> None:
    assert (await client.post("/predict", json=(await client.get("/sample")).json())).status_code == 200

    async def healthy() -> bool:  # the app's loop stood still during tests that do not use it, and so did its heart
        checks = (await client.get("/health")).json()["checks"]
        return bool(checks == {"history": "ok", "disk": "ok", "workers": "ok"})

    await eventually_async(healthy)
    kept = [app_home / "history.db", *(app_home / "journal").glob("*.journal")]

    assert len(kept) == 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
