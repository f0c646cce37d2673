"""The OpenAPI document is complete and consistent, and describes every model correctly."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

import rowcast

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")
READS: dict[str, dict[str, str]] = {
    "/models": {},
    "/models/info": {},
    "/models/{name}": {"name": "loans"},
    "/sample": {},
    "/predictions": {},
    "/predictions/{prediction_id}": {},
    "/health": {},
    "/health/live": {},
    "/health/ready": {},
}
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def references(node: Any) -> Iterator[str]:
    """Yield every `$ref` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def resolve(document: Any, reference: str) -> Any:
    """Return the part of a document to which a reference points."""
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


async def test_the_document_is_valid_openapi_3_1(client: httpx.AsyncClient) -> None:
    reply = await client.get("/openapi.json")

    document = reply.json()
    assert reply.headers["content-type"] == "application/json"
    assert document["openapi"].startswith("3.1.")
    assert document["info"] == {"title": "Rowcast", "version": rowcast.__version__}
    operations = []
    for path, item in document["paths"].items():
        assert path.startswith("/")
        assert item.keys() <= METHODS
        for operation in item.values():
            operations.append(operation["operationId"])
            assert operation["responses"]
            assert all(re.fullmatch(r"[1-5]\d\d|default", status) for status in operation["responses"])
            assert all(response["description"] for response in operation["responses"].values())
            templated = set(re.findall(r"{(\w+)}", path))
            declared = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
            assert declared == templated
    assert len(operations) == len(set(operations))
    for reference in references(document):
        assert resolve(document, reference) is not None
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


async def test_each_model_has_its_own_request_and_reply_schemas(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    for name, path in (("loans", "/predict"), ("loans", "/models/loans/predict"), ("sum", "/models/sum/predict")):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]
        row, batch = body["schema"]["anyOf"]
        example = body["examples"]["row"]["value"]
        assert resolve(document, row["$ref"]) == (await client.get(f"/models/{name}")).json()["schema"]
        assert batch["properties"]["rows"]["items"] == row
        prediction = (await client.post(path, json=example)).json()
        reply = resolve(
            document, operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"][0]["$ref"]
        )
        assert set(reply["required"]) <= prediction.keys() <= reply["properties"].keys()
        assert reply["additionalProperties"] is False
        batch_reply = (await client.post(path, json=body["examples"]["batch"]["value"])).json()
        assert batch_reply["predictions"][0].keys() == prediction.keys()


async def test_every_error_is_documented(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    responses = document["paths"]["/predict"]["post"]["responses"]
    problem_schema = document["components"]["schemas"]["Problem"]

    for body, headers in ((b"", {}), (b"{}", {}), (b"{}", {"content-type": "text/csv"}), (b'{"rows":[]}', {})):
        reply = await client.post("/predict", content=body, headers=headers)
        assert str(reply.status_code) in responses
        assert reply.json()["type"] in problem_schema["properties"]["type"]["enum"]
        assert set(problem_schema["required"]) <= reply.json().keys() <= problem_schema["properties"].keys()


@pytest.mark.parametrize("path", READS)
async def test_replies_from_cold_routes_match_their_schemas(client: httpx.AsyncClient, path: str) -> None:
    document = (await client.get("/openapi.json")).json()
    prediction = (await client.post("/models/sum/predict", json={"x0": 1, "x1": 2})).json()
    schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]

    reply = (await client.get(path.format(prediction_id=prediction["id"], **READS[path]))).json()

    jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(reply)
    if path != "/sample":
        assert resolve(document, schema["$ref"])["additionalProperties"] is False


async def test_error_replies_from_cold_routes_are_documented(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert {"400", "401", "403", "429", "503"} <= paths["/predictions"]["get"]["responses"].keys()
    assert "404" in paths["/predictions/{prediction_id}"]["get"]["responses"]
    assert {"304", "404"} <= paths["/models/{name}"]["get"]["responses"].keys()
    assert {"409", "503"} <= paths["/models/reload"]["post"]["responses"].keys()
    assert "security" not in paths["/health/live"]["get"]
