"""KServe's V1 protocol."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from support import apps, models

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_json_sent_with_a_form_content_type_is_accepted(client: httpx.AsyncClient) -> None:
    body = json.dumps({"signature_name": "serving_default", "instances": [[1.0, 2.0], [3.0, 4.0]]})
    form = {"content-type": "application/x-www-form-urlencoded"}

    reply = await client.post("/v1/models/sum/versions/1:predict", content=body, headers=form)

    assert reply.json() == {"predictions": [3.0, 7.0]}


async def test_a_missing_number_is_accepted_next_to_a_string_with_a_colon(client: httpx.AsyncClient) -> None:
    """Some Python clients send NaN, which is not valid JSON. The colon in the string makes the server decode the body a
    second time, to check it for duplicate keys."""
    body = '{"instances": [{"annual_income": NaN, "purpose": "x:y"}]}'

    reply = await client.post("/v1/models/loans:predict", content=body, headers={"content-type": "application/json"})

    assert reply.status_code < 500, reply.text


async def test_models_are_listed_by_name(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/models")).json() == {"models": ["loans", "sum"]}


@pytest.mark.parametrize("path", ["/v1/models/sum", "/v1/models/sum/versions/1", "/v1/models/sum/labels/champion"])
async def test_the_status_of_a_model_contains_its_served_version(client: httpx.AsyncClient, path: str) -> None:
    body = (await client.get(path)).json()

    assert (body["name"], body["ready"]) == ("sum", True)
    assert [(status["version"], status["state"]) for status in body["model_version_status"]] == [("1", "AVAILABLE")]


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ({"instances": [[1, 2], [3, 4]]}, {"predictions": [3.0, 7.0]}),
        ({"instances": [{"x0": 1, "x1": 2}]}, {"predictions": [3.0]}),
        ({"inputs": {"x0": [1, 3], "x1": [2, 4]}}, {"outputs": [3.0, 7.0]}),
    ],
)
async def test_the_reply_has_the_same_layout_as_the_request(
    client: httpx.AsyncClient, body: object, reply: object
) -> None:
    assert (await client.post("/v1/models/sum:predict", json=body)).json() == reply


async def test_the_status_by_label_or_version_contains_only_that_version(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "models")
    for _ in range(2):
        models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    async with apps.serving(home=tmp_path, models="sum@1,sum@2", default_model="sum@2") as client:
        versions = {}
        for path in ("", "/labels/champion", "/labels/stable", "/versions/1", "/versions/2"):
            body = (await client.get(f"/v1/models/sum{path}")).json()
            versions[path] = [status["version"] for status in body["model_version_status"]]
        unknown = await client.get("/v1/models/sum/labels/canary")

    assert unknown.status_code == 404
    served = versions["/labels/champion"]
    assert versions == {
        "": ["1", "2"],
        "/labels/champion": served,
        "/labels/stable": served,
        "/versions/1": ["1"],
        "/versions/2": ["2"],
    }
    assert len(served) == 1
