"""`rowcast jobs` and the clients' methods for jobs, with a real server."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pytest

from rowcast.client import AsyncClient, Client, JobStatus, errors
from support import access, models, servers
from support.commands import rowcast
from support.servers import Server

COLUMNS = models.number_columns(2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a key."""
    home = tmp_path_factory.mktemp("jobs") / "home"
    registry = models.FolderRegistry(home / "models")
    models.publish(registry, "sum", models.sum_graph(2), COLUMNS, models.REGRESSION, "values")
    access.add(home, "boss", "predict", "read", "admin")
    with servers.running(home) as running:
        yield running


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.csv"
    path.write_text("name,x0,x1\n" + "".join(f"n{n},{n},{n / 4}\n" for n in range(100)) + "bad,no,1\n")
    return path


@pytest.fixture
def run(server: Server, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `rowcast jobs` with the server's key."""

    def run(*arguments: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[str]:
        variables = {"ROWCAST_API_KEY": access.secret("boss"), "ROWCAST_URL": server.address}
        return rowcast("jobs", *arguments, cwd=tmp_path, settings=variables, given=given)

    return run


def test_a_table_is_submitted_scored_and_downloaded_by_one_command(run: Any, table: Path, tmp_path: Path) -> None:
    out, rejects = tmp_path / "out.csv", tmp_path / "bad.csv"

    finished = run(
        "submit", table, "--out", out, "--rejects", rejects, "--columns", "name", "--record", "rows", "--json"
    )

    job = json.loads(finished.stdout)
    assert (finished.returncode, job["state"], job["record"]) == (0, "done", "rows")
    assert (job["result"]["rows"], job["result"]["rejected"]) == (100, 1)
    assert pl.read_csv(out)["prediction"].to_list() == [n * 1.25 for n in range(100)]
    assert pl.read_csv(out).columns == ["name", "prediction"]
    assert rejects.read_text().splitlines()[1].startswith("100,x0,")
    assert f"wrote {out} and {rejects}" in finished.stderr


def test_the_steps_of_a_job_can_be_separate_commands(run: Any, table: Path, tmp_path: Path) -> None:
    submitted = run("submit", table, "--format", "jsonl")
    job = submitted.stdout.strip()
    waited = run("wait", job, "--timeout", "30")
    shown = json.loads(run("show", job, "--json").stdout)
    listed = run("list", "--limit", "1000").stdout.splitlines()
    downloaded = run("result", job, "--out", tmp_path / "out.jsonl", "--json")
    canceled = run("cancel", job)

    assert [each.returncode for each in (submitted, waited, downloaded, canceled)] == [0, 0, 0, 0]
    assert (shown["state"], shown["format"]) == ("done", "jsonl")
    assert [line for line in listed if line.startswith(f"{job}\tdone\tsum@1\t101\t1\t")]
    assert json.loads(downloaded.stdout)["bytes"] == (tmp_path / "out.jsonl").stat().st_size
    assert "state\tdone" in canceled.stdout


def test_standard_input_can_be_submitted(run: Any) -> None:
    finished = run("submit", "-", "--wait", "--json", given=b'{"x0": 1, "x1": 2}\n')

    assert json.loads(finished.stdout)["result"]["rows"] == 1


def test_a_failed_job_returns_exit_status_1(run: Any, tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")

    finished = run("submit", tmp_path / "other.csv", "--out", tmp_path / "out.csv")

    assert finished.returncode == 1
    assert "error\tmissing-column: " in finished.stdout
    assert not (tmp_path / "out.csv").exists()


def test_a_command_that_is_repeated_with_the_same_key_uses_the_first_job(run: Any, table: Path) -> None:
    first, second = [run("submit", table, "--idempotency-key", "once").stdout for _ in range(2)]

    assert first == second


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["submit", "none.csv"], "none.csv"),
        (["submit", "rows.csv", "--format", "xlsx"], "--format"),
        (["submit", "rows.csv", "--record", "all"], "--record"),
        (["submit", "rows.csv", "--engine", "ray://host:10001"], "--engine"),
        (["submit", "rows.csv", "--engine", "ray"], "ray_address"),
        (["submit", "rows.csv", "--rejects", "bad.csv"], "--out"),
        (["submit", "rows.csv", "--out", "rows.csv"], "rows.csv"),
        (["submit", "rows.csv", "--model", "none"], "none"),
        (["show", "01a21fef-c178-73c2-8caf-1adc3619b9e0"], "01a21fef"),
        (["wait", "01a21fef-c178-73c2-8caf-1adc3619b9e0"], "01a21fef"),
        (["result", "01a21fef-c178-73c2-8caf-1adc3619b9e0", "--out", "x.csv"], "01a21fef"),
        (["list", "--url", "http://127.0.0.1:1"], "rowcast serve"),
    ],
)
@pytest.mark.usefixtures("table")
def test_an_error_is_one_line_that_names_the_cause(run: Any, arguments: list[str], part: str) -> None:
    finished = run(*arguments)

    assert finished.returncode == 2
    assert finished.stderr.count("\n") == 1
    assert part in finished.stderr


def test_the_client_submits_files_frames_and_rows(server: Server, table: Path, tmp_path: Path) -> None:
    frame = {"x0": [1.0, 2.0], "x1": [0.5, 0.25]}
    rows = [{"x0": 1.0, "x1": 0.5}, {"x0": 2.0, "x1": 0.25}]
    with Client(server.address, access.secret("boss")) as client:
        jobs = [
            client.jobs.submit(data, "sum", format="csv", columns=["x0"])
            for data in (str(table), pl.DataFrame(frame), pd.DataFrame(frame), iter(rows))
        ]
        seen: list[JobStatus] = []
        ended = [client.jobs.wait(job.id, timeout=60, progress=seen.append) for job in jobs]
        for number, job in enumerate(jobs):
            client.jobs.result(job.id, tmp_path / f"{number}.csv")
        size = client.jobs.rejects(jobs[0].id, tmp_path / "bad.csv")
        listed = [job.id for job in client.jobs.list(page=2)]

    assert [job.state for job in ended] == ["done"] * 4
    assert {job.id for job in seen} == {job.id for job in ended}
    assert [pl.read_csv(tmp_path / f"{n}.csv")["prediction"].to_list() for n in (1, 2, 3)] == [[1.5, 2.25]] * 3
    assert size == (tmp_path / "bad.csv").stat().st_size
    assert {job.id for job in jobs} <= set(listed)


def test_the_asynchronous_client_has_the_same_methods(server: Server, table: Path, tmp_path: Path) -> None:
    async def use(client: AsyncClient) -> tuple[JobStatus, list[str], int, JobStatus]:
        job = await client.jobs.submit(table)
        ended = await client.jobs.wait(job.id, timeout=60)
        listed = [each.id async for each in client.jobs.list()]
        size = await client.jobs.result(job.id, tmp_path / "out.csv")
        await client.jobs.rejects(job.id, tmp_path / "bad.csv")
        return ended, listed, size, await client.jobs.cancel(job.id)

    async def run_all() -> tuple[JobStatus, list[str], int, JobStatus]:
        async with AsyncClient(server.address, access.secret("boss")) as client:
            return await use(client)

    ended, listed, size, canceled = run_in_new_loop(run_all)

    assert (ended.state, canceled.state, ended.id in listed) == ("done", "done", True)
    assert size == (tmp_path / "out.csv").stat().st_size


def run_in_new_loop(function: Callable[[], Awaitable[Any]]) -> Any:
    with asyncio.Runner() as runner:
        return runner.run(function())  # type: ignore[arg-type]


def test_each_invalid_call_of_the_client_raises_a_specific_error(server: Server, tmp_path: Path) -> None:
    with Client(server.address, access.secret("boss")) as client:
        with pytest.raises(errors.BadCall):
            client.jobs.submit(tmp_path / "none.csv")
        with pytest.raises(errors.ResourceNotFound):
            client.jobs.get("01a21fef-c178-73c2-8caf-1adc3619b9e0")
        with pytest.raises(errors.BadCall):
            client.jobs.get("")
        job = client.jobs.submit([{"x0": 1.0}], idempotency_key="k")
        with pytest.raises(errors.IdempotencyConflict):
            client.jobs.submit([{"x0": 2.0}], idempotency_key="k")
        with pytest.raises(errors.JobNotDone):
            client.jobs.wait(client.jobs.submit([{"x0": 1.0, "x1": 1.0}]).id, timeout=0.0)
        failed = client.jobs.wait(job.id, timeout=60)
        with pytest.raises(errors.ResourceNotFound):
            client.jobs.result(job.id, tmp_path / "out.csv")

    assert failed.error is not None
    assert (failed.state, failed.error.slug) == ("failed", "missing-column")
    assert not (tmp_path / "out.csv").exists()
