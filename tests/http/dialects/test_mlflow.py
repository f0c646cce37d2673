"""The routes of MLflow's scoring server: `/invocations`, `/ping` and `/version`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

import rowcast
from support import apps

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")
BAD_INVOCATIONS: dict[str, Any] = {
    "two layouts": {"instances": [[1]], "inputs": [[1]]},
    "an unknown key": {"instances": [[1]], "more": 1},
    "a duplicate column": {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
    "records that are lists": {"dataframe_records": [[1]]},
    "no rows": {"dataframe_records": []},
    "columns of unequal length": {"inputs": {"x0": [1, 2], "x1": [1]}},
    "unknown params": {"dataframe_records": [{}], "params": {"temperature": 1}},
    "data that is not a list": {"dataframe_split": {"columns": [], "data": 7}},
    "nested columns": {"inputs": {"x0": [[1, 2]]}},
    "an object as a cell": {"dataframe_records": [{"annual_income": {}}]},
}


@pytest.mark.parametrize("case", BAD_INVOCATIONS)
async def test_an_invalid_request_gets_an_mlflow_error(client: httpx.AsyncClient, case: str) -> None:
    reply = await client.post("/invocations", json=BAD_INVOCATIONS[case])

    assert reply.status_code == 400
    assert reply.json()["error_code"] == "BAD_REQUEST"
    assert reply.json()["message"]


async def test_the_invocations_route_accepts_only_json_and_csv(client: httpx.AsyncClient) -> None:
    text = await client.post("/invocations", content=b"x", headers={"content-type": "text/plain"})
    malformed = await client.post("/invocations", content=b'a,b\n"x', headers={"content-type": "text/csv"})

    assert (text.status_code, text.json()["error_code"]) == (415, "BAD_REQUEST")
    assert malformed.status_code == 400


async def test_the_ping_and_version_routes_return_plain_text(client: httpx.AsyncClient) -> None:
    ping, version = [await client.get(path) for path in ("/ping", "/version")]

    assert (ping.status_code, ping.text) == (200, "\n")
    assert (version.status_code, version.text) == (200, rowcast.__version__)


async def test_a_csv_body_with_too_many_lines_is_not_read_to_the_end(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "text/csv", "accept": "application/problem+json"}

    # Reading to the end would reach the unclosed quote, which would cause a different error.
    reply = await client.post("/invocations", content="a\n" + "1\n" * 20_000 + '"', headers=headers)

    assert reply.json()["type"] == "urn:rowcast:error:too-many-rows"


async def test_a_csv_body_may_contain_exactly_the_maximum_number_of_rows(app_home: Path) -> None:
    async with apps.serving(home=app_home, registry=app_home / "models", default_model="sum", max_rows=3) as client:
        headers = {"content-type": "text/csv"}
        statuses = [
            (await client.post("/invocations", content="x0,x1\n" + "1,2\n" * rows, headers=headers)).status_code
            for rows in (3, 4)
        ]

    assert statuses == [200, 400]


async def test_a_duplicate_column_is_rejected(client: httpx.AsyncClient) -> None:
    reply = await client.post("/invocations", json={"dataframe_split": {"columns": ["x0", "x1", "x0"], "data": []}})

    assert reply.status_code == 400
    assert "'x0'" in reply.json()["message"]
