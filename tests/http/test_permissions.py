"""API keys in the complete app: the permissions of each key and the isolation of tenants."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest

from rowcast.errors import SettingsError
from support import access, apps
from support.protected import ROW, create_home, predict, read, wait_for_entries
from support.waiting import eventually_async

# The shared client runs on the module's event loop.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_only_public_routes_are_accessible_without_a_valid_key(protected_client: httpx.AsyncClient) -> None:
    for path in ("/", "/health/live", "/health/ready", "/docs", "/redoc", "/openapi.json", "/static/icon.svg"):
        assert (await protected_client.get(path)).status_code == 200, path
    for path in ("/models", "/models/sum", "/sample", "/predictions", "/predictions/1", "/health", "/metrics", "/no"):
        for headers in ({}, {"x-api-key": "rk_a_wrong"}, {"authorization": "Bearer x"}):
            reply = await protected_client.get(path, headers=headers)
            assert (reply.status_code, reply.json()["type"]) == (401, "urn:rowcast:error:unauthorized"), path
            assert reply.headers["www-authenticate"].startswith("Bearer")
    assert (await protected_client.post("/predict", json=ROW)).status_code == 401
    assert (await protected_client.post("/models/none/predict", json=ROW)).status_code == 401


async def test_a_key_permits_only_what_its_scopes_allow(protected_client: httpx.AsyncClient) -> None:
    assert (await predict(protected_client, "p")).status_code == 200
    assert (await read(protected_client, "p", "/predictions")).status_code == 403
    assert (await read(protected_client, "p", "/models")).status_code == 200
    assert (await read(protected_client, "p", "/metrics")).status_code == 403
    assert (await read(protected_client, "a", "/metrics")).status_code == 403
    assert (await read(protected_client, "boss", "/metrics")).status_code == 200
    refused = await protected_client.delete("/predictions/1", headers=access.headers("a"))
    assert (refused.status_code, refused.json()["type"]) == (403, "urn:rowcast:error:forbidden")


async def test_a_key_for_one_model_is_rejected_for_all_other_models_whether_or_not_they_exist(
    protected_client: httpx.AsyncClient,
) -> None:
    headers = access.headers("only")
    allowed = await protected_client.post("/models/other/predict", json=ROW, headers=headers)
    refused = [
        await protected_client.post(path, json=ROW, headers=headers)
        for path in ("/predict", "/models/sum/predict", "/models/none/predict")
    ]
    paths = ("/models/sum", "/models/none", "/models/info", "/sample", "/models/other")
    described = [await protected_client.get(path, headers=headers) for path in paths]
    listed = await protected_client.get("/models", headers=headers)

    assert allowed.status_code == 200
    assert [reply.status_code for reply in refused] == [403, 403, 403]
    assert [reply.status_code for reply in described] == [403, 403, 403, 403, 200]
    assert [model["name"] for model in listed.json()["models"]] == ["other"]


async def test_public_routes_list_only_the_models_that_the_caller_can_use(protected_client: httpx.AsyncClient) -> None:
    async def visible_models(headers: dict[str, str]) -> tuple[list[str], set[str]]:
        root = (await protected_client.get("/", headers=headers)).json()
        document = (await protected_client.get("/openapi.json", headers=headers)).text
        return root["models"], set(re.findall(r"/models/(\w+)/predict", document))

    assert await visible_models({}) == await visible_models({"x-api-key": "rk_a_wrong"}) == ([], set())
    assert await visible_models(access.headers("only")) == (["other"], {"other"})
    assert await visible_models({"authorization": f"Bearer {access.secret('p')}"}) == (
        ["other", "sum"],
        {"other", "sum"},
    )


async def test_the_openapi_document_for_a_caller_without_a_key_describes_no_models(
    protected_client: httpx.AsyncClient,
) -> None:
    anonymous, known = [
        (await protected_client.get("/openapi.json", headers=headers)).json() for headers in ({}, access.headers("p"))
    ]
    narrow = (await protected_client.get("/openapi.json", headers=access.headers("only"))).json()

    assert "Authorize" in anonymous["info"]["description"]
    assert "x0" not in json.dumps(anonymous)
    assert not any(path.endswith(("/predict", "/infer", ":predict")) for path in anonymous["paths"])
    assert {"/predict", "/models/sum/predict", "/v2/models/sum/infer"} <= known["paths"].keys()
    assert "description" not in known["info"]
    assert "/predict" not in narrow["paths"]  # the key is not valid for the default model
    assert {"/models/other/predict", "/v1/models/other:predict"} <= narrow["paths"].keys()
    assert "sum" not in {word for path in narrow["paths"] for word in re.split(r"\W", path)}


async def test_health_replies_and_error_messages_hide_models_that_the_caller_cannot_use(tmp_path: Path) -> None:
    async with apps.serving(home=create_home(tmp_path / "home")) as client:  # two models and no default model
        health = (await read(client, "only", "/health")).json()
        everything = (await read(client, "p", "/health")).json()
        for path in ("/predict", "/predict/batch", "/models/none/predict", "/invocations", "/v2/models/none/infer"):
            text = (await client.post(path, json=ROW, headers=access.headers("narrow"))).text
            assert ("sum" in text, "other" in text) == (False, True), text
        for path in ("/models/none", "/models/info", "/sample"):
            assert "sum" not in (await read(client, "narrow", path)).text
        assert (await read(client, "narrow", "/metrics")).status_code == 403

    assert (health["models"], [loaded["model"] for loaded in health["processes"][0]["models"]]) == (
        ["other@1"],
        ["other"],
    )
    assert [loaded["model"] for loaded in everything["processes"][0]["models"]] == ["other", "sum"]


async def test_predictions_and_other_requests_have_separate_quotas(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    options = {"quota": "2 requests/60s", "quota_predict": "4/60s"}
    async with apps.serving(home=home, default_model="sum", **options) as client:
        reads = [(await read(client, "a", "/predictions")).status_code for _ in range(3)]
        predictions = [(await predict(client, "a")).status_code for _ in range(2)]
        too_many = await predict(client, "a", {"rows": [ROW, ROW, ROW]})
        last = await predict(client, "a")
        own = [(await predict(client, "few")).status_code for _ in range(5)]

    assert reads == [200, 200, 429]
    assert predictions == [200, 200]
    assert (too_many.status_code, last.status_code) == (429, 200)
    assert last.headers["ratelimit-policy"] == '"default";q=4;w=60'
    assert own == [200] * 5


async def test_a_reload_reports_only_models_that_the_caller_can_use(tmp_path: Path) -> None:
    home = create_home(tmp_path / "home")
    access.add(home, "manager", "admin", models=("other",))
    (home / "drop").mkdir()
    (home / "drop" / "sum-of-secrets.onnx").write_bytes(b"not a model")
    async with apps.serving(home=home, models_dir=home / "drop") as client:
        full, limited = [
            (await client.post("/models/reload", headers=access.headers(name))).json() for name in ("boss", "manager")
        ]

    assert [file["file"] for file in full["imports"]] == ["sum-of-secrets.onnx"]
    assert [loaded["model"] for loaded in full["processes"][0]["models"]] == ["other", "sum"]
    assert [loaded["model"] for loaded in limited["processes"][0]["models"]] == ["other"]
    assert "sum" not in json.dumps(limited)


async def test_a_tenant_does_not_learn_from_the_cache_what_another_tenant_has_sent(tmp_path: Path) -> None:
    async with apps.serving(home=create_home(tmp_path / "home"), default_model="sum", cache=True) as client:
        hits = [
            (await client.post("/predict", json=ROW, headers=access.headers(name))).headers.get("x-cache")
            for name in ("a", "a", "b", "b", "boss", "p")
        ]

    assert hits == ["miss", "hit"] * 3


async def test_tenants_see_only_their_own_data(protected_client: httpx.AsyncClient) -> None:
    replies = [await predict(protected_client, "a", {"x0": 41.53125, "x1": number}) for number in range(3)]
    ids = [reply.json()["id"] for reply in replies]
    await predict(protected_client, "b")
    await wait_for_entries(protected_client, "a", 3)
    await wait_for_entries(protected_client, "b", 1)
    unknown = await read(protected_client, "b", "/predictions/01890a5d-ac96-774b-8bce-b302099a8057")
    for id_ in ids:
        own, foreign = [await read(protected_client, name, f"/predictions/{id_}") for name in "ab"]
        assert (own.status_code, foreign.status_code) == (200, unknown.status_code) == (200, 404)
        assert foreign.json()["detail"].replace(id_, "") == unknown.json()["detail"].replace(
            "01890a5d-ac96-774b-8bce-b302099a8057", ""
        )
    for query in ("", "?limit=1000", "?model=sum"):
        listed = (await read(protected_client, "b", f"/predictions{query}")).json()
        assert len(listed["predictions"]) == 1
        assert "41.53125" not in json.dumps(listed)
        assert not [id_ for id_ in ids if id_ in json.dumps(listed)]
    assert len((await read(protected_client, "a", "/predictions")).json()["predictions"]) == 3
    assert (await read(protected_client, "p", "/predictions")).status_code == 403
    metrics = (await read(protected_client, "boss", "/metrics")).text
    for word in ("acme", "bolt", "key", "tenant", *ids):
        assert word not in metrics.replace("rowcast_prediction", "")


async def test_the_history_records_the_key_and_the_tenant(protected_client: httpx.AsyncClient) -> None:
    id_ = (await predict(protected_client, "c")).json()["id"]

    entry = (await read(protected_client, "c", f"/predictions/{id_}")).json()

    assert (entry["key_id"], entry["tenant"]) == ("c", "cook")


async def test_a_quota_limits_the_number_of_rows_and_is_reported_in_replies(
    protected_client: httpx.AsyncClient,
) -> None:
    first = await predict(protected_client, "few")
    batch = await predict(protected_client, "few", {"rows": [ROW] * 8})
    last = await predict(protected_client, "few")
    over = await predict(protected_client, "few")
    other = await predict(protected_client, "p")

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


async def test_a_batch_that_exceeds_the_quota_is_rejected_as_a_whole(protected_client: httpx.AsyncClient) -> None:
    reply = await predict(protected_client, "less", {"rows": [ROW] * 11})

    assert reply.status_code == 429
    assert "retry-after" not in reply.headers


async def test_a_key_created_while_the_server_is_running_takes_effect(
    protected_client: httpx.AsyncClient, shared_home: Path
) -> None:
    access.add(shared_home, "late", "predict")

    async def is_accepted() -> bool:
        return (await predict(protected_client, "late")).status_code == 200

    await eventually_async(is_accepted, seconds=3)


async def test_metrics_can_be_public(protected_home: Path) -> None:
    async with apps.serving(home=protected_home, default_model="sum", open_metrics=True) as client:
        assert (await client.get("/metrics")).status_code == 200
        assert (await client.get("/health")).status_code == 401


async def test_the_server_does_not_start_if_the_key_file_is_damaged(protected_home: Path) -> None:
    (protected_home / "keys.json").write_text("{")

    with pytest.raises(SettingsError) as refused:
        async with apps.serving(home=protected_home):
            pass
    assert "keys.json" in refused.value.message


async def test_only_a_key_without_limits_can_read_the_statistics_of_all_models(
    protected_client: httpx.AsyncClient,
) -> None:
    paths = ("/v2/models/stats", "/v2/models/other/stats", "/v2/models/sum/stats")

    statuses = {
        name: [(await read(protected_client, name, path)).status_code for path in paths]
        for name in ("narrow", "a", "p", "boss")
    }

    assert statuses == {
        "narrow": [403, 200, 403],
        "a": [403, 403, 403],
        "p": [403, 403, 403],
        "boss": [200, 200, 200],
    }
