"""Requests and replies in the form of a model's wire template, through the app."""

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
async def wired(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """An app that caches, with a model for each of the old systems."""
    home = tmp_path_factory.mktemp("wired")
    registry = FolderRegistry(home / "models")
    for name, (graph, schema, decision, wire) in MODELS.items():
        models.publish(registry, name, graph, schema, decision, "probabilities", wire)
    async with apps.serving(home=home, default_model="mlops", cache=True) as client:
        yield client


async def native(client: httpx.AsyncClient, name: str, row: dict[str, Any]) -> dict[str, Any]:
    found = await client.post(f"/models/{name}/predict?wire=false", json=row)
    assert found.status_code == 200, found.text
    answer: dict[str, Any] = found.json()
    return answer


async def test_loan_gateway(wired: httpx.AsyncClient) -> None:
    for row in models.random_rows(NUMBERS, 20):
        said = (await wired.post("/models/gateway/predict", json=row)).json()
        told = await native(wired, "gateway", row)

        assert said == {
            "approval_status": {0: "rejected", 1: "approved"}[told["prediction"]],
            "confidence": told["probability"],
        }


async def test_loan_mlops(wired: httpx.AsyncClient) -> None:
    row = {"income": 2.5, "employed": False, "age": 31}
    reply = await wired.post("/predict", json=row)
    said, told = reply.json(), await native(wired, "mlops", row)

    assert list(said) == ["prediction", "prediction_label", "latency_seconds", "features_used"]
    assert said["prediction"] == told["prediction"]
    assert said["prediction_label"] == {0: "Rejected", 1: "Approved"}[told["prediction"]]
    assert said["features_used"] == ["income", "employed", "age"]
    assert 0 < said["latency_seconds"] < 10
    assert "x-wire-warning" not in reply.headers


async def test_missing_and_unknown_columns_are_mended_where_the_template_says_so(wired: httpx.AsyncClient) -> None:
    mended = await wired.post("/predict", json={"age": 31, "shoe_size": 44})
    whole = (await wired.post("/predict", json={"age": 31, "income": 0, "employed": False})).json()
    kept = (await wired.get("/predictions", params={"model": "mlops", "limit": 1})).status_code

    assert {**mended.json(), "latency_seconds": 0} == {**whole, "latency_seconds": 0}
    assert mended.headers["x-wire-warning"] == "filled=2, ignored=1"
    assert kept == 200
    wrong = await wired.post("/predict", json={"age": "old", "shoe_size": 44})
    assert wrong.status_code == 422
    assert [problem["column"] for problem in wrong.json()["errors"]] == ["age"]


async def test_the_root_answers_as_the_template_says(wired: httpx.AsyncClient) -> None:
    reply = await wired.get("/", headers={"accept": "*/*"})

    assert reply.json() == {
        "status": "ok",
        "model_loaded": True,
        "features_count": 3,
        "categorical_count": 0,
        "boolean_count": 1,
    }
    assert (await wired.get("/", headers={"accept": "text/html"})).status_code == 307


async def test_iris_api(wired: httpx.AsyncClient) -> None:
    names = NUMBERS.names()
    for row in models.random_rows(NUMBERS, 20):
        sent = {f"feature{number}": row[name] for number, name in enumerate(names, 1)}
        said = (await wired.post("/models/iris/predict", json=sent)).json()
        told = await native(wired, "iris", row)

        assert said == {
            "prediction": ["setosa", "versicolor", "virginica"].index(told["prediction"]),
            "probability": told["probability"],
        }


async def test_errors_speak_of_the_clients_names(wired: httpx.AsyncClient) -> None:
    reply = await wired.post("/models/iris/predict", json={"feature1": "x", "feature2": 1, "x2": 3, "more": 4})

    assert reply.status_code == 422
    assert reply.headers["content-type"] == "application/problem+json"
    assert {(problem["column"], problem["code"]) for problem in reply.json()["errors"]} == {
        ("feature1", "wrong-type"),
        ("feature3", "missing"),
        ("feature4", "missing"),
        ("x2", "unknown-column"),
        ("more", "unknown-column"),
    }


async def test_onnx_pipeline(wired: httpx.AsyncClient) -> None:
    rows = models.random_rows(NUMBERS, 5)
    matrix = [list(row.values()) for row in rows]
    first = await wired.post("/models/pipeline/predict", json={"data": matrix, "use_cache": True, "cache_ttl": 3600})
    again = await wired.post("/models/pipeline/predict", json={"data": matrix})
    fresh = await wired.post("/models/pipeline/predict", json={"data": matrix, "use_cache": False})
    told = [await native(wired, "pipeline", row) for row in rows]

    said = first.json()
    assert said["predictions"] == ["abc".index(each["prediction"]) for each in told]
    assert said["probabilities"] == [list(each["probabilities"].values()) for each in told]
    assert said["model_info"].keys() == {"model_name", "prediction_time", "input_shape", "cached"}
    assert (said["model_info"]["model_name"], said["model_info"]["input_shape"]) == ("pipeline", [5, 4])
    assert [each.json()["model_info"]["cached"] for each in (first, again, fresh)] == [False, True, False]
    assert [each.headers.get("x-cache") for each in (first, again, fresh)] == ["miss", "hit", None]


async def test_a_batch_of_matrices(wired: httpx.AsyncClient) -> None:
    rows = models.random_rows(NUMBERS, 3, seed=1)
    matrix = [list(row.values()) for row in rows]
    body = {"requests": [{"data": matrix[:1]}, {"data": matrix[1:], "use_cache": False}]}
    said = (await wired.post("/models/pipeline/predict/batch", json=body)).json()

    told = [await native(wired, "pipeline", row) for row in rows]
    assert [len(each["predictions"]) for each in said["predictions"]] == [1, 2]
    assert [share for each in said["predictions"] for share in each["probabilities"]] == [
        list(each["probabilities"].values()) for each in told
    ]


async def test_a_batch_of_objects(wired: httpx.AsyncClient) -> None:
    rows = models.random_rows(NUMBERS, 3, seed=2)
    reply = await wired.post("/models/gateway/predict/batch", json={"rows": rows})
    alone = [(await wired.post("/models/gateway/predict", json=row)).json() for row in rows]

    assert reply.json() == {"model": "gateway", "version": 1, "predictions": alone}
    wrong = await wired.post("/models/gateway/predict/batch", json={"rows": [rows[0], {**rows[1], "x0": "?"}]})
    assert [(problem["row"], problem["column"]) for problem in wrong.json()["errors"]] == [(1, "x0")]


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
async def test_a_request_of_another_shape_is_refused(
    wired: httpx.AsyncClient, body: bytes, status: int, slug: str
) -> None:
    reply = await wired.post("/models/pipeline/predict", content=body)

    assert (reply.status_code, reply.json()["type"]) == (status, f"urn:rowcast:error:{slug}"), reply.text


async def test_the_sample_is_a_request_that_the_template_takes(wired: httpx.AsyncClient) -> None:
    sample = (await wired.get("/sample")).json()

    assert (await wired.post("/predict", json=sample)).status_code == 200


async def test_history_is_that_of_the_native_dialect(wired: httpx.AsyncClient) -> None:
    row = models.random_rows(NUMBERS, 1, seed=9)[0]
    await wired.post("/models/iris/predict", json={f"feature{at}": cell for at, cell in enumerate(row.values(), 1)})
    await wired.post("/models/pipeline/predict", json={"data": [list(row.values())], "use_cache": False})
    for name in ("iris", "pipeline"):
        told = await native(wired, name, row)
        entry = await newest(wired, name, told["id"])

        assert entry["row"] == row
        assert entry["source"] == "wire"
        assert {**entry["prediction"], "id": "", "cached": False} == {**told, "id": "", "cached": False}


async def newest(client: httpx.AsyncClient, name: str, not_this: str) -> dict[str, Any]:
    """The newest stored prediction of a model that the wire asked for."""

    async def found() -> list[dict[str, Any]]:
        entries = (await client.get("/predictions", params={"model": name, "limit": 5})).json()["predictions"]
        ids = [entry["id"] for entry in entries]
        return [entry for entry in entries if entry["source"] == "wire"] if not_this in ids else []

    entries: list[dict[str, Any]] = await eventually_async(found)
    return entries[0]


async def test_a_row_without_a_finite_answer_is_refused_alone(tmp_path: Path) -> None:
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


async def test_a_row_that_breaks_the_graph_is_refused_alone(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "models")
    models.publish(registry, "pick", models.picking_graph(3), models.number_columns(1), models.REGRESSION, "values")
    async with apps.serving(home=tmp_path) as client:
        rows = [{"x0": 1}, {"x0": 7}, {"x0": 2}]
        whole = await client.post("/predict", json={"rows": rows})
        together = await asyncio.gather(*[client.post("/predict", json=row) for row in rows])

        assert (whole.status_code, [problem["row"] for problem in whole.json()["errors"]]) == (422, [1])
        assert whole.json()["detail"] == "row 1: the model has no valid output for this row"
        assert [reply.status_code for reply in together] == [200, 422, 200]
        assert [together[place].json()["prediction"] for place in (0, 2)] == [1.0, 2.0]


async def test_the_api_describes_each_models_own_form(wired: httpx.AsyncClient) -> None:
    document = (await wired.get("/openapi.json")).json()

    for name in MODELS:
        for tail in ("", "/batch"):
            path = f"/models/{name}/predict{tail}"
            operation = document["paths"][path]["post"]
            asked = operation["requestBody"]["content"]["application/json"]
            told = operation["responses"]["200"]["content"]["application/json"]
            for title, example in asked["examples"].items():
                query = "?wire=false" if title.startswith("native") else ""
                reply = await wired.post(path + query, json=example["value"])
                assert reply.status_code == 200, reply.text
                check(document, asked["schema"], example["value"])
                check(document, told["schema"], reply.json())
                check(document, told["schema"], told["examples"][title]["value"])
            assert next(iter(asked["examples"])) == ("wire-batch" if tail else "wire")


def check(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """JSON Schema, with the document's own references."""
    jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]}).validate(value)


async def test_our_own_client_asks_natively(wired: httpx.AsyncClient) -> None:
    sample = (await wired.get("/sample", params={"wire": "false"})).json()

    assert sample == {"income": 1.5, "employed": True, "age": 30}
    request = calls.ModelCalls(str, retries=0).predict(sample, "iris", calls.CheckedOptions()).request
    assert ("wire", "false") in request.query
    assert calls.sample().request.query == (("wire", "false"),)
