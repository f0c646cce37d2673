"""The job routes of an in-memory server. It has no runner; the tests change job states directly."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rowcast.adapters.memory.idempotency import MemoryIdempotencyStore
from rowcast.adapters.memory.jobs import MemoryFileStore, MemoryJobStore
from rowcast.adapters.memory.keys import MemoryKeys
from rowcast.errors import Unavailable
from rowcast.http.authentication import AccessRules, Authenticator
from rowcast.http.bodies import RequestIds
from rowcast.http.cold_app import ColdApp
from rowcast.http.edge import Edge
from rowcast.http.idempotency import Idempotency
from rowcast.http.job_routes import add_job_routes
from rowcast.http.routes import RequestRules, Router
from rowcast.jobs.job import JobError, JobFile, JobResult, canceled, done, failed, postponed
from rowcast.jobs.service import JobLimits, JobService
from rowcast.serving.deployment import Deployment
from support import access, apps, models
from support.jobs import job_id

CSV = b"x0,x1\n1,2\n"
CSV_TYPE = {"content-type": "text/csv"}
MAX_TABLE, MAX_JSON = 5_000, 1_000


class JobFront:
    """The job routes of a server with the models `sum` (the default) and `other`."""

    def __init__(self, folder: Path, keys: Any = (), max_open: int = 10, ray_problem: str = "") -> None:
        columns, graph = models.number_columns(2), models.sum_graph(2)
        live = {
            name: models.live(folder, name, graph, columns, models.REGRESSION, "values") for name in ("sum", "other")
        }
        self.store, self.files = MemoryJobStore(), MemoryFileStore()
        self.wakes = 0
        self.is_draining = False
        service = JobService(self.store, self.files, JobLimits(MAX_TABLE, max_open, 60.0, ray_problem), self._wake)
        cold = ColdApp()
        add_job_routes(
            cold, service, Deployment(live, "sum"), max_json_bytes=MAX_JSON, is_draining=lambda: self.is_draining
        )
        authenticator = Authenticator(MemoryKeys(keys), AccessRules())
        idempotency, rules = Idempotency(MemoryIdempotencyStore(), 60), RequestRules(500, 60)
        unused: Any = None
        router = Router({}, [])
        router.add_cold(cold.routes)
        edge = Edge(router, cold.api, unused, lambda event: None, authenticator, idempotency, rules, RequestIds("test"))
        self.client = apps.client(edge)

    def _wake(self) -> None:
        self.wakes += 1

    async def submit(self, content: bytes = CSV, key: str = "", **query: str) -> httpx.Response:
        headers = {**CSV_TYPE, **(access.headers(key) if key else {})}
        return await self.client.post("/jobs", content=content, params=query, headers=headers)

    def finish(self, job: str) -> None:
        """Store a result."""
        self.files.put(f"{job}/result.csv", b"result")
        self.files.put(f"{job}/rejects.csv", b"rejects!")
        result = JobResult(3, 1, 0, JobFile("aa", 6), JobFile("bb", 8))
        self.store.change(job, lambda current, now: done(current, now, result))


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[JobFront]:
    front = JobFront(tmp_path)
    async with front.client:
        yield front


@pytest.fixture
async def locked(tmp_path: Path) -> AsyncIterator[JobFront]:
    """A server with keys for two tenants."""
    fields = [("a", "acme", ()), ("a2", "acme", ()), ("b", "bolt", ()), ("p", "acme", ()), ("only", "acme", ("other",))]
    scopes: dict[str, Any] = {"p": ("predict",), "only": ("predict", "read")}
    keys = [
        access.new_key(
            name, access.secret(name), tenant=tenant, models=allowed, scopes=scopes.get(name, ("predict", "read"))
        )
        for name, tenant, allowed in fields
    ]
    keys += [
        access.new_key("r", access.secret("r"), tenant="acme", scopes=("read",)),
        access.new_key("boss", access.secret("boss"), scopes=("admin",)),
    ]
    front = JobFront(tmp_path, keys)
    async with front.client:
        yield front


def slug(reply: httpx.Response) -> str:
    return str(reply.json()["type"]).removeprefix("urn:rowcast:error:")


async def test_a_submitted_table_is_stored_and_the_reply_says_where_its_job_is(front: JobFront) -> None:
    reply = await front.submit(columns="x0", record="rows", format="jsonl")

    job = reply.json()
    stored = front.store.get(job["id"])
    assert (reply.status_code, reply.headers["location"]) == (202, f"/jobs/{job['id']}")
    assert (job["state"], job["model"], job["version"], job["format"], job["record"]) == (
        *("queued", "sum", 1),
        *("jsonl", "rows"),
    )
    assert b"".join(front.files.read(f"{job['id']}/input.csv")) == CSV
    assert stored is not None
    assert (stored.spec.columns, stored.spec.input_bytes, len(stored.secret)) == (("x0",), len(CSV), 32)
    assert front.wakes == 1
    assert "secret" not in reply.text
    assert (await front.client.get(f"/jobs/{job['id'].upper()}")).json() == job


@pytest.mark.parametrize("options_first", [True, False])
async def test_a_form_contains_the_file_and_the_options_in_any_order(front: JobFront, options_first: bool) -> None:
    fields = [("model", (None, "other@1")), ("record", (None, "rows")), ("file", ("../../etc/passwd.parquet", CSV))]

    reply = await front.client.post("/jobs", files=fields if options_first else fields[::-1])

    job = reply.json()
    assert (reply.status_code, job["model"], job["record"], job["format"]) == (202, "other", "rows", "csv")
    assert b"".join(front.files.read(f"{job['id']}/input.csv")) == CSV


@pytest.mark.parametrize("body", [{"rows": [{"x0": 1}, {"x0": 2}]}, [{"x0": 1}, {"x0": 2}]])
async def test_rows_in_json_become_a_table(front: JobFront, body: Any) -> None:
    job = (await front.client.post("/jobs", json=body)).json()

    assert b"".join(front.files.read(f"{job['id']}/input.jsonl")) == b'{"x0":1}\n{"x0":2}\n'
    assert job["format"] == "jsonl"


@pytest.mark.parametrize(
    ("content", "name", "result"),
    [
        (b"PAR1xx", "input.parquet", "parquet"),
        (b"ARROW1xx", "input.arrow", "parquet"),
        (b' {"x0": 1}\n', "input.jsonl", "jsonl"),
        (gzip.compress(b'{"x0": 1}\n'), "input.jsonl", "jsonl"),
        (gzip.compress(CSV), "input.csv", "csv"),
        (b"\x1f\x8bnot gzip", "input.csv", "csv"),
    ],
)
async def test_the_format_of_an_upload_is_detected_from_its_content(
    front: JobFront, content: bytes, name: str, result: str
) -> None:
    job = (await front.submit(content)).json()

    assert b"".join(front.files.read(f"{job['id']}/{name}")) == content
    assert job["format"] == result


@pytest.mark.parametrize(
    ("query", "content", "expected"),
    [
        ({"colour": "red"}, CSV, (400, "bad-option")),
        ({"format": "xlsx"}, CSV, (400, "bad-option")),
        ({"record": "all"}, CSV, (400, "bad-option")),
        ({"engine": "ray://host:10001"}, CSV, (400, "bad-option")),
        ({"engine": "Local"}, CSV, (400, "bad-option")),
        ({"model": "none"}, CSV, (404, "model-not-found")),
        ({}, b"", (400, "empty-body")),
        ({}, b"x" * (MAX_TABLE + 1), (413, "body-too-large")),
    ],
)
async def test_an_invalid_request_is_refused_and_leaves_nothing_behind(
    front: JobFront, query: dict[str, str], content: bytes, expected: tuple[int, str]
) -> None:
    reply = await front.submit(content, **query)

    assert (reply.status_code, slug(reply)) == expected
    assert (front.files.jobs(), front.wakes) == ([], 0)


@pytest.mark.parametrize(
    ("content", "content_type", "expected"),
    [
        (b"not json", "application/json", (400, "malformed-body")),
        (b"[]", "application/json", (422, "no-rows")),
        (b"[1]", "application/json", (422, "not-an-object")),
        (b'{"x0": 1}', "application/json", (422, "not-an-object")),
        (b"[" + b" " * MAX_JSON, "application/json", (413, "body-too-large")),
        (b"--b--", "multipart/form-data; boundary=b", (400, "empty-body")),
        (b"--b", "multipart/form-data; boundary=b", (400, "malformed-body")),
        (b"--b", "multipart/form-data", (415, "unsupported-media-type")),
    ],
)
async def test_a_malformed_body_is_refused_and_leaves_nothing_behind(
    front: JobFront, content: bytes, content_type: str, expected: tuple[int, str]
) -> None:
    reply = await front.client.post("/jobs", content=content, headers={"content-type": content_type})

    assert (reply.status_code, slug(reply)) == expected
    assert front.files.jobs() == []


async def test_a_form_with_two_files_or_oversized_fields_is_refused(front: JobFront) -> None:
    two = await front.client.post("/jobs", files=[("file", ("a", CSV)), ("file", ("b", CSV))])
    long = await front.client.post("/jobs", files=[("file", ("a", CSV)), ("columns", (None, "x" * 70_000))])

    assert (two.status_code, slug(two)) == (400, "malformed-body")
    assert long.status_code in (400, 413)
    assert front.files.jobs() == []


async def test_an_upload_with_a_content_encoding_is_refused(front: JobFront) -> None:
    reply = await front.client.post("/jobs", content=CSV, headers={**CSV_TYPE, "content-encoding": "gzip"})

    assert (reply.status_code, slug(reply)) == (415, "unsupported-encoding")


async def test_a_large_table_that_arrives_without_a_length_is_refused_before_it_is_complete(front: JobFront) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 1_000

    reply = await front.client.post("/jobs", content=pieces(), headers=CSV_TYPE)

    assert (reply.status_code, slug(reply)) == (413, "body-too-large")
    assert sent < 10
    assert front.files.jobs() == []


async def test_a_repeated_request_with_an_idempotency_key_returns_the_first_job(front: JobFront) -> None:
    key = {**CSV_TYPE, "idempotency-key": "k"}

    first, second = [await front.client.post("/jobs", content=CSV, headers=key) for _ in range(2)]
    other = await front.client.post("/jobs", content=CSV + CSV, headers=key)
    options = await front.client.post("/jobs", content=CSV, headers=key, params={"record": "rows"})

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json() == second.json()
    assert [(reply.status_code, slug(reply)) for reply in (other, options)] == [(422, "repeat-differs")] * 2
    assert (front.files.jobs(), front.wakes) == ([first.json()["id"]], 1)


async def test_idempotency_keys_from_releases_without_engines_remain_valid(front: JobFront) -> None:
    key = {**CSV_TYPE, "idempotency-key": "k"}

    async def submit(**options: str) -> httpx.Response:
        return await front.client.post("/jobs", content=CSV, headers=key, params=options)

    first, local, ray = await submit(), await submit(engine="local"), await submit(engine="ray")

    stored = front.store.get(first.json()["id"])
    meaning = [[None, None, None, "job"], hashlib.sha256(CSV).hexdigest()]  # as in releases without `engine`
    assert stored is not None
    assert stored.fingerprint == hashlib.sha256(json.dumps(meaning, separators=(",", ":")).encode()).digest()
    assert local.json() == first.json()
    assert (ray.status_code, slug(ray)) == (422, "repeat-differs")


async def test_a_job_can_use_the_cluster_of_the_server(front: JobFront) -> None:
    local, ray = (await front.submit(engine="local")).json(), (await front.submit(engine="ray")).json()

    specs = [stored.spec.engine for job in (local, ray) if (stored := front.store.get(job["id"]))]
    assert (specs, ray["engine"], "engine" in local) == (["local", "ray"], "ray", False)


async def test_a_server_without_a_cluster_refuses_jobs_for_a_cluster(tmp_path: Path) -> None:
    front = JobFront(tmp_path, ray_problem="set `ray_address`")
    async with front.client:
        local, ray = await front.submit(engine="local"), await front.submit(engine="ray")

    assert (local.status_code, ray.status_code, slug(ray)) == (202, 400, "bad-option")
    assert "`ray_address`" in ray.json()["detail"]
    assert front.files.jobs() == [local.json()["id"]]


async def test_a_job_that_waits_for_its_cluster_shows_why_and_until_when(front: JobFront) -> None:
    job = (await front.submit(engine="ray")).json()["id"]
    problem = JobError("engine-unavailable", "the cluster does not respond")
    front.store.claim("r", front.files.place, seconds=60)
    front.store.change(job, lambda current, now: postponed(current, 1_000_000, problem))

    shown = (await front.client.get(f"/jobs/{job}")).json()

    assert (shown["state"], shown["problem"]["slug"], shown["retry"]) == (
        *("queued", "engine-unavailable"),
        "1970-01-01T00:00:06Z",
    )


async def test_two_callers_with_the_same_idempotency_key_get_two_jobs(locked: JobFront) -> None:
    async def submit(name: str) -> str:
        headers = {**CSV_TYPE, "idempotency-key": "k", **access.headers(name)}
        return str((await locked.client.post("/jobs", content=CSV, headers=headers)).json()["id"])

    assert len({await submit(name) for name in ("a", "a2", "b", "a")}) == 3


async def test_a_tenant_with_too_many_open_jobs_must_wait(tmp_path: Path) -> None:
    front = JobFront(tmp_path, max_open=1)
    async with front.client:
        await front.submit()
        reply = await front.submit()

    assert (reply.status_code, slug(reply), reply.headers["retry-after"]) == (503, "overloaded", "1")
    assert len(front.files.jobs()) == 1


async def test_jobs_are_listed_in_pages(front: JobFront) -> None:
    jobs = [(await front.submit()).json()["id"] for _ in range(3)]
    newest = sorted(jobs, reverse=True)

    first = (await front.client.get("/jobs", params={"limit": 2})).json()
    second = (await front.client.get("/jobs", params={"limit": 2, "cursor": first["next"]})).json()

    assert [job["id"] for job in first["jobs"]] == newest[:2]
    assert ([job["id"] for job in second["jobs"]], second["next"]) == (newest[2:], None)
    for wrong in ({"page": 2}, {"cursor": "x"}, {"cursor": "äöü"}, {"limit": 0}):
        refused = await front.client.get("/jobs", params=wrong)
        assert (refused.status_code, slug(refused)) == (400, "bad-option"), wrong


async def test_a_finished_job_has_a_result_and_rejected_rows(front: JobFront) -> None:
    job = (await front.submit()).json()["id"]
    early = await front.client.get(f"/jobs/{job}/result")
    front.finish(job)

    shown = (await front.client.get(f"/jobs/{job}")).json()
    result, rejects = [await front.client.get(f"/jobs/{job}/{name}") for name in ("result", "rejects")]

    assert (early.status_code, slug(early)) == (409, "job-not-done")
    assert (shown["state"], shown["result"]["rows"], shown["progress"]["share"]) == ("done", 3, 1.0)
    assert (result.content, result.headers["content-length"], result.headers["etag"]) == (b"result", "6", '"aa"')
    assert result.headers["content-type"].startswith("text/csv")
    assert f'filename="result-{job}.csv"' in result.headers["content-disposition"]
    assert rejects.content == b"rejects!"


async def test_a_failed_or_canceled_job_has_no_result(front: JobFront) -> None:
    jobs = [(await front.submit()).json()["id"] for _ in range(2)]
    front.store.change(jobs[0], lambda job, now: failed(job, now, JobError("missing-column", "no x0")))
    front.store.change(jobs[1], canceled)

    replies = [await front.client.get(f"/jobs/{job}/result") for job in jobs]
    shown = (await front.client.get(f"/jobs/{jobs[0]}")).json()

    assert [(reply.status_code, slug(reply)) for reply in replies] == [(404, "not-found")] * 2
    assert (shown["state"], shown["error"]) == ("failed", {"slug": "missing-column", "message": "no x0"})


async def test_a_canceled_job_loses_its_files_and_a_finished_job_keeps_them(front: JobFront) -> None:
    open_job, finished = [(await front.submit()).json()["id"] for _ in range(2)]
    front.finish(finished)

    replies = [await front.client.post(f"/jobs/{job}/cancel") for job in (open_job, finished, open_job)]

    assert [(reply.status_code, reply.json()["state"]) for reply in replies] == [
        (200, "canceled"),
        (200, "done"),
        (200, "canceled"),
    ]
    assert front.files.jobs() == [finished]


async def test_an_unknown_job_is_not_found(front: JobFront) -> None:
    for path in ("", "/events", "/result", "/rejects"):
        reply = await front.client.get(f"/jobs/{job_id(1)}{path}")
        assert (reply.status_code, slug(reply)) == (404, "not-found"), path
    assert (await front.client.post(f"/jobs/{job_id(1)}/cancel")).status_code == 404


async def test_a_tenant_never_sees_the_jobs_of_another_tenant(locked: JobFront) -> None:
    job = (await locked.submit(key="a")).json()["id"]
    locked.finish(job)

    for path in ("", "/events", "/result", "/rejects"):
        reply = await locked.client.get(f"/jobs/{job}{path}", headers=access.headers("b"))
        assert (reply.status_code, slug(reply)) == (404, "not-found"), path
    canceled_by_b = await locked.client.post(f"/jobs/{job}/cancel", headers=access.headers("b"))
    listed = {
        name: len((await locked.client.get("/jobs", headers=access.headers(name))).json()["jobs"])
        for name in ("a", "a2", "b", "p", "only", "r", "boss")
    }

    assert canceled_by_b.status_code == 404
    assert listed == {"a": 1, "a2": 1, "b": 0, "p": 0, "only": 0, "r": 1, "boss": 1}


async def test_a_key_that_cannot_read_the_history_can_see_only_its_own_jobs(locked: JobFront) -> None:
    own = (await locked.submit(key="p")).json()["id"]
    other = (await locked.submit(key="a")).json()["id"]

    shown = [await locked.client.get(f"/jobs/{job}", headers=access.headers("p")) for job in (own, other)]

    assert [reply.status_code for reply in shown] == [200, 404]


async def test_only_a_key_with_the_predict_scope_can_submit_and_cancel_jobs(locked: JobFront) -> None:
    job = (await locked.submit(key="a")).json()["id"]

    submitted = await locked.submit(key="r")
    canceled_by_reader = await locked.client.post(f"/jobs/{job}/cancel", headers=access.headers("r"))
    wrong_model = await locked.submit(key="only", model="sum")

    for reply in (submitted, canceled_by_reader, wrong_model):
        assert (reply.status_code, slug(reply)) == (403, "forbidden")
    assert locked.files.jobs() == [job]
    assert (await locked.client.get("/jobs")).status_code == 401


async def test_events_report_every_state_until_the_job_ends(front: JobFront, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowcast.http.job_routes.POLL_SECONDS", 0.01)
    job = (await front.submit()).json()["id"]
    following = asyncio.create_task(front.client.get(f"/jobs/{job}/events"))
    await asyncio.sleep(0)
    front.store.claim("r", front.files.place, seconds=60)
    front.finish(job)

    reply = await following

    events = [json.loads(event.partition("data: ")[2]) for event in reply.text.split("\n\n") if event]
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == (await front.client.get(f"/jobs/{job}")).json()
    assert [event["id"] for event in events] == [job] * len(events)


async def test_an_event_stream_ends_when_the_server_shuts_down(front: JobFront) -> None:
    job = (await front.submit()).json()["id"]
    front.is_draining = True

    reply = await front.client.get(f"/jobs/{job}/events")

    assert [json.loads(reply.text.partition("data: ")[2])["state"]] == ["queued"]


async def test_the_number_of_streams_is_limited(front: JobFront, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rowcast.http.job_routes.MAX_STREAMS", 0)
    job = (await front.submit()).json()["id"]

    reply = await front.client.get(f"/jobs/{job}/events")

    assert (reply.status_code, slug(reply)) == (503, "overloaded")


async def test_an_upload_stops_when_the_disk_is_almost_full(front: JobFront, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise Unavailable("full", slug="disk-low")

    monkeypatch.setattr("rowcast.http.job_uploads.WRITE_BYTES", 100)
    monkeypatch.setattr("rowcast.http.job_uploads.CHECKED_BYTES", 1_000)
    monkeypatch.setattr(front.files, "check", refuse)

    small, large = await front.submit(), await front.submit(b"x" * 2_000)

    assert small.status_code == 202
    assert (large.status_code, slug(large)) == (503, "disk-low")
    assert front.files.jobs() == [small.json()["id"]]
