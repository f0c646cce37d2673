"""Everything that is asked a few times a minute: models, health, metrics, history, pages and the API's description."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

import rowcast
from rowcast import settings
from rowcast.app import server as app_server
from support import apps, models
from support.waiting import eventually_async

pytestmark = pytest.mark.asyncio(loop_scope="session")
ROW = models.loan_rows(1)[0]


async def metric(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """The sum of the samples with these labels."""
    text = (await client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(found.value for found in samples if found.name == name and labels.items() <= found.labels.items())


# Models.


async def test_every_model_is_described(client: httpx.AsyncClient) -> None:
    found = (await client.get("/models")).json()["models"]

    assert [(model["name"], model["version"], model["default"]) for model in found] == [
        ("loans", 1, True),
        ("sum", 1, False),
    ]
    loans = found[0]
    assert (loans["task"], loans["positive"], loans["target"]) == ("binary", "Approved", "loan_status")
    assert loans["schema"]["properties"].keys() == ROW.keys()
    assert loans["schema"]["additionalProperties"] is False
    assert {"accuracy", "roc_auc"} <= loans["holdout"].keys()
    assert loans["parity"]["label_flips"] == 0
    assert found[1]["threshold"] is None


async def test_one_model_is_described_alike_everywhere(client: httpx.AsyncClient) -> None:
    listed = (await client.get("/models")).json()["models"]

    info = (await client.get("/models/info")).json()
    assert (await client.get("/models/loans")).json() == listed[0] == {key: info[key] for key in listed[0]}
    assert info["features"] == list(ROW)
    assert (info["model_name"], info["input_shape"], info["class_names"]) == (
        "loans",
        [None, len(ROW)],
        ["Approved", "Rejected"],
    )
    assert (await client.get("/models/sum")).json() == listed[1]


async def test_the_sample_is_a_row_that_the_model_takes(client: httpx.AsyncClient) -> None:
    sample = (await client.get("/sample")).json()

    assert sample.keys() == ROW.keys()
    assert (await client.post("/predict", json=sample)).status_code == 200


async def test_a_description_that_did_not_change_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/models/loans")
    etag = first.headers["etag"]

    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await client.get("/models/loans", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), known
    for other in ('"other"', etag.strip('"') + "x", (await client.get("/models/sum")).headers["etag"]):
        assert (await client.get("/models/loans", headers={"if-none-match": other})).status_code == 200, other


# Health.


async def test_a_server_is_ready_from_its_start_to_its_end(app_home: Path, tmp_path: Path) -> None:
    app = app_server.build_server(settings.load(home=tmp_path, registry=app_home / "models")).app
    async with apps.client(app) as client:
        before = await client.get("/health/ready")
        alive = await client.get("/health/live")
        async with apps.lifespan(app):
            during = await client.get("/health/ready")
            whole = await client.get("/health")
        after = await client.get("/health/ready")

    assert [(reply.status_code, reply.json()) for reply in (before, during, after)] == [
        (503, {"ready": False}),
        (200, {"ready": True}),
        (503, {"ready": False}),
    ]
    assert (alive.status_code, alive.json()) == (200, {"live": True})
    assert whole.status_code == 200
    body = whole.json()
    (worker,) = body.pop("workers")
    assert body == {
        "status": "ok",
        "ready": True,
        "models": ["loans@1", "sum@1"],
        "checks": {"history": "ok", "disk": "ok", "workers": "ok"},
    }
    assert (worker["state"], worker["pid"], worker["reload_error"]) == ("ready", os.getpid(), "")


async def test_no_answer_may_be_kept_by_a_cache_or_guessed_at(client: httpx.AsyncClient) -> None:
    for path in ("/", "/models", "/health", "/predictions", "/openapi.json", "/docs"):
        assert (await client.get(path)).headers["x-content-type-options"] == "nosniff", path


# Metrics.


async def test_metrics_count_requests_and_predictions(client: httpx.AsyncClient) -> None:
    async def counts() -> list[float]:
        return [
            await metric(client, "rowcast_requests_total", route="/predict", status="200"),
            await metric(client, "rowcast_requests_total", route="/predict", status="422"),
            await metric(client, "rowcast_requests_total", route="/models/{name}/predict", status="200"),
            await metric(client, "rowcast_request_duration_seconds_count", route="/predict", status="200"),
            await metric(client, "rowcast_predictions_total", model="loans", version="1"),
            await metric(client, "rowcast_predictions_total", model="sum"),
        ]

    before = await counts()

    for _ in range(3):
        await client.post("/predict", json=ROW)
    await client.post("/predict", json={})
    await client.post("/models/loans/predict", json={"rows": [ROW] * 10})
    await client.post("/models/sum/predict", json={"x0": 1, "x1": 2})

    assert [now - then for now, then in zip(await counts(), before, strict=True)] == [3, 1, 2, 3, 13, 1]


async def test_metrics_count_each_label(client: httpx.AsyncClient) -> None:
    before = {
        label: await metric(client, "rowcast_predictions_total", label=label) for label in ("Approved", "Rejected")
    }

    answered = (await client.post("/predict", json={"rows": models.loan_rows(40)})).json()["predictions"]

    for label, then in before.items():
        expected = sum(reply["prediction"] == label for reply in answered)
        assert await metric(client, "rowcast_predictions_total", label=label) - then == expected


async def test_metrics_carry_no_ids_and_no_addresses(client: httpx.AsyncClient) -> None:
    answered = (await client.post("/predict", json=ROW, headers={"x-request-id": "secret-id"})).json()
    for path in (
        f"/predictions/{answered['id']}",
        "/wp-admin/setup.php",
        "/models/loans",
        "/models/nope",
        "/static/swagger-init.js",
    ):
        await client.get(path)

    text = (await client.get("/metrics")).text

    for secret in (answered["id"], "wp-admin", "secret-id", "nope"):
        assert secret not in text
    routes = {labels["route"] for labels in _labels(text, "rowcast_requests_total")}
    assert {"/predict", "/predictions/{prediction_id}", "/models/{name}", "unmatched"} <= routes


async def test_metrics_are_what_prometheus_expects(client: httpx.AsyncClient) -> None:
    await client.post("/predict", json=ROW)
    reply = await client.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(reply.text)}
    assert reply.headers["content-type"].startswith("text/plain; version=")
    assert {name: family.type for name, family in families.items() if name.startswith("rowcast_")} == {
        "rowcast_requests": "counter",
        "rowcast_request_duration_seconds": "histogram",
        "rowcast_predictions": "counter",
        "rowcast_problems": "counter",
        "rowcast_cache_hits": "counter",
        "rowcast_cache_misses": "counter",
        "rowcast_queue_rows": "gauge",
        "rowcast_queue_age_seconds": "gauge",
        "rowcast_model_loads": "counter",
        "rowcast_reloads": "counter",
        "rowcast_model_load_seconds": "gauge",
        "rowcast_models_loaded": "gauge",
        "rowcast_workers": "gauge",
        "rowcast_journal_segments": "gauge",
    }
    assert all(family.documentation for family in families.values())
    buckets = [
        sample
        for sample in families["rowcast_request_duration_seconds"].samples
        if sample.name.endswith("_bucket") and sample.labels["route"] == "/predict" and sample.labels["status"] == "200"
    ]
    counts = [sample.value for sample in buckets]
    assert counts == sorted(counts)
    assert buckets[-1].labels["le"] == "+Inf"
    assert await metric(client, "rowcast_model_load_seconds", model="loans") > 0


def _labels(text: str, name: str) -> Iterator[dict[str, str]]:
    for family in text_string_to_metric_families(text):
        yield from (sample.labels for sample in family.samples if sample.name == name)


# History.


async def test_history_is_read_a_page_at_a_time_newest_first(client: httpx.AsyncClient) -> None:
    sent = [(await client.post("/predict", params={"entity": f"e{n}"}, json=ROW)).json()["id"] for n in range(10)]
    sent += [(await client.post("/models/sum/predict", json={"x0": n, "x1": 0})).json()["id"] for n in range(10)]

    async def stored() -> bool:
        newest = (await client.get("/predictions", params={"limit": 1})).json()["predictions"]
        return [one["id"] for one in newest] == [max(sent)]

    await eventually_async(stored)
    read: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        asked = {"limit": 7, **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/predictions", params=asked)).json()
        assert len(page["predictions"]) <= 7
        read += page["predictions"]
        cursor = page["next"]
        if cursor is None:
            break

    ids = [entry["id"] for entry in read]
    assert ids == sorted(set(ids), reverse=True)
    assert set(sent) <= set(ids)
    assert {entry["entity"] for entry in read if entry["id"] in sent[:10]} == {f"e{n}" for n in range(10)}
    of_one = (await client.get("/predictions", params={"model": "sum", "limit": 1000})).json()["predictions"]
    assert [entry["id"] for entry in of_one] == [entry["id"] for entry in read if entry["model"] == "sum"]


async def test_a_prediction_is_found_in_the_journal_before_it_is_stored(app_home: Path, tmp_path: Path) -> None:
    """Without its lifespan the app has no indexer: what it answers can lie in the journal alone."""
    app = app_server.build_server(settings.load(home=tmp_path, registry=app_home / "models", models=("loans",))).app
    async with apps.client(app) as client:
        answered = (await client.post("/predict?entity=A-17", json=ROW, headers={"x-request-id": "r-1"})).json()
        listed = (await client.get("/predictions")).json()["predictions"]
        found = (await client.get(f"/predictions/{answered['id']}")).json()

    assert listed == []
    assert (found["prediction"], found["row"], found["entity"]) == (answered, ROW, "A-17")
    assert (found["model"], found["version"], found["request_id"], found["source"]) == ("loans", 1, "r-1", "native")
    assert found["digest"].startswith("rb1-")
    assert found["seq"] == 0


async def test_the_row_in_history_is_the_row_as_it_was_sent(client: httpx.AsyncClient) -> None:
    body = b'{"x1": 2.50 ,\n "x0":1e0}'

    answered = (await client.post("/models/sum/predict", content=body)).json()
    found = await client.get(f"/predictions/{answered['id']}")

    assert b'"row":' + body in found.content


async def test_each_row_of_a_batch_is_an_entry_of_its_own(client: httpx.AsyncClient) -> None:
    rows = [{"x0": number, "x1": 1} for number in range(5)]

    answered = (await client.post("/models/sum/predict", json={"rows": rows})).json()
    found = [(await client.get(f"/predictions/{reply['id']}")).json() for reply in answered["predictions"]]

    assert [entry["row"] for entry in found] == rows
    assert [entry["prediction"]["prediction"] for entry in found] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (answered["model"], answered["version"]) == ("sum", 1)


# Pages and the description.


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"])
async def test_a_browser_is_led_to_a_page(client: httpx.AsyncClient, accept: str) -> None:
    reply = await client.get("/", headers={"accept": accept})

    assert reply.status_code in (302, 303, 307)
    assert reply.headers["vary"] == "Accept"
    page = await client.get(urljoin("/", reply.headers["location"]))
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
async def test_a_program_is_told_what_is_here(client: httpx.AsyncClient, accept: str) -> None:
    reply = await client.get("/", headers={"accept": accept})

    served = {"version": rowcast.__version__, "status": "alive", "models": ["loans", "sum"]}
    assert reply.json() == {"name": "rowcast", **served}
    assert reply.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_api_pages_need_no_other_host(client: httpx.AsyncClient, path: str) -> None:
    page = await client.get(path)

    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert "script-src" not in policy or "'unsafe-inline'" not in policy["script-src"]
    assert not re.search(r"(https?:)?//\w", page.text)
    assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|<style", page.text)
    assets = re.findall(r'(?:src|href|data-openapi)="([^"]+)"', page.text)
    assert len(assets) >= 3
    for asset in assets:
        found = await client.get(urljoin(path, asset))
        assert found.status_code == 200, asset
        assert found.headers["x-content-type-options"] == "nosniff"
    for initialiser in (asset for asset in assets if "init" in asset):
        assert not re.search(r"(https?:)?//\w", (await client.get(urljoin(path, initialiser))).text)


@pytest.fixture(scope="module")
def methods() -> set[str]:
    return {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def references(node: Any) -> Iterator[str]:
    """Every `$ref` in a document."""
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def pointed(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


async def test_the_api_is_described_as_openapi_3_1(client: httpx.AsyncClient, methods: set[str]) -> None:
    reply = await client.get("/openapi.json")

    document = reply.json()
    assert reply.headers["content-type"] == "application/json"
    assert document["openapi"].startswith("3.1.")
    assert document["info"] == {"title": "Rowcast", "version": rowcast.__version__}
    operations = []
    for path, item in document["paths"].items():
        assert path.startswith("/")
        assert item.keys() <= methods
        for operation in item.values():
            operations.append(operation["operationId"])
            assert operation["responses"]
            assert all(re.fullmatch(r"[1-5]\d\d|default", status) for status in operation["responses"])
            assert all(answer["description"] for answer in operation["responses"].values())
            templated = set(re.findall(r"{(\w+)}", path))
            declared = {one["name"] for one in operation.get("parameters", []) if one["in"] == "path"}
            assert declared == templated
    assert len(operations) == len(set(operations))
    for reference in references(document):
        assert pointed(document, reference) is not None
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in document["components"]["schemas"])


async def test_each_model_is_described_with_its_own_request_and_reply(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()

    for name, path in (("loans", "/predict"), ("loans", "/models/loans/predict"), ("sum", "/models/sum/predict")):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]
        row, batch = body["schema"]["anyOf"]
        example = body["examples"]["row"]["value"]
        assert pointed(document, row["$ref"]) == (await client.get(f"/models/{name}")).json()["schema"]
        assert batch["properties"]["rows"]["items"] == row
        answered = (await client.post(path, json=example)).json()
        reply = pointed(
            document, operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"][0]["$ref"]
        )
        assert set(reply["required"]) <= answered.keys() <= reply["properties"].keys()
        assert reply["additionalProperties"] is False
        batched = (await client.post(path, json=body["examples"]["batch"]["value"])).json()
        assert batched["predictions"][0].keys() == answered.keys()


async def test_every_refusal_is_described(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    refusals = document["paths"]["/predict"]["post"]["responses"]
    known = document["components"]["schemas"]["Problem"]

    for body, headers in ((b"", {}), (b"{}", {}), (b"{}", {"content-type": "text/csv"}), (b'{"rows":[]}', {})):
        refused = await client.post("/predict", content=body, headers=headers)
        assert str(refused.status_code) in refusals
        assert refused.json()["type"] in known["properties"]["type"]["enum"]
        assert set(known["required"]) <= refused.json().keys() <= known["properties"].keys()


async def test_behind_a_prefix_everything_is_found(app_home: Path, tmp_path: Path) -> None:
    served = {"home": tmp_path, "registry": app_home / "models"}
    async with apps.serving(**served, default_model="loans", root_path="/api") as client:
        predicted = await client.post("/api/predict", json=ROW)
        described = (await client.get("/api/openapi.json")).json()
        page = await client.get("/api/docs")
        asset = re.findall(r'src="([^"]+)"', page.text)[0]
        bundle = await client.get(urljoin("/api/docs", asset))
        led = await client.get("/api/", headers={"accept": "text/html"})
        route = await metric_route(client)

    assert predicted.status_code == 200
    assert page.status_code == bundle.status_code == 200
    assert urljoin("/api/", led.headers["location"]) == "/api/docs"
    assert described["servers"] == [{"url": "/api"}]
    assert {"/predict", "/models"} <= described["paths"].keys()
    assert "/predict" in route


async def metric_route(client: httpx.AsyncClient) -> set[str]:
    text = (await client.get("/api/metrics")).text
    return {labels["route"] for labels in _labels(text, "rowcast_requests_total")}


async def test_with_several_models_and_no_default_a_name_is_asked_for(app_home: Path, tmp_path: Path) -> None:
    app = app_server.build_server(settings.load(home=tmp_path, registry=app_home / "models")).app
    async with apps.client(app) as client:
        unnamed = await client.post("/predict", json=ROW)
        named = await client.post("/models/loans/predict", json=ROW)
        described = (await client.get("/openapi.json")).json()

    assert (unnamed.status_code, unnamed.json()["type"]) == (404, "urn:rowcast:error:model-not-found")
    assert "loans, sum" in unnamed.json()["detail"]
    assert named.status_code == 200
    assert "/predict" not in described["paths"]


async def test_callers_at_once_share_a_tick_and_get_their_own_answers(client: httpx.AsyncClient) -> None:
    rows = [{"x0": number, "x1": number / 2} for number in range(100)]

    replies = await asyncio.gather(*[client.post("/models/sum/predict", json=row) for row in rows])

    assert [reply.json()["prediction"] for reply in replies] == [row["x0"] + row["x1"] for row in rows]
    assert len({reply.json()["id"] for reply in replies}) == 100
    assert len({reply.headers["x-request-id"] for reply in replies}) == 100


async def test_a_head_asks_what_a_get_would_answer(client: httpx.AsyncClient) -> None:
    asked = await client.head("/health/ready")

    assert asked.status_code == 200
    assert asked.headers["content-type"] == (await client.get("/health/ready")).headers["content-type"]
    assert (await client.head("/nothing")).status_code == 404
