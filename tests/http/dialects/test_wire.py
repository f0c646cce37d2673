"""Models with a wire template accept and return other systems' JSON formats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
import pytest_asyncio

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.client import calls
from rowcast.schema.schema import Column, Schema
from support import apps, models
from support.waiting import eventually_async

pytestmark = pytest.mark.asyncio(loop_scope="session")

NUMBERS = models.number_columns(4)
MIXED = Schema(
    (
        Column(name="income", kind="number", example=1.5),
        Column(name="employed", kind="boolean", example=True),
        Column(name="age", kind="integer", example=30, missing=True),
    )
)
GATEWAY = {
    "reply": {"approval_status": "$label", "confidence": "$probability"},
    "labels": {"1": "approved", "0": "rejected"},
}
MLOPS = {
    "request": {"on_missing": 0, "on_unknown": "ignore"},
    "labels": {"1": "Approved", "0": "Rejected"},
    "reply": {
        "prediction": "$class_index",
        "prediction_label": "$label",
        "latency_seconds": "$latency_seconds",
        "features_used": "$columns",
    },
    "root": {
        "status": "ok",
        "model_loaded": "$model_loaded",
        "features_count": "$column_count",
        "categorical_count": "$category_count",
        "boolean_count": "$boolean_count",
    },
}
IRIS = {
    "request": {"rename": {f"feature{number}": name for number, name in enumerate(NUMBERS.names(), 1)}},
    "reply": {"prediction": "$class_index", "probability": "$probability"},
}
PIPELINE = {
    "request": {
        "form": "matrix",
        "path": "data",
        "batch": "requests[].data",
        "use_cache": "use_cache",
        "cache_ttl": "cache_ttl",
    },
    "reply": {
        "predictions": {"$rows": "$class_index"},
        "probabilities": {"$rows": "$probabilities"},
        "model_info": {
            "model_name": "$model",
            "prediction_time": "$latency_seconds",
            "input_shape": "$input_shape",
            "cached": "$cached",
        },
    },
    "batch_reply": {"predictions": {"$requests": "$reply"}},
}
MODELS: dict[str, tuple[bytes, Schema, Any, dict[str, Any]]] = {
    "gateway": (models.mlp_graph(4, 2), NUMBERS, models.classes(0, 1), GATEWAY),
    "mlops": (models.mlp_graph(3, 2), MIXED, models.classes(0, 1), MLOPS),
    "iris": (models.mlp_graph(4, 3), NUMBERS, models.classes("setosa", "versicolor", "virginica"), IRIS),
    "pipeline": (models.mlp_graph(4, 3), NUMBERS, models.classes("a", "b", "c"), PIPELINE),
}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A client for an app that has a cache and serves four models, each with a different system's wire template."""
    home = tmp_path_factory.mktemp("wire")
    registry = FolderRegistry(home / "models")
    for name, (graph, schema, decision, wire) in MODELS.items():
        models.publish(registry, name, graph, schema, decision, "probabilities", wire)
    async with apps.serving(home=home, default_model="mlops", cache=True) as running:
        yield running


async def native(client: httpx.AsyncClient, name: str, row: dict[str, Any]) -> dict[str, Any]:
    """Return the prediction in the native format."""
    reply = await client.post(f"/models/{name}/predict?wire=false", json=row)
    assert reply.status_code == 200, reply.text
    prediction: dict[str, Any] = reply.json()
    return prediction


async def test_the_loan_gateway_template_returns_a_status_and_a_confidence(client: httpx.AsyncClient) -> None:
    for row in models.random_rows(NUMBERS, 20):
        body = (await client.post("/models/gateway/predict", json=row)).json()
        prediction = await native(client, "gateway", row)

        assert body == {
            "approval_status": {0: "rejected", 1: "approved"}[prediction["prediction"]],
            "confidence": prediction["probability"],
        }


async def test_the_loan_mlops_template_returns_a_label_and_the_features_used(client: httpx.AsyncClient) -> None:
    row = {"income": 2.5, "employed": False, "age": 31}
    reply = await client.post("/predict", json=row)
    body, prediction = reply.json(), await native(client, "mlops", row)

    assert list(body) == ["prediction", "prediction_label", "latency_seconds", "features_used"]
    assert body["prediction"] == prediction["prediction"]
    assert body["prediction_label"] == {0: "Rejected", 1: "Approved"}[prediction["prediction"]]
    assert body["features_used"] == ["income", "employed", "age"]
    assert 0 < body["latency_seconds"] < 10
    assert "x-wire-warning" not in reply.headers


async def test_a_template_can_fill_missing_columns_and_ignore_unknown_columns(client: httpx.AsyncClient) -> None:
    repaired = await client.post("/predict", json={"age": 31, "shoe_size": 44})
    complete = (await client.post("/predict", json={"age": 31, "income": 0, "employed": False})).json()
    history = await client.get("/predictions", params={"model": "mlops", "limit": 1})

    assert {**repaired.json(), "latency_seconds": 0} == {**complete, "latency_seconds": 0}
    assert repaired.headers["x-wire-warning"] == "filled=2, ignored=1"
    assert history.status_code == 200
    invalid = await client.post("/predict", json={"age": "old", "shoe_size": 44})
    assert invalid.status_code == 422
    assert [problem["column"] for problem in invalid.json()["errors"]] == ["age"]


async def test_the_template_defines_the_reply_at_the_root_path(client: httpx.AsyncClient) -> None:
    reply = await client.get("/", headers={"accept": "*/*"})

    assert reply.json() == {
        "status": "ok",
        "model_loaded": True,
        "features_count": 3,
        "categorical_count": 0,
        "boolean_count": 1,
    }
    assert (await client.get("/", headers={"accept": "text/html"})).status_code == 307


async def test_the_iris_api_template_renames_columns_and_returns_a_class_index(client: httpx.AsyncClient) -> None:
    names = NUMBERS.names()
    for row in models.random_rows(NUMBERS, 20):
        sent = {f"feature{number}": row[name] for number, name in enumerate(names, 1)}
        body = (await client.post("/models/iris/predict", json=sent)).json()
        prediction = await native(client, "iris", row)

        assert body == {
            "prediction": ["setosa", "versicolor", "virginica"].index(prediction["prediction"]),
            "probability": prediction["probability"],
        }


async def test_errors_contain_the_column_names_that_the_client_uses(client: httpx.AsyncClient) -> None:
    reply = await client.post("/models/iris/predict", json={"feature1": "x", "feature2": 1, "x2": 3, "more": 4})

    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert {(problem["column"], problem["code"]) for problem in reply.json()["errors"]} == {
        ("feature1", "wrong-type"),
        ("feature3", "missing"),
        ("feature4", "missing"),
        ("x2", "unknown-column"),
        ("more", "unknown-column"),
    }


async def test_the_onnx_pipeline_template_accepts_a_matrix_and_cache_options(client: httpx.AsyncClient) -> None:
    rows = models.random_rows(NUMBERS, 5)
    matrix = [list(row.values()) for row in rows]
    first = await client.post("/models/pipeline/predict", json={"data": matrix, "use_cache": True, "cache_ttl": 3600})
    again = await client.post("/models/pipeline/predict", json={"data": matrix})
    fresh = await client.post("/models/pipeline/predict", json={"data": matrix, "use_cache": False})
    predictions = [await native(client, "pipeline", row) for row in rows]

    body = first.json()
    assert body["predictions"] == ["abc".index(each["prediction"]) for each in predictions]
    assert body["probabilities"] == [list(each["probabilities"].values()) for each in predictions]
    assert body["model_info"].keys() == {"model_name", "prediction_time", "input_shape", "cached"}
    assert (body["model_info"]["model_name"], body["model_info"]["input_shape"]) == ("pipeline", [5, 4])
    assert [each.json()["model_info"]["cached"] for each in (first, again, fresh)] == [False, True, False]
    assert [each.headers.get("x-cache") for each in (first, again, fresh)] == ["miss", "hit", None]


async def test_a_batch_can_contain_requests_with_matrices(client: httpx.AsyncClient) -> None:
    rows = models.random_rows(NUMBERS, 3, seed=1)
    matrix = [list(row.values()) for row in rows]
    body = {"requests": [{"data": matrix[:1]}, {"data": matrix[1:], "use_cache": False}]}
    reply = (await client.post("/models/pipeline/predict/batch", json=body)).json()

    predictions = [await native(client, "pipeline", row) for row in rows]
    assert [len(each["predictions"]) for each in reply["predictions"]] == [1, 2]
    assert [share for each in reply["predictions"] for share in each["probabilities"]] == [
        list(each["probabilities"].values()) for each in predictions
    ]


async def test_a_batch_can_contain_rows_as_objects(client: httpx.AsyncClient) -> None:
    rows = models.random_rows(NUMBERS, 3, seed=2)
    reply = await client.post("/models/gateway/predict/batch", json={"rows": rows})
    single = [(await client.post("/models/gateway/predict", json=row)).json() for row in rows]

    assert reply.json() == {"model": "gateway", "version": 1, "predictions": single}
    invalid = await client.post("/models/gateway/predict/batch", json={"rows": [rows[0], {**rows[1], "x0": "?"}]})
    assert [(problem["row"], problem["column"]) for problem in invalid.json()["errors"]] == [(1, "x0")]


@pytest.mark.parametrize(
    ("body", "status", "slug"),
    [
        (b"", 400, "empty-body"),
        (b"{", 400, "malformed-body"),
        (b"[]", 422, "wrong-shape"),
        (b'{"data": []}', 422, "no-rows"),
        (b'{"data": [[1, 2]]}', 422, "wrong-shape"),
        (b'{"data": [[1, 2, 3, "x"]]}', 422, "invalid-row"),
        (b'{"data": [[1, 2, 3, null]]}', 422, "invalid-row"),
        (b'{"data": [[1, 2, 3, [4]]]}', 422, "invalid-row"),
        (b'{"data": [1, 2, 3, 4]}', 422, "wrong-shape"),
        (b'{"data": [[1, 2, 3, 4]], "cache_ttl": 0}', 422, "wrong-shape"),
        (b'{"data": [[1, 2, 3, 4]], "cache_ttl": 86401}', 422, "wrong-shape"),
        (b'{"data": [[1, 2, 3, 4]], "use_cache": "no"}', 422, "wrong-shape"),
        (b'{"data": [[1, 2, 3, 4]], "more": 1}', 422, "wrong-shape"),
        (b'{"use_cache": true}', 422, "wrong-shape"),
        (b'{"data": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "too-deep"),
        (b'{"data": [[1, 2, 3, 1e999]]}', 422, "invalid-row"),
        (b'\xff{"data": [[1, 2, 3, 4]]}', 400, "malformed-body"),
    ],
)
async def test_an_invalid_request_is_rejected(client: httpx.AsyncClient, body: bytes, status: int, slug: str) -> None:
    reply = await client.post("/models/pipeline/predict", content=body)

    assert (reply.status_code, reply.json()["type"]) == (status, f"urn:rowcast:error:{slug}"), reply.text


async def test_the_sample_is_a_valid_request(client: httpx.AsyncClient) -> None:
    sample = (await client.get("/sample")).json()

    assert (await client.post("/predict", json=sample)).status_code == 200


async def test_the_history_stores_rows_and_predictions_in_the_native_format(client: httpx.AsyncClient) -> None:
    row = models.random_rows(NUMBERS, 1, seed=9)[0]
    await client.post("/models/iris/predict", json={f"feature{at}": cell for at, cell in enumerate(row.values(), 1)})
    await client.post("/models/pipeline/predict", json={"data": [list(row.values())], "use_cache": False})
    for name in ("iris", "pipeline"):
        prediction = await native(client, name, row)
        entry = await newest(client, name, prediction["id"])

        assert entry["row"] == row
        assert entry["source"] == "wire"
        assert {**entry["prediction"], "id": "", "cached": False} == {**prediction, "id": "", "cached": False}


async def newest(client: httpx.AsyncClient, name: str, native_id: str) -> dict[str, Any]:
    """Return the newest stored entry whose request used the wire template."""

    async def wire_entries() -> list[dict[str, Any]]:
        entries = (await client.get("/predictions", params={"model": name, "limit": 5})).json()["predictions"]
        ids = [entry["id"] for entry in entries]
        return [entry for entry in entries if entry["source"] == "wire"] if native_id in ids else []

    entries: list[dict[str, Any]] = await eventually_async(wire_entries)
    return entries[0]


async def test_a_row_without_a_finite_score_does_not_affect_concurrent_requests(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    huge = {"x0": 3e38, "x1": 3e38}
    async with apps.serving(home=tmp_path) as client:
        alone = await client.post("/predict", json=huge)
        rows = [{"x0": 1, "x1": 2}, huge, {"x0": 3, "x1": 4}]
        whole = await client.post("/predict", json={"rows": rows})
        part = await client.post("/predict?partial=true", json={"rows": rows})
        together = await asyncio.gather(*[client.post("/predict", json=row) for row in rows])

        assert (alone.status_code, alone.json()["type"]) == (422, "urn:rowcast:error:no-answer")
        assert [problem["row"] for problem in whole.json()["errors"]] == [1]
        predictions = part.json()["predictions"]
        assert [each.get("prediction") for each in predictions] == [3.0, None, 7.0]
        assert predictions[1]["errors"][0]["code"] == "no-answer"
        assert [reply.status_code for reply in together] == [200, 422, 200]
        assert (await client.get("/health")).json()["status"] == "ok"


async def test_a_row_that_the_graph_cannot_score_does_not_affect_concurrent_requests(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "models")
    models.publish(registry, "pick", models.picking_graph(3), models.number_columns(1), models.REGRESSION, "values")
    async with apps.serving(home=tmp_path) as client:
        rows = [{"x0": 1}, {"x0": 7}, {"x0": 2}]
        whole = await client.post("/predict", json={"rows": rows})
        together = await asyncio.gather(*[client.post("/predict", json=row) for row in rows])

        assert (whole.status_code, [problem["row"] for problem in whole.json()["errors"]]) == (422, [1])
        assert whole.json()["errors"][0]["code"] == "no-answer"
        assert [reply.status_code for reply in together] == [200, 422, 200]
        assert [together[place].json()["prediction"] for place in (0, 2)] == [1.0, 2.0]


async def test_the_openapi_document_describes_the_request_format_of_each_model(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    for name in MODELS:
        for tail in ("", "/batch"):
            path = f"/models/{name}/predict{tail}"
            operation = document["paths"][path]["post"]
            request_body = operation["requestBody"]["content"]["application/json"]
            response = operation["responses"]["200"]["content"]["application/json"]
            for title, example in request_body["examples"].items():
                query = "?wire=false" if title.startswith("native") else ""
                reply = await client.post(path + query, json=example["value"])
                assert reply.status_code == 200, reply.text
                check(document, request_body["schema"], example["value"])
                check(document, response["schema"], reply.json())
                check(document, response["schema"], response["examples"][title]["value"])
            assert next(iter(request_body["examples"])) == ("wire-batch" if tail else "wire")


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Validate a value against a schema whose references point into the OpenAPI document."""
    jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


async def test_the_rowcast_client_uses_the_native_format(client: httpx.AsyncClient) -> None:
    sample = (await client.get("/sample", params={"wire": "false"})).json()

    assert sample == {"income": 1.5, "employed": True, "age": 30}
    request = calls.ModelCalls(str, retries=0).predict(sample, "iris", calls.CheckedOptions()).request
    assert ("wire", "false") in request.query
    assert calls.sample().request.query == (("wire", "false"),)
