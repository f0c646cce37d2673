"""The whole app with keys: who may do what, and what two tenants can learn of each other."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from rowcast.adapters.files.registry import FolderRegistry
from rowcast.errors import SettingsError
from support import access, apps, models
from support.waiting import eventually_async

ROW = {"x0": 1.5, "x1": 2.0}
SUM = models.number_columns(2)


def made(folder: Path) -> Path:
    """Two models that add and multiply, and keys of some tenants; no two tests count the rows of one tenant."""
    registry = FolderRegistry(folder / "models")
    models.publish(registry, "sum", models.sum_graph(2), SUM, models.REGRESSION, "values")
    models.publish(registry, "other", models.linear_graph(2, 1), SUM, models.REGRESSION, "values")
    for name, tenant in (("a", "acme"), ("b", "bolt"), ("c", "cook"), ("d", "dock"), ("e", "east")):
        access.add(folder, name, "predict", "read", tenant=tenant)
    access.add(folder, "p", "predict")
    access.add(folder, "only", "predict", models=("other",))
    access.add(folder, "nosy", "predict", "read", models=("other", "none"))
    access.add(folder, "boss", "predict", "read", "admin")
    access.add(folder, "few", "predict", quota="10/60s")
    access.add(folder, "less", "predict", quota="10/60s")
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return made(tmp_path / "home")


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("access") / "home")


@pytest_asyncio.fixture(scope="module")
async def client(shared_home: Path) -> AsyncIterator[httpx.AsyncClient]:
    async with apps.serving(home=shared_home, default_model="sum") as asking:
        yield asking


async def kept(client: httpx.AsyncClient, name: str, count: int) -> None:
    """Wait until so many predictions that this key may see are in the store."""

    async def stored() -> bool:
        return len((await read(client, name, "/predictions")).json()["predictions"]) == count

    await eventually_async(stored)


async def predict(client: httpx.AsyncClient, name: str, body: Any = ROW, **headers: str) -> httpx.Response:
    return await client.post("/predict", json=body, headers={**access.headers(name), **headers})


async def read(client: httpx.AsyncClient, name: str, path: str) -> httpx.Response:
    return await client.get(path, headers=access.headers(name))


async def test_without_a_good_key_only_the_open_routes_answer(client: httpx.AsyncClient) -> None:
    for path in ("/", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json", "/static/icon.svg"):
        assert (await client.get(path)).status_code == 200, path
    for path in ("/models", "/models/sum", "/sample", "/predictions", "/predictions/1", "/health", "/metrics", "/no"):
        for headers in ({}, {"x-api-key": "rk_a_wrong"}, {"authorization": "Bearer x"}):
            reply = await client.get(path, headers=headers)
            assert (reply.status_code, reply.json()["type"]) == (401, "urn:rowcast:error:unauthorized"), path
            assert reply.headers["www-authenticate"].startswith("Bearer")
    assert (await client.post("/predict", json=ROW)).status_code == 401
    assert (await client.post("/models/none/predict", json=ROW)).status_code == 401


async def test_each_key_does_what_its_scopes_say_and_no_more(client: httpx.AsyncClient) -> None:
    assert (await predict(client, "p")).status_code == 200
    assert (await read(client, "p", "/predictions")).status_code == 403
    assert (await read(client, "p", "/models")).status_code == 200
    assert (await read(client, "p", "/metrics")).status_code == 403
    assert (await read(client, "a", "/metrics")).status_code == 403
    assert (await read(client, "boss", "/metrics")).status_code == 200
    refused = await client.delete("/predictions/1", headers=access.headers("a"))
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:rowcast:error:forbidden")


async def test_a_key_for_one_model_is_for_no_other_whether_it_exists_or_not(client: httpx.AsyncClient) -> None:
    headers = access.headers("only")
    allowed = await client.post("/models/other/predict", json=ROW, headers=headers)
    refused = [
        await client.post(path, json=ROW, headers=headers)
        for path in ("/predict", "/models/sum/predict", "/models/none/predict")
    ]
    paths = ("/models/sum", "/models/none", "/models/info", "/sample", "/models/other")
    looked = [await client.get(path, headers=headers) for path in paths]
    listed = await client.get("/models", headers=headers)

    assert allowed.status_code == 200
    assert [reply.status_code for reply in refused] == [403, 403, 403]
    assert [reply.status_code for reply in looked] == [403, 403, 403, 403, 200]
    assert [found["name"] for found in listed.json()["models"]] == ["other"]


async def test_the_open_pages_show_of_models_what_a_key_may_use(client: httpx.AsyncClient) -> None:
    async def shown(headers: dict[str, str]) -> tuple[list[str], set[str]]:
        root = (await client.get("/", headers=headers)).json()
        described = (await client.get("/openapi.json", headers=headers)).text
        return root["models"], set(re.findall(r"/models/(\w+)/predict", described))

    assert await shown({}) == await shown({"x-api-key": "rk_a_wrong"}) == ([], set())
    assert await shown(access.headers("only")) == (["other"], {"other"})
    assert await shown({"authorization": f"Bearer {access.secret('p')}"}) == (["other", "sum"], {"other", "sum"})


async def test_what_stands_open_describes_no_model_to_strangers(client: httpx.AsyncClient) -> None:
    stranger, known = [(await client.get("/openapi.json", headers=sent)).json() for sent in ({}, access.headers("p"))]
    narrow = (await client.get("/openapi.json", headers=access.headers("only"))).json()

    assert "Authorize" in stranger["info"]["description"]
    assert "x0" not in json.dumps(stranger)
    assert not any(path.endswith(("/predict", "/infer", ":predict")) for path in stranger["paths"])
    assert {"/predict", "/models/sum/predict", "/v2/models/sum/infer"} <= known["paths"].keys()
    assert "description" not in known["info"]
    assert "/predict" not in narrow["paths"]  # the default is another one
    assert {"/models/other/predict", "/v1/models/other:predict"} <= narrow["paths"].keys()
    assert "sum" not in {word for path in narrow["paths"] for word in re.split(r"\W", path)}


async def test_a_key_for_one_model_is_told_of_no_other_by_health_metrics_or_errors(tmp_path: Path) -> None:
    async with apps.serving(home=made(tmp_path / "home")) as client:  # two models, and none is the default
        health = (await read(client, "only", "/health")).json()
        everything = (await read(client, "p", "/health")).json()
        for path in ("/predict", "/predict/batch", "/models/none/predict", "/invocations", "/v2/models/none/infer"):
            told = (await client.post(path, json=ROW, headers=access.headers("nosy"))).text
            assert ("sum" in told, "other" in told) == (False, True), told
        for path in ("/models/none", "/models/info", "/sample"):
            assert "sum" not in (await read(client, "nosy", path)).text
        assert (await read(client, "nosy", "/metrics")).status_code == 403

    assert (health["models"], [found["model"] for found in health["workers"][0]["models"]]) == (["other@1"], ["other"])
    assert [found["model"] for found in everything["workers"][0]["models"]] == ["other", "sum"]


async def test_two_tenants_never_learn_of_each_other(client: httpx.AsyncClient) -> None:
    """Rows, ids, references, labels and errors: everything of one is asked for by the other."""
    made = [await predict(client, "a", {"x0": 41.53125, "x1": number}) for number in range(3)]
    ids = [reply.json()["id"] for reply in made]
    await predict(client, "b")
    await kept(client, "a", 3)
    await kept(client, "b", 1)
    unknown = await read(client, "b", "/predictions/01890a5d-ac96-774b-8bce-b302099a8057")
    for id_ in ids:
        mine, theirs = [await read(client, name, f"/predictions/{id_}") for name in "ab"]
        assert (mine.status_code, theirs.status_code) == (200, unknown.status_code) == (200, 404)
        assert theirs.json()["detail"].replace(id_, "") == unknown.json()["detail"].replace(
            "01890a5d-ac96-774b-8bce-b302099a8057", ""
        )
    for query in ("", "?limit=1000", "?model=sum"):
        listed = (await read(client, "b", f"/predictions{query}")).json()
        assert len(listed["predictions"]) == 1
        assert "41.53125" not in json.dumps(listed)
        assert not [id_ for id_ in ids if id_ in json.dumps(listed)]
    assert len((await read(client, "a", "/predictions")).json()["predictions"]) == 3
    assert (await read(client, "p", "/predictions")).status_code == 403
    metrics = (await read(client, "boss", "/metrics")).text
    for word in ("acme", "bolt", "key", "tenant", *ids):
        assert word not in metrics.replace("rowcast_prediction", "")


async def test_a_tenants_key_is_written_beside_its_predictions(client: httpx.AsyncClient) -> None:
    id_ = (await predict(client, "c")).json()["id"]

    found = (await read(client, "c", f"/predictions/{id_}")).json()

    assert (found["key_id"], found["tenant"]) == ("c", "cook")


async def test_an_idempotency_key_of_one_caller_says_nothing_to_another(client: httpx.AsyncClient) -> None:
    first, again, other = [await predict(client, name, **{"idempotency-key": "order-1"}) for name in ("c", "c", "p")]

    assert first.content == again.content
    assert other.json()["id"] != first.json()["id"]
    assert other.headers["idempotency-replayed"] == "false"


async def test_a_quota_counts_rows_and_says_what_is_left(client: httpx.AsyncClient) -> None:
    first = await predict(client, "few")
    batch = await predict(client, "few", {"rows": [ROW] * 8})
    last = await predict(client, "few")
    over = await predict(client, "few")
    other = await predict(client, "p")

    assert [reply.status_code for reply in (first, batch, last, over, other)] == [200, 200, 200, 429, 200]
    assert first.headers["ratelimit-policy"] == '"default";q=10;w=60'
    assert [reply.headers["ratelimit"].split(";")[1] for reply in (first, batch, last, over)] == [
        "r=9",
        "r=1",
        "r=0",
        "r=0",
    ]
    assert over.json()["type"] == "urn:rowcast:error:over-quota"
    assert 1 <= int(over.headers["retry-after"]) <= 6
    assert "ratelimit" not in other.headers


async def test_a_batch_beyond_the_quota_is_refused_whole(client: httpx.AsyncClient) -> None:
    reply = await predict(client, "less", {"rows": [ROW] * 11})

    assert reply.status_code == 429
    assert "retry-after" not in reply.headers


async def test_keys_are_followed_while_the_server_runs(client: httpx.AsyncClient, shared_home: Path) -> None:
    access.add(shared_home, "late", "predict")

    async def known() -> bool:
        return (await predict(client, "late")).status_code == 200

    await eventually_async(known, seconds=3)


async def test_the_same_request_again_gets_the_same_bytes_and_no_second_entry(client: httpx.AsyncClient) -> None:
    headers = {**access.headers("d"), "idempotency-key": "order-7"}
    body = json.dumps({"rows": [ROW, ROW]})
    first, again = [await client.post("/predict", content=body, headers=headers) for _ in range(2)]
    differs = await client.post("/predict", json=ROW, headers=headers)
    elsewhere = await client.post("/models/sum/predict", content=body, headers=headers)

    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert [reply.headers["idempotency-replayed"] for reply in (first, again)] == ["false", "true"]
    assert first.headers["x-request-id"] != again.headers["x-request-id"]
    assert (differs.status_code, differs.json()["type"]) == (422, "urn:rowcast:error:repeat-differs")
    assert elsewhere.status_code == 422
    await kept(client, "d", 2)


async def test_of_the_same_request_at_once_one_is_answered(client: httpx.AsyncClient) -> None:
    replies = await asyncio.gather(*(predict(client, "p", **{"idempotency-key": "k"}) for _ in range(10)))

    assert {reply.status_code for reply in replies} <= {200, 409}
    assert len({reply.content for reply in replies if reply.status_code == 200}) == 1
    assert all("retry-after" in reply.headers for reply in replies if reply.status_code == 409)


async def test_a_refused_request_may_come_again_with_the_same_idempotency_key(client: httpx.AsyncClient) -> None:
    refused = await predict(client, "p", {"x0": "no"}, **{"idempotency-key": "k"})
    mended = await predict(client, "p", **{"idempotency-key": "k"})

    assert (refused.status_code, mended.status_code) == (422, 200)


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é"])
async def test_an_idempotency_key_that_cannot_be_used_is_refused(client: httpx.AsyncClient, key: str) -> None:
    headers = {**access.headers("p"), "idempotency-key": key.encode("latin-1")}
    reply = await client.post("/predict", json=ROW, headers=headers)  # type: ignore[arg-type]

    assert (reply.status_code, reply.json()["type"]) == (400, "urn:rowcast:error:bad-option")


@pytest.mark.parametrize(("coding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_packed_bodies_are_unpacked(client: httpx.AsyncClient, coding: str, pack: Any) -> None:
    reply = await client.post(
        "/predict",
        content=pack(json.dumps(ROW).encode()),
        headers={**access.headers("p"), "content-encoding": coding},
    )

    assert (reply.status_code, reply.json()["prediction"]) == (200, 3.5)


@pytest.mark.parametrize(
    ("pack", "coding", "status"),
    [
        pytest.param(lambda: gzip.compress(b" " * 100_000_000), "gzip", 413, id="gzip bomb"),
        pytest.param(lambda: zlib.compress(b" " * 100_000_000), "deflate", 413, id="deflate bomb"),
        pytest.param(lambda: b"no gzip", "gzip", 400, id="not packed"),
        pytest.param(lambda: gzip.compress(b"{}")[:-4], "gzip", 400, id="cut off"),
        pytest.param(lambda: gzip.compress(b"{}") + b"more", "gzip", 400, id="more after it"),
        pytest.param(lambda: b"{}", "br", 415, id="unknown coding"),
    ],
)
async def test_packed_bodies_that_are_bombs_or_broken_are_refused(
    client: httpx.AsyncClient, pack: Callable[[], bytes], coding: str, status: int
) -> None:
    content = pack()
    for path in ("/predict", "/models/none/predict"):
        headers = {**access.headers("p"), "content-encoding": coding}
        reply = await client.post(path, content=content, headers=headers)
        assert reply.status_code == status, reply.text


@pytest.mark.parametrize("seconds", ["0", "-1", "soon", "1e3", "3601", ""])
async def test_a_timeout_that_means_nothing_is_refused(client: httpx.AsyncClient, seconds: str) -> None:
    reply = await predict(client, "p", **{"x-request-timeout": seconds})

    assert (reply.status_code, reply.json()["type"]) == (400, "urn:rowcast:error:bad-option")


async def test_a_request_whose_time_is_up_is_told_and_not_scored(client: httpx.AsyncClient) -> None:
    late = await predict(client, "e", **{"x-request-timeout": "0.000000001"})
    fine = await predict(client, "e", **{"x-request-timeout": "20"})

    assert (late.status_code, late.json()["type"]) == (504, "urn:rowcast:error:too-late")
    assert fine.status_code == 200
    await kept(client, "e", 1)


async def test_a_request_that_waited_too_long_is_shed(home: Path) -> None:
    async with apps.serving(home=home, default_model="sum", max_wait_seconds=1e-9) as client:
        reply = await predict(client, "p")

    assert (reply.status_code, reply.json()["type"]) == (503, "urn:rowcast:error:overloaded")
    assert "retry-after" in reply.headers


@pytest.mark.parametrize("path", ["/predict", "/models"])
async def test_a_trace_goes_on_and_an_invalid_one_begins_anew(client: httpx.AsyncClient, path: str) -> None:
    method = "POST" if path == "/predict" else "GET"

    async def traced(given: str) -> list[str]:
        headers = {**access.headers("p"), "traceparent": given}
        body = ROW if method == "POST" else None
        reply = await client.request(method, path, json=body, headers=headers)
        return str(reply.headers["traceparent"]).split("-")

    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    version, same, mine, flags = await traced(f"00-{trace}-{span}-01")
    assert (version, same, flags) == ("00", trace, "01")
    assert mine != span
    for invalid in ("00-0-1-01", f"00-{'0' * 32}-{span}-01", f"00-{trace}-{'0' * 16}-01", f"ff-{trace}-{span}-01"):
        version, other, mine, flags = await traced(invalid)
        assert other not in (trace, "0" * 32)
        assert (len(other), len(mine)) == (32, 16)


@pytest_asyncio.fixture(scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """A keyless server that pages of one origin may use."""
    home = made(tmp_path_factory.mktemp("keyless") / "home")
    (home / "keys.json").unlink()
    async with apps.serving(home=home, default_model="sum", cors_origins="https://app.example") as asking:
        yield asking


async def test_a_listed_origin_may_ask_and_read_the_answer(shared: httpx.AsyncClient) -> None:
    origin = {"origin": "https://app.example"}
    asked = await shared.options("/predict", headers={**origin, "access-control-request-method": "POST"})
    answered = await shared.post("/predict", json=ROW, headers=origin)

    assert asked.status_code == 204
    assert "POST" in asked.headers["access-control-allow-methods"]
    assert "x-api-key" in asked.headers["access-control-allow-headers"]
    assert answered.status_code == 200
    for reply in (asked, answered):
        assert reply.headers["access-control-allow-origin"] == "https://app.example"
        assert "Origin" in reply.headers["vary"]


@pytest.mark.parametrize("path", ["/predict", "/models/reload"])
async def test_a_page_of_another_origin_changes_nothing(shared: httpx.AsyncClient, path: str) -> None:
    evil = {"origin": "https://evil.example"}
    asked = await shared.options(path, headers={**evil, "access-control-request-method": "POST"})
    posted = await shared.post(path, json=ROW, headers=evil)
    read_ = await shared.get("/models", headers=evil)

    assert (asked.status_code, posted.status_code) == (403, 403)
    assert posted.json()["type"] == "urn:rowcast:error:cross-origin"
    assert "access-control-allow-origin" not in read_.headers


@pytest.mark.parametrize(
    "own", [{"origin": "http://rowcast.test"}, {"origin": "https://proxy.example", "sec-fetch-site": "same-origin"}]
)
async def test_our_own_pages_may_ask(shared: httpx.AsyncClient, own: dict[str, str]) -> None:
    assert (await shared.post("/predict", json=ROW, headers=own)).status_code == 200


async def test_every_reply_protects_who_reads_it(client: httpx.AsyncClient) -> None:
    replies = [
        await predict(client, "p"),
        await predict(client, "p", {}),
        await read(client, "boss", "/models"),
        await client.get("/docs"),
        await client.get("/nowhere"),
    ]

    for reply in replies:
        assert reply.headers["x-content-type-options"] == "nosniff"
    for reply in replies[1:]:
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert len(reply.headers.get_list("content-security-policy")) == 1
    assert replies[0].headers["cache-control"] == "no-store"


async def test_a_hit_is_a_new_entry_with_the_same_answer(home: Path) -> None:
    async with apps.serving(home=home, default_model="sum", cache=True) as client:
        first, second = await predict(client, "boss"), await predict(client, "boss", {"x1": 2.0, "x0": 1.5})
        other = await client.post("/models/other/predict", json=ROW, headers=access.headers("boss"))
        batch = await predict(client, "boss", {"rows": [ROW, ROW]})
        mixed = await predict(client, "boss", {"rows": [ROW, {"x0": 9, "x1": 9}]})
        passed = await client.post("/predict?cache=false", json=ROW, headers=access.headers("boss"))
        wrong = await predict(client, "boss", {"x0": "no"})
        await kept(client, "boss", 8)

    assert [reply.headers.get("x-cache") for reply in (first, second, other, batch, mixed, passed, wrong)] == [
        "miss",
        "hit",
        "miss",
        "hit",
        "miss",
        None,
        None,
    ]
    assert [reply.json()["cached"] for reply in (first, second, passed)] == [False, True, False]
    assert [row["cached"] for row in mixed.json()["predictions"]] == [True, False]
    assert [row["prediction"] for row in mixed.json()["predictions"]] == [3.5, 18.0]
    assert first.json()["id"] != second.json()["id"]
    assert first.json()["prediction"] == second.json()["prediction"] == 3.5


async def test_without_a_cache_nothing_is_said_of_it(client: httpx.AsyncClient) -> None:
    assert "x-cache" not in (await predict(client, "p")).headers


async def test_metrics_can_be_opened(home: Path) -> None:
    async with apps.serving(home=home, default_model="sum", open_metrics=True) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/health")).status_code == 401


async def test_a_damaged_key_file_keeps_the_server_from_starting(home: Path) -> None:
    (home / "keys.json").write_text("{")

    with pytest.raises(SettingsError) as refused:
        async with apps.serving(home=home):
            pass
    assert "keys.json" in refused.value.message
