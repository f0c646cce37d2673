"""Inference requests in the Open Inference Protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.http.dialects import v2_infer
from rowcast.http.dialects.scoring import ScoredRow
from rowcast.schema.encoding import RowEncoder, RowWarning, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows
from support import apps, models, v2

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")
JSON = {"content-type": "application/json"}
PROBLEM = {"accept": "application/problem+json"}
INFER = "/v2/models/loans/infer"
EVENTS = Schema(
    (
        Column(
            name="when", kind="datetime", example="2026-01-31T09:30:00Z", origin=1_600_000_000_000_000, missing=True
        ),
        Column(name="paid", kind="boolean", example=True, missing=True),
        Column(name="age", kind="integer", example=30),
        Column(name="sum", kind="number", example=1.5, missing=True),
    )
)
BAD_REQUESTS: dict[str, Any] = {
    "no inputs": {"inputs": []},
    "missing inputs": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [2], "data": [1.0]}]},
    "an unknown datatype": {"inputs": [{"name": "x0", "datatype": "BF16", "shape": [1], "data": [1.0]}]},
    "no data": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [1]}]},
    "ragged data": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [2, 1], "data": [[1.0], [1.0, 2.0]]}]},
    "a string for a number": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [1], "data": ["a"]}]},
    "a huge shape": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [2**40, 2**40], "data": []}]},
    "a negative shape": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [-1], "data": []}]},
    "the value 300 as INT8": {"inputs": [{"name": "x0", "datatype": "INT8", "shape": [1], "data": [300]}]},
    "missing bytes": {
        "inputs": [{"name": "x0", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]
    },
    "a list": [],
    "a number": 7,
}
X0 = '{"name":"x0","datatype":"FP64","shape":[1],"data":[1.5]}'
X1 = '{"name":"x1","datatype":"FP64","shape":[1],"data":[2.5]}'
DUPLICATE_KEYS = {
    "inputs": f'{{"inputs":[{X0}],"inputs":[{X0},{X1}]}}',
    "id": f'{{"id":"a","inputs":[{X0},{X1}],"id":"b"}}',
    "data": f'{{"inputs":[{X0},{X1[:-1]},"data" :[7]}}]}}',
    "shape": f'{{"inputs":[{X0},{X1[:-1]},"sh\\u0061pe":[1,1]}}]}}',
    "binary_data_output": (
        f'{{"inputs":[{X0},{X1}],"parameters":{{"binary_data_output":true,"binary_data_output":false}}}}'
    ),
    "note": f'{{"inputs":[{X0},{X1[:-1]},"parameters":{{"note":"a:b","note":"c:d"}}}}]}}',
    "parameters": f'{{"inputs":[{X0},{X1[:-1]},"parameters":null,"parameters":{{}}}}]}}',
    "binary_data": (
        f'{{"inputs":[{X0},{X1}],"outputs":[{{"name":"id","parameters":{{"binary_data":true,"binary_data":false}}}}]}}'
    ),
    "unknown": f'{{"inputs":[{X0},{X1}],"unknown":1,"unknown":2}}',
}
UNIQUE_KEYS = {
    "colons in strings": f'{{"inputs":[{X0},{X1}],"id":"a\\":b:c"}}',
    "the same key in several objects": f'{{"inputs":[{X0},{X1}],"parameters":{{"inputs":{{"inputs":1}}}}}}',
    "unknown keys": f'{{"inputs":[{X0},{X1}],"unknown":{{"id":1}},"id":"a"}}',
    "spaces": f'{{"inputs" : [{X0},{X1}]}}',
}
BAD_HEADER_LENGTHS = {
    "not a number": "abc",
    "longer than the body": "99999999",
    "negative": "-1",
    "huge": "9" * 400,
    "in the middle of the JSON": "7",
}


async def test_raw_graph_inputs_are_decoded_into_rows(tmp_path: Path) -> None:
    registry = FolderRegistry(tmp_path / "home" / "models")
    models.publish(registry, "events", models.sum_graph(7), EVENTS, models.REGRESSION, "values")
    encoder = RowEncoder(EVENTS, own_plan(EVENTS))
    rows = [
        {"when": "2026-01-31T09:59:59.5Z", "paid": True, "age": 30, "sum": 1.25},
        {"when": "2021-12-31T23:00:00Z", "paid": False, "age": 31, "sum": -7.5},
        {"when": "2020-09-13T12:26:40Z", "paid": False, "age": 0, "sum": 0.0},
    ]
    numbers = stack_rows(encoder.plan, [encoder.parse(row) for row in rows])["rowcast_numbers"].copy()
    raw = numbers.astype("<f4").tobytes()
    tensor = {"name": "rowcast_numbers", "datatype": "FP32", "shape": [3, 7]}
    url = "/v2/models/events/infer"

    async with apps.serving(home=tmp_path / "home") as client:
        native = (await client.post("/predict", json={"rows": rows})).json()["predictions"]
        flat = await client.post(url, json={"inputs": [{**tensor, "data": numbers.ravel().tolist()}]})
        nested = await client.post(url, json={"inputs": [{**tensor, "data": numbers.tolist()}]})
        binary = await client.post(url, content=raw, headers={"inference-header-content-length": "0"})
        numbers[0][1] = 5  # the month now contradicts the number of days since the origin
        contradictory = await client.post(url, json={"inputs": [{**tensor, "data": numbers.ravel().tolist()}]})
        wide = await client.post(url, json={"inputs": [{**tensor, "shape": [1, 21], "data": numbers.ravel().tolist()}]})

    expected = [reply["prediction"] for reply in native]
    for reply in (flat, nested, binary):
        assert reply.status_code == 200, reply.text
        assert reply.json()["outputs"][0]["data"] == pytest.approx(expected, rel=1e-6)
    assert contradictory.status_code == wide.status_code == 400
    assert "'when'" in contradictory.json()["error"]


@pytest.mark.parametrize("case", BAD_REQUESTS)
async def test_an_invalid_request_gets_an_error_in_the_v2_format(client: httpx.AsyncClient, case: str) -> None:
    reply = await client.post("/v2/models/sum/infer", json=BAD_REQUESTS[case])

    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    assert reply.json()["error"]


@pytest.mark.parametrize("key", DUPLICATE_KEYS)
async def test_a_request_with_a_duplicate_key_is_rejected(client: httpx.AsyncClient, key: str) -> None:
    url, body = "/v2/models/sum/infer", DUPLICATE_KEYS[key]
    replies = [await client.post(url, content=body, headers={**JSON, **more}) for more in ({}, PROBLEM)]

    assert [(reply.status_code, list(reply.json())) for reply in replies[:1]] == [(400, ["error"])]
    assert [(error["column"], error["code"]) for error in replies[1].json()["errors"]] == [(key, "duplicate-key")]


@pytest.mark.parametrize("case", UNIQUE_KEYS)
async def test_a_request_with_unusual_but_unique_keys_is_accepted(client: httpx.AsyncClient, case: str) -> None:
    reply = await client.post("/v2/models/sum/infer", content=UNIQUE_KEYS[case], headers=JSON)

    assert reply.status_code == 200, reply.text
    assert reply.json()["outputs"][0]["data"] == [4.0]


async def test_an_unknown_field_that_is_not_valid_json_is_rejected(client: httpx.AsyncClient) -> None:
    body = f'{{"inputs":[{X0},{X1}],"unknown":"'.encode() + b'\xff"}'

    reply = await client.post("/v2/models/sum/infer", content=body, headers={**JSON, **PROBLEM})

    assert (reply.status_code, reply.json()["type"]) == (400, "urn:rowcast:error:malformed-body")


@pytest.mark.parametrize("case", BAD_HEADER_LENGTHS)
async def test_an_invalid_header_length_is_rejected(client: httpx.AsyncClient, case: str) -> None:
    body, headers = v2.as_binary({"x0": [1.5], "x1": [2.5]})
    headers["inference-header-content-length"] = BAD_HEADER_LENGTHS[case]

    reply = await client.post("/v2/models/sum/infer", content=body, headers=headers)

    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT64", "INT32", "UINT8"])
async def test_numbers_of_every_datatype_are_accepted(client: httpx.AsyncClient, datatype: str) -> None:
    raw = np.array([3], v2.PACK[datatype]).tobytes()
    parameters = {"binary_data_size": len(raw)}
    inputs = [{"name": n, "datatype": datatype, "shape": [1], "parameters": parameters} for n in ("x0", "x1")]
    head = json.dumps({"inputs": inputs, "id": "q"}).encode()

    reply = await client.post(
        "/v2/models/sum/infer", content=head + raw + raw, headers={"inference-header-content-length": str(len(head))}
    )

    assert reply.status_code == 200, reply.text
    assert reply.json()["id"] == "q"
    assert reply.json()["outputs"] == [{"name": "prediction", "datatype": "FP32", "shape": [1, 1], "data": [6.0]}]


async def test_whole_floats_are_accepted_as_integers_in_cells_and_shapes(client: httpx.AsyncClient) -> None:
    row = (await client.get("/sample")).json()
    plain = json.loads(v2.as_json(v2.columns([row])))
    floats = json.loads(v2.as_json(v2.columns([row])))
    for tensor in floats["inputs"]:
        tensor["shape"] = [1.0, 1.0]
        if tensor["datatype"] == "INT64":
            tensor["data"] = [float(cell) for cell in tensor["data"]]

    replies = [await client.post(INFER, json=body) for body in (plain, floats)]

    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].json()["outputs"] == replies[1].json()["outputs"]


async def test_nan_is_treated_as_missing_and_infinity_is_rejected(client: httpx.AsyncClient) -> None:
    rows = models.loan_rows(1)
    rows[0]["commercial_assets"] = None
    missing, headers = v2.as_binary(v2.columns(rows))
    rows[0]["annual_income"] = float("inf")
    infinite, more = v2.as_binary(v2.columns(rows))

    with_missing = await client.post(INFER, content=missing, headers=headers)
    refused = await client.post(INFER, content=infinite, headers=more)
    literal = await client.post("/v1/models/loans:predict", content=b'{"instances":[NaN]}', headers=JSON)

    assert with_missing.status_code == 200, with_missing.text
    assert refused.status_code == literal.status_code == 400
    assert "annual_income" in refused.json()["error"]


async def test_a_row_with_an_unseen_category_is_scored_with_a_warning(client: httpx.AsyncClient) -> None:
    rows = models.loan_rows(2)
    rows[1]["purpose"] = "spaceship"

    reply = await client.post(INFER, content=v2.as_json(v2.columns(rows)), headers=JSON)

    warnings = json.loads(reply.json()["parameters"]["warnings"])
    assert [(warning["row"], warning["column"], warning["code"]) for warning in warnings] == [
        (1, "purpose", "unseen-category")
    ]


async def test_rows_with_numbers_outside_the_range_are_scored_and_recorded_with_warnings(
    client: httpx.AsyncClient,
) -> None:
    rows = models.loan_rows(3)
    rows[1]["annual_income"] = 10**9
    rows[2]["commercial_assets"] = -(10**9)
    body, headers = v2.as_binary(v2.columns(rows), outputs=[{"name": "id"}])

    as_block = await client.post(INFER, content=body, headers=headers)
    as_rows = await client.post(INFER, content=v2.as_json(v2.columns(rows)), headers=JSON)

    listed = as_block.json()["parameters"]["warnings"]
    assert listed == as_rows.json()["parameters"]["warnings"]
    assert [(each["row"], each["column"], each["code"]) for each in json.loads(listed)] == [
        (1, "annual_income", "out-of-range"),
        (2, "commercial_assets", "out-of-range"),
    ]
    recorded = [(await client.get(f"/predictions/{key}")).json() for key in as_block.json()["outputs"][0]["data"]]
    columns = [[each["column"] for each in record["prediction"]["warnings"]] for record in recorded]
    assert columns == [[], ["annual_income"], ["commercial_assets"]]


async def test_outputs_have_the_requested_order_and_encoding(client: httpx.AsyncClient) -> None:
    requested = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "id"}, {"name": "prediction"}]
    body = v2.as_json(v2.columns(models.loan_rows(3)), outputs=requested, id="mine")

    reply = await client.post(INFER, content=body, headers=JSON)

    outputs = v2.outputs(reply.content, reply.headers)
    assert list(outputs) == ["score", "id", "prediction"]
    assert [len(cells) for cells in outputs.values()] == [3, 3, 3]
    assert reply.headers["content-type"] == "application/octet-stream"


async def test_the_last_warning_says_how_many_warnings_about_a_request_were_omitted() -> None:
    warning = RowWarning("c", "unseen-category", "m")
    rows = [ScoredRow(str(number), "a", warnings=(warning,)) for number in range(103)]

    listed = json.loads(v2_infer.warnings(row.warnings for row in rows))

    assert [each["row"] for each in listed] == list(range(101))
    assert (listed[100]["column"], listed[100]["code"]) == ("", "more-warnings")
    assert listed[100]["message"].startswith("3 more warnings")
    assert len(json.loads(v2_infer.warnings(row.warnings for row in rows[:100]))) == 100


async def test_a_request_that_selects_an_output_twice_is_rejected(client: httpx.AsyncClient) -> None:
    """If duplicate outputs were allowed, a 4 MB request could cause a reply of several gigabytes."""
    body = v2.as_json({"x0": [1.5], "x1": [2.5]}, outputs=[{"name": "prediction"}, {"name": "prediction"}])

    reply = await client.post("/v2/models/sum/infer", content=body, headers={**JSON, **PROBLEM})

    assert (reply.status_code, reply.json()["type"]) == (400, "urn:rowcast:error:malformed-body")


async def test_inputs_in_shared_memory_are_rejected(client: httpx.AsyncClient) -> None:
    tensor = {"datatype": "FP64", "shape": [1, 1], "parameters": {"shared_memory_region": "mine"}}
    body = {"inputs": [{"name": "x0", **tensor}, {"name": "x1", **tensor}]}

    reply = await client.post("/v2/models/sum/infer", json=body, headers=PROBLEM)

    assert (reply.status_code, reply.json()["type"]) == (501, "urn:rowcast:error:not-supported")


async def test_optional_fields_in_a_request_can_be_null(client: httpx.AsyncClient) -> None:
    head = json.loads(v2.as_json({"x0": [1.5], "x1": [2.5]}, id=None, parameters=None, outputs=None))
    head["inputs"][0]["parameters"] = None
    named = {**head, "outputs": [{"name": "prediction", "parameters": None}]}

    replies = [await client.post("/v2/models/sum/infer", json=body) for body in (head, named)]

    assert [reply.json()["outputs"][0]["data"] for reply in replies] == [[4.0], [4.0]]


async def test_a_header_length_equal_to_the_size_of_the_body_means_that_there_is_no_binary_data(
    client: httpx.AsyncClient,
) -> None:
    body = v2.as_json({"x0": [1.5], "x1": [2.5]})

    replies = [
        await client.post(
            "/v2/models/sum/infer", content=body, headers={**JSON, "inference-header-content-length": str(length)}
        )
        for length in (len(body), len(body) + 1)
    ]

    assert [reply.status_code for reply in replies] == [200, 400]
    assert replies[0].json()["outputs"][0]["data"] == [4.0]
