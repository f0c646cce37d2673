"""Complete V1, V2 and MLflow replies from an in-memory server."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import rowcast
from rowcast.events import RowsScored
from rowcast.registry.ports import Reference
from rowcast.serving.fleet import ProcessStatus, ReloadResult
from rowcast.serving.live_models import LiveModel
from support import apps, models, v2
from support.access import SECRET, new_key
from support.dialects import DialectFront

PUBLISHED = [Reference("old", 3), Reference("sum", 1), Reference("gone", 2)]
PROBLEM = {"accept": "application/problem+json"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LiveModel]:
    folder: Path = tmp_path_factory.mktemp("models")
    columns = models.number_columns(2)
    graphs = [
        ("sum", models.sum_graph(2), models.REGRESSION, "values"),
        ("two", models.mlp_graph(2, 2), models.classes(1, 2), "probabilities"),
        ("three", models.mlp_graph(2, 3), models.classes("a", "b", "c"), "probabilities"),
    ]
    return {name: models.live(folder, name, graph, columns, decision, kind) for name, graph, decision, kind in graphs}


@pytest.fixture
def front(live: dict[str, LiveModel]) -> DialectFront:
    return DialectFront(*live.values(), published=PUBLISHED, default="sum")


@pytest.fixture
def client(front: DialectFront) -> httpx.AsyncClient:
    return apps.client(front.edge)


async def get(client: httpx.AsyncClient, path: str) -> Any:
    reply = await client.get(path)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    return reply.json()


async def refused(client: httpx.AsyncClient, path: str, body: Any) -> tuple[int, str]:
    """Send a request; return the status and the error."""
    reply = await client.post(path, json=body)
    (error,) = reply.json().values() if "error" in reply.json() else (reply.json()["message"],)
    return reply.status_code, error


def outputs(*widths: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "datatype": datatype, "shape": [-1, width]} for name, datatype, width in widths]


async def test_the_metadata_describes_the_server_and_every_kind_of_model(client: httpx.AsyncClient) -> None:
    inputs = [{"name": name, "datatype": "FP64", "shape": [-1, 1]} for name in ("x0", "x1")]
    common = {"versions": ["1"], "platform": "onnx_onnxv1", "inputs": inputs}

    assert await get(client, "/v2") == {
        "name": "rowcast",
        "version": rowcast.__version__,
        "extensions": ["binary_tensor_data", "model_configuration", "model_repository", "statistics"],
    }
    assert await get(client, "/v2/models/sum") == {
        "name": "sum",
        **common,
        "outputs": outputs(("prediction", "FP32", 1)),
    }
    assert await get(client, "/v2/models/two") == {
        "name": "two",
        **common,
        "outputs": outputs(
            ("prediction", "INT64", 1), ("probability", "FP32", 1), ("score", "FP32", 1), ("probabilities", "FP32", 2)
        ),
    }
    assert await get(client, "/v2/models/three/versions/1") == {
        "name": "three",
        **common,
        "outputs": outputs(("prediction", "BYTES", 1), ("probability", "FP32", 1), ("probabilities", "FP32", 3)),
    }


async def test_the_configuration_describes_inputs_outputs_and_limits(client: httpx.AsyncClient) -> None:
    assert await get(client, "/v2/models/three/config") == {
        "name": "three",
        "platform": "onnxruntime_onnx",
        "backend": "onnxruntime",
        "version_policy": {"specific": {"versions": [1]}},
        "max_batch_size": 100,
        "input": [{"name": name, "data_type": "TYPE_FP64", "dims": [1]} for name in ("x0", "x1")],
        "output": [
            {"name": "prediction", "data_type": "TYPE_STRING", "dims": [1]},
            {"name": "probability", "data_type": "TYPE_FP32", "dims": [1]},
            {"name": "probabilities", "data_type": "TYPE_FP32", "dims": [3]},
        ],
    }


async def test_readiness_is_reported_in_every_dialect(client: httpx.AsyncClient, front: DialectFront) -> None:
    paths = ("/v2/health/live", "/v2/health/ready", "/v2/models/sum/ready", "/v1/models/sum", "/ping")

    ready = [await client.get(path) for path in paths]
    front.is_ready = False
    unready = [await client.get(path) for path in paths]

    status = [{"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}]
    assert [(reply.status_code, reply.json()) for reply in ready[:4]] == [
        (200, {"live": True}),
        (200, {"live": True, "ready": True}),
        (200, {"name": "sum", "ready": True}),
        (200, {"name": "sum", "ready": True, "model_version_status": status}),
    ]
    assert [(reply.status_code, reply.json()) for reply in unready[:4]] == [
        (200, {"live": True}),
        (503, {"live": False, "ready": False}),
        (503, {"name": "sum", "ready": False}),
        (503, {"name": "sum", "ready": False, "model_version_status": status}),
    ]
    for reply, code in ((ready[4], 200), (unready[4], 503)):
        assert (reply.status_code, reply.content) == (code, b"\n")
        assert reply.headers["content-type"] == "text/plain; charset=utf-8"


async def test_models_are_listed_by_name_and_only_if_the_key_allows_them(live: dict[str, LiveModel]) -> None:
    front = DialectFront(*live.values(), keys=[new_key(models=("two", "sum"))])
    async with apps.client(front.edge, headers={"x-api-key": SECRET}) as client:
        assert await get(client, "/v1/models/") == {"models": ["sum", "two"]}
        hidden = await client.get("/v1/models/three")

    assert hidden.status_code == 403


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        (
            "/v1/models/sum:predict",
            {"instances": [[1, 2]], "more": 1},
            400,
            "unknown key 'more'; known keys: instances",
        ),
        (
            "/v1/models/sum:predict",
            {"signature_name": "x", "instances": [[1, 2]]},
            400,
            "signature is 'serving_default'",
        ),
        ("/v1/models/sum:predict", {"instances": {"x0": [1]}}, 400, '"instances" must be a list of rows'),
        ("/v1/models/sum:predict", {}, 400, "send exactly one of instances, inputs; got none"),
        ("/v1/models/sum:predict", {"inputs": [], "instances": []}, 400, "got instances, inputs"),
        ("/v1/models/sum/labels/x:predict", {}, 404, "unknown label 'x'; the served version has the label 'champion'"),
        (f"/v1/models/sum:{'x' * 50}", {}, 501, f"the method :{'x' * 40} is not supported; use :predict"),
        (
            "/v1/models/sum/versions/2:predict",
            {},
            404,
            "version '2' of model 'sum' is not served; the served version is 1",
        ),
        ("/v2/repository/models/x/load", {}, 404, "unknown model 'x'; available models: gone, old, sum"),
        ("/v2/repository/models/sum/load", {"parameters": []}, 400, '"parameters" must be an object'),
        ("/v2/repository/models/sum/load", {"parameters": {"config": ""}}, 400, "unsupported parameter 'config';"),
        ("/v2/repository/index", {"ready": 1}, 400, '"ready" must be true or false'),
        ("/v2/repository/index", {"x": 1}, 400, "unknown key 'x'; known keys: ready, repository_name"),
        ("/invocations", {"instances": [[1, 2]], "x": 1}, 400, "known keys: dataframe_split, dataframe_records, inst"),
        ("/invocations", {"instances": [[1, 2]], "params": 1}, 400, '"params" must be an object'),
        ("/invocations", {"instances": [[1, 2]], "params": {"x": 1}}, 400, "known keys: predict_method"),
        (
            "/invocations",
            {"instances": [[1, 2]], "params": {"predict_method": "predict_proba"}},
            400,
            "parameter 'predict_method' must be predict",
        ),
        ("/invocations", {"dataframe_split": {"data": 1}}, 400, '"dataframe_split" must be an object'),
        ("/invocations", {"dataframe_split": []}, 400, '"dataframe_split" must be an object'),
        ("/invocations", {"dataframe_split": {"data": [], "x": 1}}, 400, "known keys: columns, index, data"),
        ("/invocations", {"dataframe_split": {"data": [], "columns": [1]}}, 400, '"columns" must be a list of column'),
        ("/invocations", {"dataframe_split": {"data": [], "columns": "x0"}}, 400, '"columns" must be a list of column'),
        ("/invocations", {"dataframe_records": {}}, 400, '"dataframe_records" must be a list of objects'),
        ("/invocations", {"dataframe_records": [{}, 1]}, 400, '"dataframe_records" must be a list of objects'),
        ("/invocations", {"instances": 7}, 400, "the rows must be a list of objects"),
        ("/invocations", {"instances": [[1, 2, 3]]}, 400, "row 0: expected a list of 2 values: x0, x1"),
        ("/invocations", {"instances": [[1, 2], "ab"]}, 400, "row 1: expected a list of 2 values: x0, x1"),
        ("/invocations", {"instances": [{"x0": 1, "x1": 2}, 3]}, 400, "row 1: expected a JSON object"),
        ("/invocations", {"inputs": {"x0": [[1], 2], "x1": [1, 2]}}, 400, "'x0': expected a list of values, or a list"),
        ("/invocations", {"inputs": {"x0": [[1], [2, 3]], "x1": [1, 2]}}, 400, "'x0': expected a list of values"),
        ("/invocations", {"inputs": {"x0": [1, 2], "x1": [1]}}, 400, "must all have the same length: x0: 2, x1: 1"),
        ("/invocations", {"inputs": {}}, 400, "the request contains no rows"),
    ],
)
async def test_the_error_for_an_invalid_request_says_what_is_expected(
    client: httpx.AsyncClient, path: str, body: Any, status: int, words: str
) -> None:
    code, error = await refused(client, path, body)

    assert code == status
    assert words in error


@pytest.mark.parametrize(
    ("body", "predictions"),
    [
        ({"dataframe_split": {"data": [[1, 2], [3, 4]]}}, [3, 7]),
        ({"dataframe_split": {"columns": ["x1", "x0"], "index": [5], "data": [[1, 2]]}}, [3]),
        ({"dataframe_records": [{"x0": 1, "x1": 2}]}, [3]),
        ({"instances": [[1, 2]], "params": {}}, [3]),
        ({"inputs": {"x0": [[1], [3]], "x1": [2, 4]}, "params": {"predict_method": "predict"}}, [3, 7]),
        ({"inputs": {"x0": 1, "x1": [[2]]}}, [3]),
        ({"inputs": [[1, 2]]}, [3]),
    ],
)
async def test_requests_in_every_mlflow_layout_are_scored(
    client: httpx.AsyncClient, body: Any, predictions: Any
) -> None:
    reply = await client.post("/invocations", json=body)

    assert reply.json() == {"predictions": predictions}


async def test_probabilities_are_sent_in_the_order_of_the_classes(live: dict[str, LiveModel]) -> None:
    front = DialectFront(live["three"])
    body = {"instances": [[1, 2], [3, 4]]}
    async with apps.client(front.edge) as client:
        proba = await client.post("/invocations", json={**body, "params": {"predict_method": "predict_proba"}})
        native = (await client.post("/predict", json={"rows": [{"x0": 1, "x1": 2}, {"x0": 3, "x1": 4}]})).json()
        wrong = await refused(client, "/invocations", {**body, "params": {"predict_method": "x"}})

    expected = [[row["probabilities"][name] for name in "abc"] for row in native["predictions"]]
    assert proba.json() == {"predictions": expected}
    assert wrong == (400, "parameter 'predict_method' must be predict or predict_proba")


def as_csv(*lines: list[str]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        (b"\xef\xbb\xbf x0 ,x1\r\n\r\n1,2\r\n", {"predictions": [3.0]}),
        (as_csv(["x0", "x1"], ["1", "2"], ["3", "4"]), {"predictions": [3.0, 7.0]}),
        (b"", "the body is empty; send a header and at least one row"),
        (b"x0,x1\n\xff,1\n", "the body is not valid UTF-8"),
        (b'x0,x1\n"', "the body is not valid CSV: unexpected end of data"),
        (b"x0,x1\n1\n", "row 0: the row has 1 cells, but the header has 2"),
        (b"x0,x1\n", "the request contains no rows; send at least one"),
        (b"x0,x0\n1,2\n", "column 'x0' occurs twice"),
        (b"x0,x1\n" + b"1,2\n" * 101, "too many rows; the limit is 100"),
    ],
)
async def test_a_csv_body_is_scored_or_rejected_with_a_specific_message(
    client: httpx.AsyncClient, body: bytes, reply: Any
) -> None:
    answer = await client.post("/invocations", content=body, headers={"content-type": "Text/CSV; charset=utf-8"})

    expected = reply if isinstance(reply, dict) else {"error_code": "BAD_REQUEST", "message": reply}
    assert answer.json() == expected


async def test_the_index_lists_live_unloaded_and_published_versions(
    client: httpx.AsyncClient, front: DialectFront
) -> None:
    front.fleet.unloaded.add("gone")

    whole = (await client.post("/v2/repository/index")).json()
    ready = (await client.post("/v2/repository/index", json={"ready": True})).json()

    def entry(name: str, version: str, reason: str | None = None) -> dict[str, str]:
        state = "READY" if reason is None else "UNAVAILABLE"
        return {"name": name, "version": version, "state": state, "reason": reason or ""}

    assert whole == [
        entry("gone", "2", "unloaded"),
        entry("old", "3", "not loaded"),
        *[entry(name, "1") for name in ("sum", "three", "two")],
    ]
    assert ready == whole[2:]


async def test_a_model_is_unloaded_and_loaded_in_all_processes(client: httpx.AsyncClient, front: DialectFront) -> None:
    body = {"parameters": {"unload_dependents": True}}
    unloaded = await client.post("/v2/repository/models/sum/unload", json=body)
    after_unload = set(front.fleet.unloaded)
    loaded = await client.post("/v2/repository/models/sum/load")
    front.fleet.result = ReloadResult("pending", [])
    pending = await client.post("/v2/repository/models/sum/load", headers=PROBLEM)
    processes = [ProcessStatus(0, "ready"), ProcessStatus(1, "ready", reload_error="it is a bomb")]
    front.fleet.result = ReloadResult("failed", processes)
    failed = await client.post("/v2/repository/models/sum/load")

    assert (unloaded.status_code, unloaded.json(), after_unload) == (200, {}, {"sum"})
    assert (loaded.status_code, loaded.json(), front.fleet.unloaded) == (200, {}, set())
    assert (pending.status_code, pending.json()["type"]) == (503, "urn:rowcast:error:unavailable")
    assert (failed.status_code, failed.json()) == (400, {"error": "it is a bomb"})


async def test_the_statistics_count_rows_of_successful_and_failed_requests(client: httpx.AsyncClient) -> None:
    await client.post("/v2/models/sum/infer", content=v2.as_json({"x0": [1.5, 2], "x1": [2.5, 3]}))
    await client.post("/v2/models/sum/infer", content=v2.as_json({"x0": [1.5, 2]}))

    (report,) = (await get(client, "/v2/models/sum/stats"))["model_stats"]
    every = (await get(client, "/v2/models/stats"))["model_stats"]

    inference = report["inference_stats"]
    assert (report["name"], report["version"], report["batch_stats"]) == ("sum", "1", [])
    assert (report["inference_count"], report["execution_count"]) == (2, 1)
    assert [inference[name]["count"] for name in ("success", "fail", "compute_infer", "queue")] == [1, 1, 1, 1]
    assert [inference[f"cache_{name}"] for name in ("hit", "miss")] == [{"count": 0, "ns": 0}] * 2
    assert inference["success"] == inference["compute_infer"]
    assert 0 < inference["success"]["ns"] < 60_000_000_000
    assert 0 < inference["fail"]["ns"] < 60_000_000_000
    assert inference["queue"] == inference["compute_input"] == inference["compute_output"] == {"count": 1, "ns": 0}
    assert [entry["name"] for entry in every] == ["sum", "three", "two"]
    assert every[0] == report
    assert every[1]["inference_stats"]["fail"] == {"count": 0, "ns": 0}


def scored_events(front: DialectFront) -> Iterator[RowsScored]:
    return (event for event in front.events if isinstance(event, RowsScored))


@pytest.mark.parametrize(("count", "is_block"), [(15, False), (16, True)])
@pytest.mark.parametrize("name", ["sum", "two", "three"])
async def test_blocks_of_at_least_16_rows_have_the_same_outputs_as_single_rows(
    client: httpx.AsyncClient, front: DialectFront, name: str, count: int, *, is_block: bool
) -> None:
    cells = {"x0": [float(number) for number in range(count)], "x1": [0.5] * count}
    binary, headers = v2.as_binary(cells)
    url = f"/v2/models/{name}/infer"

    sent_as_block = await client.post(url, content=binary, headers=headers)
    (event,) = scored_events(front)
    sent_as_json = await client.post(url, content=v2.as_json(cells))

    assert sent_as_block.status_code == 200, sent_as_block.text
    assert sent_as_block.json() == sent_as_json.json()
    assert isinstance(event.labels, dict) is is_block
    assert (event.rows, front.store.count()) == (count, 2 * count)
    assert [output["shape"][0] for output in sent_as_json.json()["outputs"]] == [count] * (
        1 if name == "sum" else 4 - (name == "three")
    )


async def test_requested_outputs_are_sent_for_blocks_and_for_single_rows(client: httpx.AsyncClient) -> None:
    requested = [{"name": "id"}, {"name": "probability"}, {"name": "prediction", "parameters": {"binary_data": True}}]
    for count in (3, 20):
        cells = {"x0": [float(number) for number in range(count)], "x1": [0.5] * count}
        binary, headers = v2.as_binary(cells, outputs=requested, id="mine")

        reply = await client.post("/v2/models/two/infer", content=binary, headers=headers)

        head = json.loads(reply.content[: int(reply.headers["inference-header-content-length"])])
        assert (head["id"], head["model_name"], head["model_version"]) == ("mine", "two", "1")
        assert "parameters" not in head
        assert [(output["name"], output["datatype"], output["shape"]) for output in head["outputs"]] == [
            ("id", "BYTES", [count, 1]),
            ("probability", "FP32", [count, 1]),
            ("prediction", "INT64", [count, 1]),
        ]
        assert len(set(head["outputs"][0]["data"])) == count
        assert head["outputs"][2]["parameters"] == {"binary_data_size": 8 * count}
        assert set(v2.outputs(reply.content, reply.headers)["prediction"]) <= {1, 2}


async def test_the_version_of_the_server_is_plain_text(client: httpx.AsyncClient) -> None:
    reply = await client.get("/version")

    assert (reply.text, reply.headers["content-type"]) == (rowcast.__version__, "text/plain; charset=utf-8")
