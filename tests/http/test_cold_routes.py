"""The cold routes in the complete app: models, health, metrics, history, documentation pages and the root path."""

from __future__ import annotations

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

# The shared client runs on the session's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="session")
ROW = models.loan_rows(1)[0]


async def metric(client: httpx.AsyncClient, name: str, **labels: str) -> float:
    """Return the sum of the samples with these labels."""
    text = (await client.get("/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


def label_sets(text: str, name: str) -> Iterator[dict[str, str]]:
    """Yield the labels of each sample in a metric."""
    for family in text_string_to_metric_families(text):
        yield from (sample.labels for sample in family.samples if sample.name == name)


async def test_models_are_listed_with_their_descriptions(client: httpx.AsyncClient) -> None:
    descriptions = (await client.get("/models")).json()["models"]

    assert [(model["name"], model["version"], model["default"]) for model in descriptions] == [
        ("loans", 1, True),
        ("sum", 1, False),
    ]
    loans = descriptions[0]
    assert (loans["task"], loans["positive"], loans["target"]) == ("binary", "Approved", "loan_status")
    assert loans["schema"]["properties"].keys() == ROW.keys()
    assert loans["schema"]["additionalProperties"] is False
    assert {"accuracy", "roc_auc"} <= loans["holdout"].keys()
    assert loans["parity"]["label_flips"] == 0
    assert descriptions[1]["threshold"] is None


async def test_all_routes_describe_a_model_in_the_same_way(client: httpx.AsyncClient) -> None:
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


async def test_the_sample_is_a_valid_row(client: httpx.AsyncClient) -> None:
    sample = (await client.get("/sample")).json()

    assert sample.keys() == ROW.keys()
    assert (await client.post("/predict", json=sample)).status_code == 200


async def test_a_request_with_a_matching_etag_gets_304_without_a_body(client: httpx.AsyncClient) -> None:
    first = await client.get("/models/loans")
    etag = first.headers["etag"]

    for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = await client.get("/models/loans", headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), known
    for other in ('"other"', etag.strip('"') + "x", (await client.get("/models/sum")).headers["etag"]):
        assert (await client.get("/models/loans", headers={"if-none-match": other})).status_code == 200, other


async def test_a_server_is_ready_only_between_startup_and_shutdown(app_home: Path, tmp_path: Path) -> None:
    app = app_server.build_server(settings.load(home=tmp_path, registry=app_home / "models")).app
    async with apps.client(app) as client:
        before = await client.get("/health/ready")
        alive = await client.get("/health/live")
        async with apps.lifespan(app):
            during = await client.get("/health/ready")
            health = await client.get("/health")
        after = await client.get("/health/ready")

    assert [(reply.status_code, reply.json()) for reply in (before, during, after)] == [
        (503, {"ready": False}),
        (200, {"ready": True}),
        (503, {"ready": False}),
    ]
    assert (alive.status_code, alive.json()) == (200, {"live": True})
    assert health.status_code == 200
    body = health.json()
    (process,) = body.pop("processes")
    assert body == {
        "status": "ok",
        "ready": True,
        "models": ["loans@1", "sum@1"],
        "checks": {"history": "ok", "indexer": "ok", "disk": "ok", "processes": "ok"},
    }
    assert (process["state"], process["pid"], process["reload_error"]) == ("ready", os.getpid(), "")


@pytest.mark.parametrize("path", ["/models/", "/predictions/", "/health/", "/docs/", "/predict/"])
async def test_a_path_with_an_extra_slash_is_unknown(client: httpx.AsyncClient, path: str) -> None:
    reply = await client.get(path)

    assert (reply.status_code, "location" in reply.headers) == (404, False)


async def test_responses_forbid_content_type_sniffing(client: httpx.AsyncClient) -> None:
    for path in ("/", "/models", "/health", "/predictions", "/openapi.json", "/docs"):
        assert (await client.get(path)).headers["x-content-type-options"] == "nosniff", path


async def test_responses_have_security_headers(client: httpx.AsyncClient) -> None:
    prediction = await client.post("/predict", json=ROW)
    others = [
        await client.post("/predict", json={}),
        *[await client.get(path) for path in ("/models", "/docs", "/nowhere")],
    ]

    for reply in (prediction, *others):
        assert reply.headers["x-content-type-options"] == "nosniff"
    for reply in others:
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert len(reply.headers.get_list("content-security-policy")) == 1
    assert prediction.headers["cache-control"] == "no-store"


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


async def test_metrics_count_predictions_by_label(client: httpx.AsyncClient) -> None:
    before = {
        label: await metric(client, "rowcast_predictions_total", label=label) for label in ("Approved", "Rejected")
    }

    predictions = (await client.post("/predict", json={"rows": models.loan_rows(40)})).json()["predictions"]

    for label, then in before.items():
        expected = sum(reply["prediction"] == label for reply in predictions)
        assert await metric(client, "rowcast_predictions_total", label=label) - then == expected


async def test_metrics_contain_no_ids_and_no_requested_paths(client: httpx.AsyncClient) -> None:
    prediction = (await client.post("/predict", json=ROW, headers={"x-request-id": "secret-id"})).json()
    for path in (
        f"/predictions/{prediction['id']}",
        "/wp-admin/setup.php",
        "/models/loans",
        "/models/nope",
        "/static/swagger-init.js",
    ):
        await client.get(path)

    text = (await client.get("/metrics")).text

    for secret in (prediction["id"], "wp-admin", "secret-id", "nope"):
        assert secret not in text
    routes = {labels["route"] for labels in label_sets(text, "rowcast_requests_total")}
    assert {"/predict", "/predictions/{prediction_id}", "/models/{name}", "unmatched"} <= routes


async def test_metrics_are_in_the_prometheus_text_format(client: httpx.AsyncClient) -> None:
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
        "rowcast_redis_errors": "counter",
        "rowcast_redis_away": "gauge",
        "rowcast_queue_rows": "gauge",
        "rowcast_queue_age_seconds": "gauge",
        "rowcast_model_loads": "counter",
        "rowcast_worker_batches": "counter",
        "rowcast_worker_messages": "counter",
        "rowcast_worker_rows": "counter",
        "rowcast_reloads": "counter",
        "rowcast_model_load_seconds": "gauge",
        "rowcast_models_loaded": "gauge",
        "rowcast_server_processes": "gauge",
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


async def test_the_history_lists_entries_from_newest_to_oldest_across_pages(client: httpx.AsyncClient) -> None:
    sent = [(await client.post("/predict", params={"entity": f"e{n}"}, json=ROW)).json()["id"] for n in range(10)]
    sent += [(await client.post("/models/sum/predict", json={"x0": n, "x1": 0})).json()["id"] for n in range(10)]

    async def is_stored() -> bool:
        newest = (await client.get("/predictions", params={"limit": 1})).json()["predictions"]
        return [entry["id"] for entry in newest] == [max(sent)]

    await eventually_async(is_stored)
    read: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = {"limit": 7, **({"cursor": cursor} if cursor else {})}
        page = (await client.get("/predictions", params=query)).json()
        assert len(page["predictions"]) <= 7
        read += page["predictions"]
        cursor = page["next"]
        if cursor is None:
            break

    ids = [entry["id"] for entry in read]
    assert ids == sorted(set(ids), reverse=True)
    assert set(sent) <= set(ids)
    assert {entry["entity"] for entry in read if entry["id"] in sent[:10]} == {f"e{n}" for n in range(10)}
    of_sum = (await client.get("/predictions", params={"model": "sum", "limit": 1000})).json()["predictions"]
    assert [entry["id"] for entry in of_sum] == [entry["id"] for entry in read if entry["model"] == "sum"]


async def test_a_prediction_can_be_looked_up_in_the_journal_before_it_is_stored(app_home: Path, tmp_path: Path) -> None:
    """The app runs without its lifespan, so it has no indexer and the entry stays in the journal."""
    app = app_server.build_server(settings.load(home=tmp_path, registry=app_home / "models", models=("loans",))).app
    async with apps.client(app) as client:
        prediction = (await client.post("/predict?entity=A-17", json=ROW, headers={"x-request-id": "r-1"})).json()
        listed = (await client.get("/predictions")).json()["predictions"]
        entry = (await client.get(f"/predictions/{prediction['id']}")).json()

    assert listed == []
    assert (entry["prediction"], entry["row"], entry["entity"]) == (prediction, ROW, "A-17")
    assert (entry["model"], entry["version"], entry["request_id"], entry["source"]) == ("loans", 1, "r-1", "native")
    assert entry["digest"].startswith("rb1-")
    assert entry["seq"] == 0


async def test_the_history_returns_the_exact_bytes_of_a_row(client: httpx.AsyncClient) -> None:
    body = b'{"x1": 2.50 ,\n "x0":1e0}'

    prediction = (await client.post("/models/sum/predict", content=body)).json()
    entry = await client.get(f"/predictions/{prediction['id']}")

    assert b'"row":' + body in entry.content


@pytest.mark.parametrize("accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"])
async def test_a_browser_is_redirected_to_an_html_page(client: httpx.AsyncClient, accept: str) -> None:
    reply = await client.get("/", headers={"accept": accept})

    assert reply.status_code in (302, 303, 307)
    assert reply.headers["vary"] == "Accept"
    page = await client.get(urljoin("/", reply.headers["location"]))
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
async def test_clients_other_than_browsers_get_the_version_and_the_models(
    client: httpx.AsyncClient, accept: str
) -> None:
    reply = await client.get("/", headers={"accept": accept})

    served = {"version": rowcast.__version__, "status": "alive", "models": ["loans", "sum"]}
    assert reply.json() == {"name": "rowcast", **served}
    assert reply.headers["vary"] == "Accept"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_the_documentation_pages_load_nothing_from_other_hosts(client: httpx.AsyncClient, path: str) -> None:
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
        reply = await client.get(urljoin(path, asset))
        assert reply.status_code == 200, asset
        assert reply.headers["x-content-type-options"] == "nosniff"
    for initialiser in (asset for asset in assets if "init" in asset):
        assert not re.search(r"(https?:)?//\w", (await client.get(urljoin(path, initialiser))).text)


async def test_routes_work_under_a_path_prefix(app_home: Path, tmp_path: Path) -> None:
    paths = {"home": tmp_path, "registry": app_home / "models"}
    async with apps.serving(**paths, default_model="loans", root_path="/api") as client:
        prediction = await client.post("/api/predict", json=ROW)
        document = (await client.get("/api/openapi.json")).json()
        page = await client.get("/api/docs")
        asset = re.findall(r'src="([^"]+)"', page.text)[0]
        bundle = await client.get(urljoin("/api/docs", asset))
        redirect = await client.get("/api/", headers={"accept": "text/html"})
        route = await routes_in_metrics(client)

    assert prediction.status_code == 200
    assert page.status_code == bundle.status_code == 200
    assert urljoin("/api/", redirect.headers["location"]) == "/api/docs"
    assert document["servers"] == [{"url": "/api"}]
    assert {"/predict", "/models"} <= document["paths"].keys()
    assert "/predict" in route


async def routes_in_metrics(client: httpx.AsyncClient) -> set[str]:
    text = (await client.get("/api/metrics")).text
    return {labels["route"] for labels in label_sets(text, "rowcast_requests_total")}


async def test_head_returns_the_same_status_and_headers_as_get(client: httpx.AsyncClient) -> None:
    reply = await client.head("/health/ready")

    assert reply.status_code == 200
    assert reply.headers["content-type"] == (await client.get("/health/ready")).headers["content-type"]
    assert (await client.head("/nothing")).status_code == 404
