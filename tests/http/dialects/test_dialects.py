"""One service behind many doors: whichever dialect asks, rows, answers, history, refusals and quotas are the same."""

from __future__ import annotations

import asyncio
import csv
import gzip
import io
import json
import zlib
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import BodyError
from rowcast.http.dialects.scoring import check_names
from rowcast.schema.encoding import RowEncoder, own_plan
from rowcast.schema.schema import Column, Schema
from rowcast.schema.stacking import stack_rows
from support import access, apps, models, v2

# One loop with the shared app: it would seem dead to itself while another loop turned for seconds.
pytestmark = pytest.mark.asyncio(loop_scope="session")

ROWS = 1000
JSON = {"content-type": "application/json"}
INFER, PREDICT = "/v2/models/loans/infer", "/v1/models/loans:predict"
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


def table(rows: list[dict[str, Any]]) -> str:
    """Rows as CSV."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def split(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"columns": list(rows[0]), "data": [list(row.values()) for row in rows]}


def ways(rows: list[dict[str, Any]]) -> dict[str, tuple[str, bytes, dict[str, str]]]:
    """The same rows in every layout of every dialect: path, body, headers."""
    binary, headers = v2.as_binary(v2.columns(rows), parameters={"binary_data_output": True})

    def body(found: Any) -> bytes:
        return json.dumps(found).encode()

    return {
        "v2 json": (INFER, v2.as_json(v2.columns(rows)), JSON),
        "v2 binary": (INFER, binary, headers),
        "v2 gzip": (INFER, gzip.compress(binary), {**headers, "content-encoding": "gzip"}),
        "v2 deflate": (INFER, zlib.compress(binary), {**headers, "content-encoding": "deflate"}),
        "mlflow split": ("/invocations", body({"dataframe_split": split(rows)}), JSON),
        "mlflow records": ("/invocations", body({"dataframe_records": rows}), JSON),
        "mlflow instances": ("/invocations", body({"instances": rows}), JSON),
        "mlflow inputs": ("/invocations", body({"inputs": v2.columns(rows)}), JSON),
        "mlflow csv": ("/invocations", table(rows).encode(), {"content-type": "text/csv"}),
        "v1 instances": (PREDICT, body({"instances": rows}), JSON),
        "v1 lists": (PREDICT, body({"instances": [list(row.values()) for row in rows]}), JSON),
        "v1 inputs": (PREDICT, body({"inputs": v2.columns(rows)}), JSON),
    }


def labels(way: str, reply: httpx.Response) -> list[Any]:
    """The labels that a dialect answers."""
    if way.startswith("v2"):
        return v2.outputs(reply.content, reply.headers)["prediction"]
    found: list[Any] = next(iter(reply.json().values()))
    return found


async def kept(client: httpx.AsyncClient, count: int) -> list[dict[str, Any]]:
    """The last so many predictions, once the store has them, oldest first."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while len(found) < count:
        page = (await client.get(f"/predictions?limit=1000{cursor}")).json()
        found += page["predictions"]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    return found[:count][::-1]


@pytest.mark.slow
async def test_the_same_rows_through_every_dialect_give_the_same_predictions_and_history(home: Path) -> None:
    rows = models.loan_rows(ROWS)
    async with apps.serving(home=home) as client:
        schema = (await client.get("/models/loans")).json()["columns"]
        columns = Schema(tuple(msgspec.convert(one, Column) for one in schema))
        encoder = RowEncoder(columns, own_plan(columns))
        native = (await client.post("/predict", json={"rows": rows})).json()["predictions"]
        for way, (path, body, headers) in ways(rows).items():
            reply = await client.post(path, content=body, headers={**headers, "x-request-id": way.replace(" ", "-")})

            assert reply.status_code == 200, (way, reply.text[:500])
            assert labels(way, reply) == [one["prediction"] for one in native], way
        entries: dict[str, list[dict[str, Any]]] = {}
        wanted = ROWS * (len(ways(rows)) + 1)
        for _ in range(200):
            found = await kept(client, wanted)
            if len(found) == wanted:
                break
            await asyncio.sleep(0.1)
        for entry in found:
            entries.setdefault(entry["request_id"], []).append(entry)

    compared = ("prediction", "probability", "score", "probabilities", "warnings", "cached")
    for way in ways(rows):
        mine = {_key(encoder, one["row"]): one for one in entries[way.replace(" ", "-")]}
        assert len(entries[way.replace(" ", "-")]) == ROWS
        for row, said in zip(rows, native, strict=True):
            entry = mine[_key(encoder, row)]
            assert entry["source"] == way.split()[0]
            assert [entry["prediction"][name] for name in compared] == [said[name] for name in compared]


def _key(encoder: RowEncoder, row: dict[str, Any]) -> Any:
    return encoder.parse(row).inputs


async def test_a_models_own_tensors_are_decoded_back_to_rows(tmp_path: Path) -> None:
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
        told = await client.post(url, json={"inputs": [{**tensor, "data": numbers.ravel().tolist()}]})
        nested = await client.post(url, json={"inputs": [{**tensor, "data": numbers.tolist()}]})
        bare = await client.post(url, content=raw, headers={"inference-header-content-length": "0"})
        numbers[0][1] = 5  # a month that this day is not in
        crooked = await client.post(url, json={"inputs": [{**tensor, "data": numbers.ravel().tolist()}]})
        wide = await client.post(url, json={"inputs": [{**tensor, "shape": [1, 21], "data": numbers.ravel().tolist()}]})

    wanted = [one["prediction"] for one in native]
    for reply in (told, nested, bare):
        assert reply.status_code == 200, reply.text
        assert reply.json()["outputs"][0]["data"] == pytest.approx(wanted, rel=1e-6)
    assert crooked.status_code == wide.status_code == 400
    assert "column 'when': the date parts contradict each other" in crooked.json()["error"]


BAD_V2: dict[str, Any] = {
    "no inputs": {"inputs": []},
    "inputs of another shape": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [2], "data": [1.0]}]},
    "an unknown datatype": {"inputs": [{"name": "x0", "datatype": "BF16", "shape": [1], "data": [1.0]}]},
    "no data": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [1]}]},
    "ragged data": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [2, 1], "data": [[1.0], [1.0, 2.0]]}]},
    "text for a number": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [1], "data": ["a"]}]},
    "a huge shape": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [2**40, 2**40], "data": []}]},
    "a negative shape": {"inputs": [{"name": "x0", "datatype": "FP64", "shape": [-1], "data": []}]},
    "an INT8 of 300": {"inputs": [{"name": "x0", "datatype": "INT8", "shape": [1], "data": [300]}]},
    "bytes that are not there": {
        "inputs": [{"name": "x0", "datatype": "FP64", "shape": [1], "parameters": {"binary_data_size": 8}}]
    },
    "a list": [],
    "no object": 7,
}


@pytest.mark.parametrize("case", BAD_V2)
async def test_bad_tensors_are_refused_in_the_protocols_form(client: httpx.AsyncClient, case: str) -> None:
    reply = await client.post("/v2/models/sum/infer", json=BAD_V2[case])

    assert reply.status_code == 400
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"]
    assert reply.json()["error"]


BAD_HEADS = {
    "x": "abc",
    "beyond the body": "99999999",
    "negative": "-1",
    "huge": "9" * 400,
    "in the middle": "7",
}


@pytest.mark.parametrize("case", BAD_HEADS)
async def test_a_wrong_header_length_is_refused(client: httpx.AsyncClient, case: str) -> None:
    body, headers = v2.as_binary({"x0": [1.5], "x1": [2.5]})
    headers["inference-header-content-length"] = BAD_HEADS[case]

    reply = await client.post("/v2/models/sum/infer", content=body, headers=headers)

    assert reply.status_code == 400
    assert list(reply.json()) == ["error"]


@pytest.mark.parametrize("datatype", ["FP16", "FP32", "FP64", "INT64", "INT32", "UINT8"])
async def test_numbers_of_every_width_are_taken(client: httpx.AsyncClient, datatype: str) -> None:
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


async def test_numbers_that_are_none_are_refused_or_missing_as_the_column_has_it(client: httpx.AsyncClient) -> None:
    rows = models.loan_rows(1)
    rows[0]["commercial_assets"] = None
    missing, headers = v2.as_binary(v2.columns(rows))
    rows[0]["annual_income"] = float("inf")
    infinite, more = v2.as_binary(v2.columns(rows))

    fine = await client.post(INFER, content=missing, headers=headers)
    refused = await client.post(INFER, content=infinite, headers=more)
    literal = await client.post(PREDICT, content=b'{"instances":[NaN]}', headers=JSON)

    assert fine.status_code == 200, fine.text
    assert refused.status_code == literal.status_code == 400
    assert "annual_income" in refused.json()["error"]


async def test_an_unseen_category_is_scored_and_said(client: httpx.AsyncClient) -> None:
    rows = models.loan_rows(2)
    rows[1]["purpose"] = "spaceship"

    reply = await client.post(INFER, content=v2.as_json(v2.columns(rows)), headers=JSON)

    said = json.loads(reply.json()["parameters"]["warnings"])
    assert [(one["row"], one["column"], one["code"]) for one in said] == [(1, "purpose", "unseen-category")]


async def test_chosen_outputs_come_in_the_order_asked_and_in_the_form_asked(client: httpx.AsyncClient) -> None:
    asked = [{"name": "score", "parameters": {"binary_data": True}}, {"name": "id"}, {"name": "prediction"}]
    body = v2.as_json(v2.columns(models.loan_rows(3)), outputs=asked, id="mine")

    reply = await client.post(INFER, content=body, headers=JSON)

    found = v2.outputs(reply.content, reply.headers)
    assert list(found) == ["score", "id", "prediction"]
    assert [len(cells) for cells in found.values()] == [3, 3, 3]
    assert reply.headers["content-type"] == "application/octet-stream"


REFUSED_BY = {
    "/v2/models/nobody/infer": (404, "error"),
    "/v2/models/loans/versions/9/infer": (404, "error"),
    "/v2/nowhere": (405, "error"),
    "/v1/models/nobody:predict": (404, "error"),
    "/v1/models/loans/versions/9:predict": (404, "error"),
    "/v1/models/loans/labels/canary:predict": (404, "error"),
    "/v1/models/loans:explain": (501, "error"),
    "/invocations": (400, "error_code"),
    INFER: (400, "error"),
    PREDICT: (400, "error"),
}


@pytest.mark.parametrize("path", REFUSED_BY)
async def test_every_dialect_refuses_in_its_own_form(client: httpx.AsyncClient, path: str) -> None:
    status, key = REFUSED_BY[path]

    reply = await client.post(path, json={})
    problem = await client.post(path, json={}, headers={"accept": "application/problem+json"})

    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert key in reply.json()
    assert problem.headers["content-type"] == "application/problem+json"
    assert problem.json()["type"].startswith("urn:rowcast:error:")


BAD_INVOCATIONS: dict[str, Any] = {
    "two layouts": {"instances": [[1]], "inputs": [[1]]},
    "an unknown key": {"instances": [[1]], "more": 1},
    "a column twice": {"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}},
    "records of lists": {"dataframe_records": [[1]]},
    "no rows": {"dataframe_records": []},
    "columns of unequal length": {"inputs": {"x0": [1, 2], "x1": [1]}},
    "unknown params": {"dataframe_records": [{}], "params": {"temperature": 1}},
    "data that is no list": {"dataframe_split": {"columns": [], "data": 7}},
    "nested columns": {"inputs": {"x0": [[1, 2]]}},
    "an object as cell": {"dataframe_records": [{"annual_income": {}}]},
}


@pytest.mark.parametrize("case", BAD_INVOCATIONS)
async def test_bad_invocations_are_refused_in_mlflows_form(client: httpx.AsyncClient, case: str) -> None:
    reply = await client.post("/invocations", json=BAD_INVOCATIONS[case])

    assert reply.status_code == 400
    assert reply.json()["error_code"] == "BAD_REQUEST"
    assert reply.json()["message"]


async def test_invocations_take_json_and_csv_and_nothing_else(client: httpx.AsyncClient) -> None:
    refused = await client.post("/invocations", content=b"x", headers={"content-type": "text/plain"})
    broken = await client.post("/invocations", content=b'a,b\n"x', headers={"content-type": "text/csv"})
    ping, version, health = [await client.get(path) for path in ("/ping", "/version", "/health")]

    assert (refused.status_code, refused.json()["error_code"]) == (415, "BAD_REQUEST")
    assert broken.status_code == 400
    assert [ping.status_code, version.status_code, health.status_code] == [200, 200, 200]


async def test_curl_declares_forms_and_sends_json_as_tensorflows_documents_show(client: httpx.AsyncClient) -> None:
    body = json.dumps({"signature_name": "serving_default", "instances": [[1.0, 2.0], [3.0, 4.0]]})
    form = {"content-type": "application/x-www-form-urlencoded"}

    reply = await client.post("/v1/models/sum/versions/1:predict", content=body, headers=form)

    assert reply.json() == {"predictions": [3.0, 7.0]}
    assert (await client.get("/v1/models")).json() == {"models": ["loans", "sum"]}


async def test_scopes_quotas_and_repeats_hold_for_every_dialect(tmp_path: Path) -> None:
    home = tmp_path / "home"
    models.publish(
        FolderRegistry(home / "models"),
        "sum",
        models.sum_graph(2),
        models.number_columns(2),
        models.REGRESSION,
        "values",
    )
    access.add(home, "asks", "predict", quota="10/3600s")
    access.add(home, "reads", "read")
    access.add(home, "boss", "admin", "predict", "read")
    body = {"instances": [[1.0, 2.0]] * 4}
    asks, reads, boss = access.headers("asks"), access.headers("reads"), access.headers("boss")
    async with apps.serving(home=home) as client:
        nobody = await client.post("/v1/models/sum:predict", json=body)
        wrong = await client.post("/invocations", json=body, headers=reads)
        admin = await client.post("/v2/repository/index", headers=asks)
        index = await client.post("/v2/repository/index", headers=boss)
        spent = [await client.post(path, json=body, headers=asks) for path in ["/invocations"] * 3]
        once = [
            await client.post(
                "/v2/models/sum/infer",
                content=v2.as_json({"x0": [1.0], "x1": [2.0]}, outputs=[{"name": "id"}, {"name": "prediction"}]),
                headers={**boss, **JSON, "idempotency-key": "k1"},
            )
            for _ in range(2)
        ]
        live = [await client.get(path) for path in ("/v2", "/v2/health/live", "/v2/health/ready", "/ping")]

    assert (nobody.status_code, wrong.status_code, admin.status_code) == (401, 403, 403)
    assert list(nobody.json()) == list(admin.json()) == ["error"]
    assert wrong.json()["error_code"] == "PERMISSION_DENIED"
    assert index.json() == [{"name": "sum", "version": "1", "state": "READY", "reason": ""}]
    assert [reply.status_code for reply in spent] == [200, 200, 429]
    assert spent[2].json()["error_code"] == "REQUEST_LIMIT_EXCEEDED"
    assert spent[2].headers["ratelimit-policy"]
    assert once[0].content == once[1].content
    assert [reply.headers["idempotency-replayed"] for reply in once] == ["false", "true"]
    assert [reply.status_code for reply in live] == [200] * 4


async def test_what_is_unloaded_is_not_served_until_it_is_loaded(home: Path) -> None:
    registry = FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), models.number_columns(2), models.REGRESSION, "values")
    async with apps.serving(home=home, default_model="loans") as client:
        done = await client.post("/v2/repository/models/sum/unload")
        gone = await client.post("/v1/models/sum:predict", json={"instances": [[1, 2]]})
        native = await client.post("/models/sum/predict", json={"x0": 1, "x1": 2})
        index = (await client.post("/v2/repository/index", json={"ready": True})).json()
        again = await client.post("/models/reload")
        still = await client.get("/v2/models/sum/ready")
        await client.post("/v2/repository/models/sum/load")
        back = await client.get("/v2/models/sum/ready")

    assert done.status_code == 200, done.text
    assert (gone.status_code, native.status_code, still.status_code) == (404, 404, 404)
    assert [one["name"] for one in index] == ["loans"]
    assert again.json()["status"] == "ok"
    assert back.json() == {"name": "sum", "ready": True}


async def test_an_output_asked_for_twice_is_refused(client: httpx.AsyncClient) -> None:
    """Else a request of 4 MB would make a reply of gigabytes."""
    body = v2.as_json({"x0": [1.5], "x1": [2.5]}, outputs=[{"name": "prediction"}, {"name": "prediction"}])

    reply = await client.post("/v2/models/sum/infer", content=body, headers=JSON)

    assert (reply.status_code, reply.json()) == (400, {"error": "an output is requested twice"})


async def test_an_input_in_shared_memory_is_not_offered(client: httpx.AsyncClient) -> None:
    tensor = {"datatype": "FP64", "shape": [1, 1], "parameters": {"shared_memory_region": "mine"}}
    body = {"inputs": [{"name": "x0", **tensor}, {"name": "x1", **tensor}]}

    reply = await client.post("/v2/models/sum/infer", json=body)

    assert (reply.status_code, reply.json()) == (501, {"error": "input 'x0': shared_memory_region is not supported"})


async def test_what_a_request_does_not_say_may_be_null(client: httpx.AsyncClient) -> None:
    head = json.loads(v2.as_json({"x0": [1.5], "x1": [2.5]}, id=None, parameters=None, outputs=None))
    head["inputs"][0]["parameters"] = None
    named = {**head, "outputs": [{"name": "prediction", "parameters": None}]}

    replies = [await client.post("/v2/models/sum/infer", json=body) for body in (head, named)]

    assert [reply.json()["outputs"][0]["data"] for reply in replies] == [[4.0], [4.0]]


async def test_a_csv_of_too_many_lines_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "text/csv"}

    # Were it read on, the open quote of its last line would be what is wrong.
    reply = await client.post("/invocations", content="a\n" + "1\n" * 20_000 + '"', headers=headers)

    assert reply.status_code == 400
    assert reply.json()["message"] == "too many rows; the limit is 10000"


async def test_a_duplicate_column_is_reported(client: httpx.AsyncClient) -> None:
    reply = await client.post("/invocations", json={"dataframe_split": {"columns": ["x0", "x1", "x0"], "data": []}})

    assert reply.status_code == 400
    assert "'x0'" in reply.json()["message"]


class CountingName(str):
    """A column name that counts how often it is compared."""

    __slots__ = ()
    __hash__ = str.__hash__
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        CountingName.comparisons += 1
        return super().__eq__(other)


async def test_looking_for_a_duplicate_column_takes_linear_time() -> None:
    names = [CountingName(f"c{number}") for number in range(2000)]
    CountingName.comparisons = 0

    with pytest.raises(BodyError):
        check_names([*names, CountingName("c1999")])

    assert CountingName.comparisons <= len(names)


async def test_a_key_for_some_models_changes_and_lists_those_alone(tmp_path: Path) -> None:
    home = tmp_path / "home"
    for name in ("mine", "theirs"):
        columns = models.number_columns(2)
        models.publish(FolderRegistry(home / "models"), name, models.sum_graph(2), columns, models.REGRESSION, "values")
    access.add(home, "one", "admin", models=("mine",))
    key = access.headers("one")
    async with apps.serving(home=home) as client:
        refused = [
            await client.post(f"/v2/repository/models/theirs/{what}", headers=key) for what in ("unload", "load")
        ]
        index = (await client.post("/v2/repository/index", headers=key)).json()
        own = await client.post("/v2/repository/models/mine/unload", headers=key)

    assert [reply.status_code for reply in refused] == [403, 403]
    assert [(one["name"], one["state"]) for one in index] == [("mine", "READY")]
    assert own.status_code == 200
