"""The command group `rowcast jobs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rowcast.cli.options import Home, Json, Rows, show_help

jobs_app = typer.Typer(help="Score tables in the background on a running server.", rich_markup_mode=None)
jobs_app.callback(invoke_without_command=True)(show_help)

JobId = Annotated[str, typer.Argument(metavar="ID", help="Id of the job.")]
Url = Annotated[str | None, typer.Option(help="Server URL [from the settings].")]
Out = Annotated[Path | None, typer.Option(help="Wait for the job, and download its result to this file.")]
Rejects = Annotated[Path | None, typer.Option(help="Download the rejected rows to this file.")]
Seconds = Annotated[float | None, typer.Option(min=0.01, help="Stop waiting after this many seconds [never].")]


@jobs_app.command("submit")
def jobs_submit(
    table: Rows,
    model: Annotated[str | None, typer.Option(help="NAME or NAME@VERSION [the server's default model].")] = None,
    format: Annotated[  # noqa: A002 - the option is --format
        str | None, typer.Option(help="Format of the result: csv, csv.gz, jsonl or parquet [same as the table].")
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="COLUMN[,COLUMN]", help="Columns to copy to the result [all].")
    ] = None,
    record: Annotated[
        str,
        typer.Option(help="What the history records: job (one entry for the job) or rows (also one entry per row)."),
    ] = "job",
    engine: Annotated[
        str, typer.Option(help="Where to score: local (on one machine) or ray (on the server's Ray cluster).")
    ] = "local",
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    out: Out = None,
    rejects: Rejects = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="Idempotency key; repeating the command with the same key returns the first job.")
    ] = None,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Upload a table, and print the id of its job; with --wait or --out, exit with status 1 if the job fails."""
    from rowcast.cli import jobs

    options = jobs.SubmitOptions(
        model=model, format=format, columns=columns, record=record, engine=engine, idempotency_key=idempotency_key
    )
    return jobs.submit(jobs.access(url, home), table, options, jobs.Waiting(wait, out, rejects), as_json=json)


@jobs_app.command("list")
def jobs_list(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Number of jobs to show.")] = 20,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """List jobs, newest first."""
    from rowcast.cli import jobs

    jobs.list_jobs(jobs.access(url, home), limit, as_json=json)


@jobs_app.command("show")
def jobs_show(job: JobId, url: Url = None, home: Home = None, json: Json = False) -> None:
    """Show a job's state and progress."""
    from rowcast.cli import jobs

    jobs.show(jobs.access(url, home), job, as_json=json)


@jobs_app.command("wait")
def jobs_wait(
    job: JobId,
    timeout: Seconds = None,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Wait until a job has ended; exit with status 1 if it failed or was canceled."""
    from rowcast.cli import jobs

    return jobs.wait(jobs.access(url, home), job, timeout, as_json=json)


@jobs_app.command("cancel")
def jobs_cancel(job: JobId, url: Url = None, home: Home = None, json: Json = False) -> None:
    """Cancel a job and delete its files. This has no effect on a job that has ended."""
    from rowcast.cli import jobs

    jobs.cancel(jobs.access(url, home), job, as_json=json)


@jobs_app.command("result")
def jobs_result(
    job: JobId,
    out: Annotated[Path, typer.Option(help="Output file.")],
    rejects: Rejects = None,
    url: Url = None,
    home: Home = None,
    json: Json = False,
) -> None:
    """Download the result of a job."""
    from rowcast.cli import jobs

    jobs.download(jobs.access(url, home), job, out, rejects, as_json=json)
