"""Complete replies from the cold routes and the health routes of an in-memory server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

import rowcast
from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.memory.journal import EmptyJournalReader
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.adapters.memory.store import MemoryStore
from rowcast.events import Event, RequestFailed
from rowcast.history.service import History
from rowcast.http.authentication import AccessRules, Authenticator
from rowcast.http.bodies import RequestIds
from rowcast.http.cold_app import ColdApp
from rowcast.http.cold_routes import add_cold_routes
from rowcast.http.edge import Edge
from rowcast.http.health_routes import HealthRoutes
from rowcast.http.idempotency import Idempotency
from rowcast.http.routes import RequestRules, Router
from rowcast.registry.ports import ImportResult
from rowcast.serving.deployment import Deployment
from rowcast.serving.fleet import LoadedModel, ProcessStatus, ReloadResult
from rowcast.serving.health import Health
from support import apps, models
from support.access import SECRET, new_key
from support.dialects import RecordingFleet

JSON = "application/json"
LOADED = tuple(LoadedModel(name, 1, "d", 0.5) for name in ("sum", "other"))
PROCESS = ProcessStatus(0, "ready", 7, LOADED, 1, 0, "other is broken")
LIMITED = [new_key(models=("sum",), scopes=("read", "admin"))]


class ColdFront:
    """The cold routes of a server with the models `sum` (the default) and `other`."""

    def __init__(self, folder: Path, keys: Any = ()) -> None:
        columns, graph = models.number_columns(2), models.sum_graph(2)
        live = {
            name: models.live(folder, name, graph, columns, models.REGRESSION, "values") for name in ("sum", "other")
        }
        self.deployment = Deployment(live, "sum")
        self.health, self.fleet = Health(), RecordingFleet()
        self.fleet.result = ReloadResult("ok", [PROCESS])
        self.events: list[Event] = []
        history = History(MemoryStore(), EmptyJournalReader())
        cold, unused = ColdApp(), Any
        add_cold_routes(cold, self.deployment, history, self.fleet, open_metrics=False)
        health = HealthRoutes(self.deployment, self.health, self.fleet, lambda: b"metrics 1\n", open_metrics=False)
        access = Authenticator(MemoryKeys(keys), AccessRules())
        idempotency, rules = Idempotency(MemoryIdempotencyStore(), 60), RequestRules(1000, 60)
        router = Router({}, [health])
        router.add_cold(cold.routes)
        self.edge = Edge(
            router,
            cold.api,
            unused,
            self.events.append,
            access,
            idempotency,
            rules,
            RequestIds("made"),  # type: ignore[arg-type]
        )

    def client(self, **options: Any) -> httpx.AsyncClient:
        return apps.client(self.edge, **options)


@pytest.fixture
def front(tmp_path: Path) -> ColdFront:
    return ColdFront(tmp_path)


async def problem(front: ColdFront, method: str, path: str) -> tuple[int, str, str]:
    """Return the status, the slug and the message of an error response."""
    async with front.client() as client:
        reply = await client.request(method, path)
    assert front.events[-2] == RequestFailed(reply.json()["type"].rpartition(":")[2])
    return reply.status_code, reply.json()["type"].rpartition(":")[2], reply.json()["detail"]


async def test_the_health_report_covers_every_part_and_server_process(front: ColdFront) -> None:
    problems = {"disk": ""}
    front.health.register("disk", lambda: problems["disk"] or None)
    process = {
        "process": 0,
        "state": "ready",
        "pid": 7,
        "models": [{"model": name, "version": 1, "digest": "d", "seconds": 0.5} for name in ("sum", "other")],
        "generation": 1,
        "asked": 0,
        "reload_error": "other is broken",
        "silent_seconds": 0.0,
        "waiting": 0,
        "waiting_seconds": 0.0,
    }
    async with front.client() as client:
        starting = await client.get("/health")
        front.health.is_ready = True
        healthy = await client.get("/health")
        problems["disk"] = "the disk is full"
        full = await client.get("/health")
        problems["disk"] = ""
        front.fleet.result = ReloadResult("ok", [PROCESS, ProcessStatus(1, "dead"), ProcessStatus(2, "stale")])
        dead = await client.get("/health")
        front.fleet.result = ReloadResult("ok", [])
        front.deployment.swap({})
        empty = await client.get("/health")

    report = {
        "status": "ok",
        "ready": True,
        "models": ["other@1", "sum@1"],
        "checks": {"disk": "ok", "processes": "ok"},
        "processes": [process],
    }
    assert (healthy.status_code, healthy.json()) == (200, report)
    assert (starting.status_code, starting.json()) == (503, {**report, "status": "degraded", "ready": False})
    assert (full.status_code, full.json()) == (
        503,
        {**report, "status": "degraded", "checks": {"disk": "the disk is full", "processes": "ok"}},
    )
    assert (dead.status_code, dead.json()["status"]) == (503, "degraded")
    assert dead.json()["checks"]["processes"] == "process 1 is dead; process 2 is stale"
    assert (empty.status_code, empty.json()["ready"], empty.json()["models"]) == (503, False, [])


async def test_probes_report_only_whether_the_server_is_live_and_ready(front: ColdFront) -> None:
    async with front.client() as client:
        live, unready = await client.get("/health/live"), await client.get("/health/ready")
        front.health.is_ready = True
        ready = await client.get("/health/ready")
        front.deployment.swap({})
        empty = await client.get("/health/ready")

    assert (live.status_code, live.json()) == (200, {"live": True})
    assert [(reply.status_code, reply.json()) for reply in (unready, ready, empty)] == [
        (503, {"ready": False}),
        (200, {"ready": True}),
        (503, {"ready": False}),
    ]


@pytest.mark.parametrize(("status", "code"), [("ok", 200), ("failed", 409), ("pending", 503)])
async def test_the_status_of_a_reload_determines_the_http_status(front: ColdFront, status: Any, code: int) -> None:
    front.fleet.result = ReloadResult(status, [PROCESS], [ImportResult("a.rowcast", "other", 2)])

    async with front.client() as client:
        reply = await client.post("/models/reload")

    assert (reply.status_code, reply.json()["status"]) == (code, status)
    assert reply.json()["processes"][0]["reload_error"] == "other is broken"
    assert reply.json()["imports"] == [{"file": "a.rowcast", "model": "other", "version": 2, "error": ""}]


async def test_a_limited_key_sees_only_its_models_in_health_and_reload_replies(tmp_path: Path) -> None:
    front = ColdFront(tmp_path, LIMITED)
    imports = [ImportResult("a", "other", 2), ImportResult("b", "sum", 2), ImportResult("c", error="it is damaged")]
    front.fleet.result = ReloadResult("ok", [PROCESS, ProcessStatus(1, "ready")], imports)
    async with front.client(headers={"x-api-key": SECRET}) as client:
        reloaded = (await client.post("/models/reload")).json()
        health = (await client.get("/health")).json()
        listed = (await client.get("/models")).json()["models"]
        root = (await client.get("/")).json()

    for processes in (reloaded["processes"], health["processes"]):
        assert [loaded["model"] for loaded in processes[0]["models"]] == ["sum"]
        assert [process["reload_error"] for process in processes] == ["the last reload failed", ""]
    assert [file["file"] for file in reloaded["imports"]] == ["b"]
    assert health["models"] == ["sum@1"]
    assert [(model["name"], model["default"]) for model in listed] == [("sum", True)]
    assert root["models"] == ["sum"]


async def test_the_root_describes_the_server_or_redirects_browsers(front: ColdFront) -> None:
    async with front.client() as client:
        plain, page = await client.get("/"), await client.get("/", headers={"accept": "text/html,*/*"})

    assert plain.json() == {
        "name": "rowcast",
        "version": rowcast.__version__,
        "status": "alive",
        "models": ["other", "sum"],
    }
    assert (page.status_code, page.headers["location"]) == (307, "docs")
    assert {reply.headers["vary"] for reply in (plain, page)} == {"Accept"}


@pytest.mark.parametrize(
    ("sent", "status"),
    [("{etag}", 304), ("W/{etag}", 304), ('"x", {etag}', 304), ("*", 304), ('"x"', 200), ("", 200), ("x{etag}", 200)],
)
async def test_an_unchanged_model_is_not_sent_again(front: ColdFront, sent: str, status: int) -> None:
    etag = f'"{front.deployment.get("sum").digest}"'

    async with front.client() as client:
        reply = await client.get("/models/sum", headers={"if-none-match": sent.format(etag=etag)})

    assert (reply.status_code, reply.headers["etag"]) == (status, etag)
    assert (reply.content == b"") is (status == 304)


async def test_metrics_are_sent_in_the_text_format(front: ColdFront) -> None:
    async with front.client() as client:
        reply = await client.get("/metrics")

    assert reply.content == b"metrics 1\n"
    assert reply.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_pages_have_their_own_content_policy(front: ColdFront, path: str) -> None:
    async with front.client() as client:
        reply = await client.get(path)

    assert reply.headers["content-type"] == "text/html; charset=utf-8"
    assert reply.headers["content-security-policy"].startswith("default-src 'self'; style-src")
    assert reply.headers["x-frame-options"] == "DENY"


@pytest.mark.parametrize(("name", "kind"), [("csv", "text/csv; charset=utf-8"), ("jsonl", "application/x-ndjson")])
async def test_an_export_is_a_file(front: ColdFront, name: str, kind: str) -> None:
    async with front.client() as client:
        reply = await client.get(f"/predictions/export?format={name}")
        default = await client.get("/predictions/export")

    assert (reply.status_code, reply.headers["content-type"]) == (200, kind)
    assert reply.headers["content-disposition"] == f'attachment; filename="predictions.{name}"'
    assert default.headers["content-type"] == "application/x-ndjson"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/predictions?limit=0", (400, "bad-option", "limit: Input should be greater than or equal to 1")),
        ("GET", "/predictions?limit=1001", (400, "bad-option", "limit: Input should be less than or equal to 1000")),
        ("GET", "/predictions?version=0", (400, "bad-option", "version: Input should be greater than or equal to 1")),
        (
            "GET",
            "/predictions?x=1",
            (
                400,
                "bad-option",
                "unknown option 'x'; known options: model, version, label, entity, since, until, limit, cursor",
            ),
        ),
        (
            "GET",
            f"/predictions/export?{'x' * 50}=1",
            (
                400,
                "bad-option",
                f"unknown option {'x' * 40!r}; known options: model, version, label, entity, since, until, format",
            ),
        ),
        ("GET", "/predictions/export?format=x", (400, "bad-option", "unknown format 'x'; expected csv or jsonl")),
        (
            "GET",
            "/predictions/export?format=parquet",
            (
                400,
                "bad-option",
                "unknown format 'parquet'; expected csv or jsonl; `rowcast history export` writes Parquet",
            ),
        ),
        ("GET", f"/predictions/{'a' * 70}", (404, "not-found", f"unknown prediction {'a' * 64!r}")),
        ("GET", "/models/none", (404, "model-not-found", "unknown model 'none'; available models: sum, other")),
        (
            "POST",
            "/models/none/predict",
            (404, "model-not-found", "unknown model 'none'; available models: sum, other"),
        ),
        ("POST", "/models/sum/predict/batch", (404, "not-found", "unknown path; see /docs")),
        ("GET", "/nowhere", (404, "not-found", "unknown path; see /docs")),
        ("GET", "/models/", (404, "not-found", "unknown path; see /docs")),
        ("POST", "/predictions", (405, "method-not-allowed", "this path accepts only GET; see /docs")),
    ],
)
async def test_the_error_from_a_cold_route_says_what_is_expected(
    front: ColdFront, method: str, path: str, expected: tuple[int, str, str]
) -> None:
    assert await problem(front, method, path) == expected


@pytest.mark.parametrize("path", ["/predictions?limit=1", "/predictions?limit=1000", f"/predictions?version={2**31}"])
async def test_options_at_their_limits_are_accepted(front: ColdFront, path: str) -> None:
    async with front.client() as client:
        reply = await client.get(path)

    assert (reply.status_code, reply.json()) == (200, {"predictions": [], "next": None})


@pytest.mark.parametrize(
    ("name", "limit"), [("model", 64), ("label", 500), ("entity", 128), ("cursor", 200), ("since", 40)]
)
async def test_a_text_option_has_a_maximum_length(front: ColdFront, name: str, limit: int) -> None:
    status, slug, message = await problem(front, "GET", f"/predictions?{name}={'x' * (limit + 1)}")

    assert (status, slug, message) == (400, "bad-option", f"{name}: String should have at most {limit} characters")
