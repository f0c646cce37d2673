"""Jobs on real servers: they survive the death of any process, and have the same results as `rowcast predict`."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from rowcast.tables import examples
from support import access, models, servers
from support.commands import rowcast
from support.servers import Server, children, command_of
from support.waiting import eventually

ROWS = 60_000
KILLS = 4
PATIENCE = 120.0
"""The time limit for each wait, in seconds. Jobs take many times longer on a busy machine than on an idle one."""


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table with a few chunks."""
    path = tmp_path_factory.mktemp("table") / "rows.csv"
    pl.DataFrame(examples.loans(ROWS, 7)).drop("loan_status").write_csv(path)
    return path


@pytest.fixture(scope="module")
def expected(table: Path, loan_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What `rowcast predict` writes for the table."""
    home = models.with_models(tmp_path_factory.mktemp("expected") / "home", loan_registry)
    assert rowcast("predict", "loans", table, "--out", home / "out.csv", "--home", home, cwd=home).returncode == 0
    return (home / "out.csv").read_bytes()


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    with servers.running(home) as running:
        yield running


def submit(client: httpx.Client, table: Path, **options: str) -> str:
    with table.open("rb") as file:
        reply = client.post("/jobs", files={"file": file}, data=options)
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def wait(client: httpx.Client, job: str, state: str = "done", seconds: float = PATIENCE) -> Any:
    """Wait until the job has ended, and return it."""
    shown = eventually(lambda: _ended(client, job), seconds, every=0.1)
    assert shown["state"] == state, shown
    return shown


def _ended(client: httpx.Client, job: str) -> Any:
    shown = client.get(f"/jobs/{job}").json()
    return shown if shown["state"] not in ("queued", "running") else None


def runners(server: Server) -> list[int]:
    """Return a server's job runners and server processes."""
    parents = [server.process.pid, *children(server.process.pid)]
    return [pid for parent in parents for pid in children(parent) if command_of(pid).endswith(" job-runner")]


def kill_runners(server: Server) -> int:
    pids = runners(server)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(pids)


def assert_recorded_once(home: Path, rows: int) -> None:
    """Check that all chains are intact, and that each row is recorded once and can be replayed."""
    verification = json.loads(rowcast("verify", "--json", "--home", home, cwd=home).stdout)
    replay = json.loads(rowcast("replay", "--json", "--home", home, cwd=home).stdout)
    assert (verification["broken"], verification["erased"]) == ([], 0)
    assert (replay["entries"], replay["equal"]) == (rows, rows)


def test_a_job_writes_the_same_bytes_as_predict_and_is_recorded(
    home: Path, server: Server, table: Path, expected: bytes
) -> None:
    with server.client() as client:
        assert runners(server) == []
        job = submit(client, table)
        shown = wait(client, job)
        result = client.get(f"/jobs/{job}/result")
        rejects = client.get(f"/jobs/{job}/rejects")
        entry = client.get(f"/predictions/{job}").json()

    assert result.content == expected
    assert rejects.text.count("\n") == 1
    assert (shown["result"]["rows"], shown["result"]["rejected"]) == (ROWS, 0)
    assert entry["prediction"]["job"]["output_sha256"] == shown["result"]["output"]["sha256"]
    assert entry["source"] == "job"
    assert sorted(path.name for path in (home / "files" / job).iterdir()) == ["rejects.csv", "result.csv"]
    assert_recorded_once(home, 0)


@pytest.mark.long
def test_a_job_whose_runner_is_killed_repeatedly_has_the_same_result_and_records_no_row_twice(
    home: Path, server: Server, table: Path, expected: bytes
) -> None:
    rng = random.Random(5)
    killed = 0
    with server.client() as client:
        job = submit(client, table, record="rows")
        for _ in range(KILLS):
            eventually(lambda: runners(server) or _ended(client, job), PATIENCE)
            until = time.monotonic() + rng.uniform(0.5, 3.0)
            eventually(lambda end=until: time.monotonic() > end or _ended(client, job), PATIENCE)  # type: ignore[misc]
            killed += kill_runners(server)
        shown = wait(client, job)
        result = client.get(f"/jobs/{job}/result").content

    assert killed >= 1
    assert result == expected
    assert shown["progress"] == {"rows": ROWS, "rejected": 0, "share": 1.0}
    server.stop()
    assert_recorded_once(home, ROWS)


def test_a_job_continues_after_the_whole_server_was_killed(home: Path, table: Path, expected: bytes) -> None:
    with servers.running(home, name="first") as first, first.client() as client:
        job = submit(client, table)
        eventually(lambda: client.get(f"/jobs/{job}").json()["progress"]["rows"] > 0 or _ended(client, job), PATIENCE)
        kill_runners(first)
        first.kill()
    with servers.running(home, name="second") as second, second.client() as client:
        wait(client, job)
        assert client.get(f"/jobs/{job}/result").content == expected


def test_stopping_a_server_ends_its_runner_and_keeps_the_job(home: Path, table: Path, expected: bytes) -> None:
    with servers.running(home, name="first") as first, first.client() as client:
        job = submit(client, table)
        (runner,) = eventually(lambda: runners(first), PATIENCE)
        assert first.stop() == 0
        assert not servers.is_running(runner)
    with servers.running(home, name="second") as second, second.client() as client:
        wait(client, job)
        assert client.get(f"/jobs/{job}/result").content == expected


def test_server_processes_share_one_runner(home: Path, table: Path, expected: bytes) -> None:
    with servers.running(home, "--workers", "2") as server, server.client() as client:
        jobs = [submit(client, table) for _ in range(3)]
        eventually(lambda: len(runners(server)) == 1, PATIENCE)
        for job in jobs:
            wait(client, job)
            assert client.get(f"/jobs/{job}/result").content == expected


def test_a_canceled_job_stops_and_loses_its_files(home: Path, server: Server, table: Path) -> None:
    with server.client() as client:
        job = submit(client, table, record="rows")
        eventually(lambda: client.get(f"/jobs/{job}").json()["state"] == "running", PATIENCE)
        assert client.post(f"/jobs/{job}/cancel").json()["state"] == "canceled"
        assert client.get(f"/jobs/{job}/result").status_code == 404
        after = submit(client, table)
        wait(client, after)

    assert not (home / "files" / job).exists()


def test_a_job_that_waits_for_a_cluster_does_not_delay_other_jobs(home: Path, table: Path, expected: bytes) -> None:
    with servers.running(home, settings={"ROWCAST_RAY_ADDRESS": "127.0.0.1:1"}) as server, server.client() as client:
        waiting, local = submit(client, table, engine="ray"), submit(client, table)
        wait(client, local)
        shown = client.get(f"/jobs/{waiting}").json()
        assert client.get(f"/jobs/{local}/result").content == expected
        assert client.post(f"/jobs/{waiting}/cancel").json()["state"] == "canceled"

    assert (shown["problem"]["slug"], "127.0.0.1:1" in shown["problem"]["message"]) == ("engine-unavailable", True)
    assert not (home / "files" / waiting).exists()


def test_a_job_fails_if_its_table_cannot_be_scored(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with server.client() as client:
        shown = wait(client, submit(client, path), "failed")

    assert shown["error"]["slug"] == "missing-column"
    assert str(server.home) not in shown["error"]["message"]


def test_an_upload_that_is_too_large_or_incomplete_leaves_nothing_behind(home: Path, table: Path) -> None:
    settings = {"ROWCAST_JOB_UPLOAD_MB": "1"}
    with servers.running(home, settings=settings) as server, server.client() as client:
        with table.open("rb") as file:
            refused = client.post("/jobs", files={"file": file})
        with pytest.raises(httpx.HTTPError), httpx.Client(base_url=server.address, trust_env=False) as other:
            other.post("/jobs", content=_broken_upload(), headers={"content-type": "text/csv"})
        assert refused.status_code == 413
        assert client.get("/health/ready").status_code == 200
        eventually(lambda: not [path for path in (home / "files").rglob("*") if path.name != "id"], PATIENCE)


def _broken_upload() -> Iterator[bytes]:
    yield b"x0,x1\n" * 10
    raise httpx.WriteError("the client gives up")


def test_events_follow_a_job_to_its_end(server: Server, table: Path) -> None:
    with server.client() as client:
        job = submit(client, table)
        with client.stream("GET", f"/jobs/{job}/events") as reply:
            events = [json.loads(line[6:]) for line in reply.iter_lines() if line.startswith("data: ")]

    assert events[-1]["state"] == "done"
    rows = [event["progress"]["rows"] for event in events]
    assert rows == sorted(rows)
    assert rows[-1] == ROWS


def test_tenants_do_not_see_each_other(home: Path, table: Path) -> None:
    for name, tenant in (("a", "acme"), ("b", "bolt")):
        access.add(home, name, "predict", "read", tenant=tenant)
    with servers.running(home) as server, server.client() as client:
        client.headers = httpx.Headers(access.headers("a"))
        job = submit(client, table)
        wait(client, job)
        client.headers = httpx.Headers(access.headers("b"))
        statuses = [client.get(f"/jobs/{job}{path}").status_code for path in ("", "/result", "/rejects", "/events")]
        assert (statuses, client.get("/jobs").json()["jobs"]) == ([404] * 4, [])
        assert client.get(f"/predictions/{job}").status_code == 404


def test_expired_jobs_are_deleted(home: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in models.loan_rows(5)))
    with servers.running(home, settings={"ROWCAST_JOB_DAYS": "0.00003"}) as server, server.client() as client:
        job = submit(client, path)
        eventually(lambda: client.get(f"/jobs/{job}").status_code == 404, PATIENCE)
        eventually(lambda: not (home / "files" / job).exists(), PATIENCE)
