"""Jobs on several machines that share a PostgreSQL store and a folder. Separate homes simulate the machines."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from rowcast.tables import examples
from support import models, s3, servers
from support.commands import rowcast
from support.postgresql import Postgres
from support.waiting import eventually

ROWS = 40_000


@pytest.fixture
def machines(tmp_path: Path, loan_registry: Path) -> list[Path]:
    return [models.with_models(tmp_path / name, loan_registry) for name in ("first", "second")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    pl.DataFrame(examples.loans(ROWS, 7)).drop("loan_status").write_csv(path)
    return path


@pytest.mark.long
def test_another_machine_continues_the_job_of_a_machine_that_has_died(
    machines: list[Path], table: Path, tmp_path: Path, database: str
) -> None:
    settings = {"ROWCAST_STORE": database, "ROWCAST_FILES": str(tmp_path / "shared")}
    first = servers.start(machines[0], settings=settings)
    try:
        with servers.running(machines[1], settings=settings) as second:
            with first.client() as client, table.open("rb") as file:
                job = client.post("/jobs", files={"file": file}, data={"record": "rows"}).json()["id"]
                eventually(lambda: client.get(f"/jobs/{job}").json()["state"] != "queued", 60)
            first.kill()
            with second.client() as client:
                eventually(lambda: client.get(f"/jobs/{job}").json()["state"] == "done", 120, every=0.2)
                result = client.get(f"/jobs/{job}/result").content
                entry = client.get(f"/predictions/{job}").json()
    finally:
        first.kill()

    home = machines[1]
    rowcast("predict", "loans", table, "--out", tmp_path / "out.csv", "--home", home, cwd=home)
    verification = json.loads(rowcast("verify", "--json", "--home", home, cwd=home, settings=settings).stdout)
    assert result == (tmp_path / "out.csv").read_bytes()
    assert entry["prediction"]["job"]["rows"] == ROWS
    assert (verification["broken"], verification["entries"]) == ([], ROWS + 1)


def test_a_job_waits_while_the_database_is_unavailable(
    home: Path, table: Path, postgres: Postgres, database: str
) -> None:
    with servers.running(home, settings={"ROWCAST_STORE": database}) as server, server.client() as client:
        with table.open("rb") as file:
            job = client.post("/jobs", files={"file": file}).json()["id"]
        eventually(lambda: client.get(f"/jobs/{job}").json()["state"] != "queued", 60)
        postgres.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        eventually(lambda: client.get(f"/jobs/{job}").json().get("state") == "done", 120, every=0.2)
        shown = client.get(f"/jobs/{job}").json()

    assert shown["result"]["rows"] == ROWS


def test_files_can_be_in_a_bucket(home: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in models.loan_rows(50)))
    with s3.serving() as bucket:
        settings = {"ROWCAST_FILES": f"s3://{s3.BUCKET}/jobs", **bucket.variables}
        with servers.running(home, settings=settings) as server, server.client() as client:
            with (tmp_path / "rows.jsonl").open("rb") as file:
                job = client.post("/jobs", files={"file": file}).json()["id"]
            eventually(lambda: client.get(f"/jobs/{job}").json()["state"] == "done", 120, every=0.2)
            result = client.get(f"/jobs/{job}/result").text

    assert result.count("\n") == 50
    assert sorted(bucket.objects) == [f"jobs/{job}/rejects.jsonl", f"jobs/{job}/result.jsonl"]
    assert not (home / "files").exists()
