"""`rowcast jobs`: submit tables to a running server, wait for the results and download them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rowcast import settings
from rowcast.cli import output
from rowcast.cli.calling import server_access
from rowcast.cli.streams import input_table
from rowcast.client import Client, JobStatus
from rowcast.client.errors import ErrorReply, Unreachable
from rowcast.errors import RowcastError, SettingsError
from rowcast.jobs.job import RESULT_FORMATS, JobError
from rowcast.output_files import is_same_file, refuse_overwriting

OK, ENDED_WITHOUT_RESULT = 0, 1


class ServerAccess(NamedTuple):
    """The server's URL and the API key."""

    url: str
    key: str | None


class SubmitOptions(NamedTuple):
    """The options of a job, as given on the command line."""

    model: str | None
    format: str | None
    columns: str | None
    record: str
    engine: str
    idempotency_key: str | None

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for the client; raise SettingsError if an option is invalid."""
        if self.format is not None and self.format not in RESULT_FORMATS:
            raise SettingsError(f"--format {self.format} is unknown; available formats: {', '.join(RESULT_FORMATS)}")
        if self.record not in ("job", "rows"):
            raise SettingsError(f"--record must be job or rows, not {self.record}")
        if self.engine not in ("local", "ray"):
            raise SettingsError(f"--engine must be local or ray, not {self.engine}")
        columns = None if self.columns is None else [name.strip() for name in self.columns.split(",")]
        chosen = {"format": self.format, "columns": columns, "idempotency_key": self.idempotency_key}
        given = {name: value for name, value in chosen.items() if value is not None}
        return {"record": self.record, **({} if self.engine == "local" else {"engine": self.engine}), **given}


class Waiting(NamedTuple):
    """Whether to wait for a new job, and where to download its files."""

    wait: bool
    out: Path | None
    rejects: Path | None


class JobSummary(msgspec.Struct, frozen=True):
    """The sizes of the downloaded files, in bytes."""

    job: str
    out: str
    bytes: int
    rejects: str | None = None
    rejects_bytes: int | None = None


def access(url: str | None, home: Path | None) -> ServerAccess:
    """Return the server's URL and the API key from the command line and the settings."""
    loaded = settings.load(home=home, url=url)
    return ServerAccess(*server_access(loaded, settings.origins(home=home, url=url)))


def submit(server: ServerAccess, table: Path, options: SubmitOptions, waiting: Waiting, *, as_json: bool) -> int:
    """Submit a table; wait for the job and download its files if requested. Return the exit status."""
    arguments = options.arguments()
    if waiting.rejects is not None and waiting.out is None:
        raise SettingsError("--rejects requires --out")
    _check_outputs([waiting.out, waiting.rejects], table)
    with _client(server) as client, input_table(table) as source:
        job = client.jobs.submit(source, options.model, **arguments)
        if waiting.wait or waiting.out is not None:
            output.say(f"submitted job {job.id}")
            return _finish(client, job, waiting, as_json=as_json)
    if as_json:
        output.print_json(job)
    else:
        output.print_lines([job.id])
        output.suggest({"wait for it": f"rowcast jobs wait {job.id}"})
    return OK


def _finish(client: Client, job: JobStatus, waiting: Waiting, *, as_json: bool) -> int:
    with job_progress() as report:
        job = client.jobs.wait(job.id, progress=report)
    if job.state == "done" and waiting.out is not None:
        _say_what_was_written(_download(client, job.id, waiting.out, waiting.rejects))
    return _print_ended(job, as_json=as_json)


def list_jobs(server: ServerAccess, limit: int, *, as_json: bool) -> None:
    """Print the newest jobs."""
    with _client(server) as client:
        jobs = list(islice(client.jobs.list(page=min(limit, 1000)), limit))
    if as_json:
        output.print_json({"jobs": jobs})
        return
    headings = ("id", "state", "model", "rows", "rejected", "created")
    output.print_table(headings, [_cells(job) for job in jobs], whole=("id",))


def _cells(job: JobStatus) -> Sequence[Any]:
    share = "" if job.state != "running" else f" {job.progress.share:.0%}"
    model, created = f"{job.model}@{job.version}", output.moment(job.created)
    return job.id, f"{job.state}{share}", model, job.progress.rows, job.progress.rejected, created


def show(server: ServerAccess, job_id: str, *, as_json: bool) -> None:
    """Print one job."""
    with _client(server) as client:
        job = client.jobs.get(job_id)
    _print_job(job, as_json=as_json)


def wait(server: ServerAccess, job_id: str, timeout: float | None, *, as_json: bool) -> int:
    """Wait until a job has ended, and print it; return the exit status."""
    with _client(server) as client, job_progress() as report:
        job = client.jobs.wait(job_id, timeout=timeout, progress=report)
    return _print_ended(job, as_json=as_json)


def cancel(server: ServerAccess, job_id: str, *, as_json: bool) -> None:
    """Cancel a job and print it."""
    with _client(server) as client:
        job = client.jobs.cancel(job_id)
    _print_job(job, as_json=as_json)


def download(server: ServerAccess, job_id: str, out: Path, rejects: Path | None, *, as_json: bool) -> None:
    """Download the files of a job."""
    _check_outputs([out, rejects])
    with _client(server) as client:
        summary = _download(client, job_id, out, rejects)
    if as_json:
        output.print_json(summary)
    else:
        _say_what_was_written(summary)


def _say_what_was_written(summary: JobSummary) -> None:
    rejects = f" and {summary.rejects}" if summary.rejects else ""
    output.say(f"wrote {summary.out}{rejects}")


def _download(client: Client, job_id: str, out: Path, rejects: Path | None) -> JobSummary:
    size = client.jobs.result(job_id, out)
    rejected = None if rejects is None else client.jobs.rejects(job_id, rejects)
    return JobSummary(job_id, str(out), size, None if rejects is None else str(rejects), rejected)


def _check_outputs(outputs: Sequence[Path | None], *inputs: Path) -> None:
    chosen = [path for path in outputs if path is not None]
    for path in chosen:
        refuse_overwriting(path, inputs)
    if len(chosen) == 2 and is_same_file(*chosen):
        raise SettingsError(f"--out and --rejects are the same file {chosen[0]}; choose two different files")


@contextmanager
def _client(server: ServerAccess) -> Iterator[Client]:
    """Yield a client; rephrase its errors for users of the command line."""
    with Client(server.url, server.key) as client:
        try:
            yield client
        except ErrorReply as error:
            raise RowcastError(error.detail or error.message, slug=error.slug) from None
        except Unreachable as error:
            hint = "start a server with `rowcast serve`, or set the URL of a running server with --url or ROWCAST_URL"
            raise RowcastError(f"{error.message}; {hint}", slug=error.slug) from None


def _print_ended(job: JobStatus, *, as_json: bool) -> int:
    _print_job(job, as_json=as_json)
    return OK if job.state == "done" else ENDED_WITHOUT_RESULT


def _print_job(job: JobStatus, *, as_json: bool) -> None:
    if as_json:
        output.print_json(job)
        return
    lines = [
        ("id", job.id),
        ("state", job.state),
        ("model", f"{job.model}@{job.version}"),
        *([("engine", job.engine)] if job.engine != "local" else []),
        ("progress", f"{job.progress.share:.0%}, {job.progress.rows} rows, {job.progress.rejected} rejected"),
        ("created", output.moment(job.created)),
        *([("ended", output.moment(job.ended))] if job.ended else []),
        *([("expires", output.moment(job.expires))] if job.expires else []),
        *([("problem", f"{job.problem.slug}: {job.problem.message}")] if job.problem else []),
        *([("retry", output.moment(job.retry))] if job.retry else []),
        *([("error", f"{job.error.slug}: {job.error.message}")] if job.error else []),
    ]
    output.print_lines(f"{name}\t{text}" for name, text in lines)


@contextmanager
def job_progress() -> Iterator[Callable[[JobStatus], None]]:
    """Show a progress bar if standard error is a terminal, and print why a job is postponed."""
    said: set[JobError] = set()

    def say_problem(job: JobStatus) -> None:
        if job.problem is not None and job.problem not in said:
            said.add(job.problem)
            output.say(f"the job is postponed: {job.problem.message}")

    if not sys.stderr.isatty():
        yield say_problem
        return
    from rich import progress as bars

    parts = (bars.BarColumn(), bars.TaskProgressColumn(), bars.TextColumn("{task.description}"))
    with bars.Progress(*parts, console=output.console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1.0)

        def report(job: JobStatus) -> None:
            say_problem(job)
            bar.update(task, completed=job.progress.share, description=f"{job.state}, {job.progress.rows:,} rows")

        yield report
